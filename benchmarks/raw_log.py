"""A raw log of any size, written block by block: `python -m benchmarks.raw_log FOLDER --num-events N`.

Shared Zipf popularity and 64 days in order of time, without the planted structure of the synthetic world: it
measures cost and nothing else, at a million rows a CPU second and in the memory of one block. A block follows
from the seed and its number alone.
"""

import argparse
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from forecart import columns
from forecart.sequences.split import DAY_US

NUM_DAYS: Final = 64
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
TYPES: Final = ("view", "add_to_cart", "checkout", "signup")
TYPE_SHARES: Final = (0.66, 0.18, 0.12, 0.04)
COUNTRIES: Final = ("DE", "FR", "GB", "US")
BLOCK_ROWS: Final = 1 << 21
_MAX_DELAY_US: Final = 600_000_000
_START_US: Final = int(START.timestamp()) * 1_000_000


@dataclass(frozen=True)
class Shape:
    """How large a log is."""

    num_events: int
    num_users: int
    num_items: int
    num_advertisers: int = 5_000
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.num_events, self.num_users, self.num_items, self.num_advertisers) < 1:
            raise ValueError(f"a log has at least one of each, {self} arrived")


def write_raw_log(folder: Path, shape: Shape, *, block_rows: int = BLOCK_ROWS) -> list[Path]:
    """Writes `events-*.parquet` and returns their paths; each holds `block_rows` rows, the last may fewer."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, first in enumerate(range(0, shape.num_events, block_rows)):
        path = folder / f"events-{number:05d}.parquet"
        rows = range(first, min(first + block_rows, shape.num_events))
        make_block(shape, number, rows).write_parquet(path, compression="lz4", statistics=False)
        paths.append(path)
    return paths


def make_block(shape: Shape, number: int, rows: range) -> pl.DataFrame:
    """Returns the events with these numbers."""
    rng, size = np.random.default_rng([shape.seed, number]), len(rows)
    item = _zipf(rng, shape.num_items, size)
    event_number = np.arange(rows.start, rows.stop)
    occurred_us = _START_US + (
        (event_number + rng.random(size)) * (NUM_DAYS * DAY_US / shape.num_events)
    ).astype(np.int64)
    user = rng.integers(shape.num_users, size=size)
    event_type = np.searchsorted(np.cumsum(TYPE_SHARES)[:-1], rng.random(size), side="right")
    names = {"event": event_number, "user": user, "item": item, "advertiser": _advertiser_of(item, shape)}
    return pl.DataFrame(names).select(
        pl.format("e{}", "event").alias(columns.EVENT_ID),
        pl.format("u{}", "user").alias(columns.USER_ID),
        pl.Series(columns.EVENT_TYPE, TYPES).gather(event_type),
        pl.format("a{}", "advertiser").alias(columns.ADVERTISER_ID),
        pl.format("i{}", "item").alias(columns.ITEM_ID),
        pl.Series(columns.OCCURRED_AT, occurred_us).cast(pl.Datetime("us", "UTC")),
        pl.Series(columns.ARRIVED_AT, occurred_us + rng.integers(_MAX_DELAY_US, size=size)).cast(
            pl.Datetime("us", "UTC")
        ),
        pl.Series(columns.VALUE, np.round(np.exp(rng.normal(3.3, 0.8, size)), 2)),
        pl.Series(columns.COUNTRY, COUNTRIES).gather(user % len(COUNTRIES)),
    )


def write_catalogue(path: Path, shape: Shape) -> None:
    """Writes the product feed of every item of the shape."""
    item = np.arange(shape.num_items)
    numbers = pl.DataFrame({"item": item, "advertiser": _advertiser_of(item, shape), "shelf": item % 97})
    numbers.select(
        pl.format("i{}", "item").alias(columns.ITEM_ID),
        pl.format("a{}", "advertiser").alias(columns.ADVERTISER_ID),
        pl.format("Department {} > Shelf {}", pl.col("shelf") % 12, "shelf").alias(columns.CATEGORY),
        (pl.col("shelf") + 0.99).alias(columns.PRICE),
    ).write_parquet(path)


def _zipf(rng: np.random.Generator, size: int, num: int) -> npt.NDArray[np.int64]:
    """Ranks with probability about 1 / rank: the inverse of a logarithm, so that no table is needed."""
    return np.minimum(np.floor((size + 1) ** rng.random(num)).astype(np.int64), size) - 1


def _advertiser_of(item: npt.NDArray[np.int64], shape: Shape) -> npt.NDArray[np.int64]:
    return item % shape.num_advertisers


def main() -> None:
    parser = argparse.ArgumentParser(description="A raw log of any size.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num-events", type=int, default=1_000_000)
    parser.add_argument("--events-per-user", type=int, default=64)
    parser.add_argument("--num-items", type=int, default=1_000_000)
    asked = parser.parse_args()
    num_users = max(1, asked.num_events // asked.events_per_user)
    print(*write_raw_log(asked.folder, Shape(asked.num_events, num_users, asked.num_items)), sep="\n")


if __name__ == "__main__":
    main()
