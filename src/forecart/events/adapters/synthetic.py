"""The synthetic world as a log, generated while it is read: a world of any size needs no file of its own."""

from collections.abc import Iterator

import polars as pl

from forecart import columns as c
from forecart.errors import ConfigError
from forecart.events.schema import Source, SourceConfig
from forecart.events.synthetic import build_world, generate_events, world_catalogue


def open_synthetic(config: SourceConfig) -> Source:
    """Opens the world that `synthetic` describes.

    Raises:
        ConfigError: the configuration describes no world.
    """
    if config.synthetic is None:
        raise ConfigError("adapter `synthetic` needs a section `synthetic` for its world, there is none")
    world = build_world(config.synthetic)
    return Source(
        chunks=lambda: number_rows(generate_events(world), source="synthetic events"),
        catalogue=lambda: number_rows(iter([world_catalogue(world)]), source="synthetic catalogue"),
    )


def number_rows(frames: Iterator[pl.DataFrame], *, source: str) -> Iterator[pl.DataFrame]:
    """Yields frames with `source` and `offset`, the number of the row over all frames."""
    first = 0
    for frame in frames:
        offset = pl.int_range(first, first + pl.len(), dtype=pl.Int64)
        yield frame.with_columns(pl.lit(source).alias(c.SOURCE), offset.alias(c.OFFSET))
        first += frame.height
