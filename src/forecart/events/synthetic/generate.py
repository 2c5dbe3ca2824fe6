"""Canonical events of a synthetic world, streamed in chunks of users.

Takes a world, gives polars frames with the event columns; memory is bounded by the chunk. One Poisson clock
per user ticks at the summed rate of events and of changes of intent, and a coin says which of the two a tick
is: the two processes it splits into are again independent Poisson clocks. Every number is a function of
(seed, user, tick), so the chunk size never shows in the rows.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

from forecart import columns
from forecart.artifacts import write_atomically
from forecart.events.synthetic.draws import (
    AliasTable,
    Floats,
    Indices,
    build_alias_table,
    stream_keys,
    uniforms,
)
from forecart.events.synthetic.world import DAY_US, OFFSITE_TYPES, World, world_catalogue

CHUNK_USERS: Final = 2048

_JOIN, _GAP, _KIND, _ADVERTISER, _ITEM, _TYPE, _LATE, _DELAY, _QUANTITY = range(9)
_CHECKOUT, _SIGNUP = OFFSITE_TYPES.index("checkout"), OFFSITE_TYPES.index("signup")
_NOTHING: Final = 1e-12
_BELOW_ONE: Final = float(np.nextafter(1.0, 0.0))
_TYPE_NAMES: Final = pl.Series(OFFSITE_TYPES)


class _Tables(NamedTuple):
    """Whatever depends on the world only, made once for all chunks."""

    advertiser: AliasTable
    item: AliasTable
    advertiser_ids: pl.Series
    item_ids: pl.Series


class _Acts(NamedTuple):
    """The events of a chunk of users, in order of user and time."""

    user: Indices
    position: npt.NDArray[np.uint64]
    ordinal: Indices
    occurred_us: Indices
    intent: Indices


class _Marks(NamedTuple):
    """What the user did in each event."""

    kind: Indices
    advertiser: Indices
    item: Indices
    quantity: Indices
    delay_us: Indices


def generate_events(world: World, *, chunk_users: int = CHUNK_USERS) -> Iterator[pl.DataFrame]:
    """Yields the events of all users in frames of `chunk_users` users, by user and then by time."""
    tables = _build_tables(world)
    for first in range(0, world.config.num_users, chunk_users):
        last = min(first + chunk_users, world.config.num_users)
        acts = _draw_acts(world, np.arange(first, last, dtype=np.int64))
        yield _to_frame(world, tables, acts, _draw_marks(world, tables, acts))


def write_world(world: World, folder: Path) -> tuple[Path, Path]:
    """Streams `events.parquet` to `folder`, writes `catalogue.parquet` beside it and returns both paths."""
    events, catalogue = folder / "events.parquet", folder / "catalogue.parquet"
    write_atomically(events, lambda path: _write_chunks(world, path))
    write_atomically(catalogue, world_catalogue(world).write_parquet)
    return events, catalogue


def _write_chunks(world: World, path: Path) -> None:
    frames = generate_events(world)
    first = next(frames).to_arrow()
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for frame in frames:
            writer.write_table(frame.to_arrow().cast(first.schema))


def _build_tables(world: World) -> _Tables:
    eras, _, num_advertisers = world.emission.shape
    per_advertiser = world.item_share.reshape(eras * num_advertisers, -1)
    return _Tables(
        advertiser=build_alias_table(world.emission.reshape(-1, num_advertisers)),
        item=build_alias_table(per_advertiser),
        advertiser_ids=pl.Series(world.advertiser_ids),
        item_ids=pl.Series(world.item_ids),
    )


def _draw_acts(world: World, user: Indices) -> _Acts:
    config = world.config
    rate = config.events_per_day + config.intent_changes_per_day
    expected = rate * config.span_days
    # Nine standard deviations: no user of a hundred million loses an event.
    position = np.arange(math.ceil(expected + 9 * math.sqrt(expected) + 9), dtype=np.uint64)
    gap = -np.log1p(-uniforms(stream_keys(config.seed, user, _GAP)[:, None], position)) / rate
    entry = uniforms(stream_keys(config.seed, user, _JOIN)[:, None], position[:2])
    day = entry[:, :1] * config.join_days + np.cumsum(gap, axis=1)
    coin = uniforms(stream_keys(config.seed, user, _KIND)[:, None], position)
    is_change = coin * rate < config.intent_changes_per_day
    state = (entry[:, 1] * world.num_states).astype(np.int64)
    path = _walk(world, state, is_change, coin * (rate / config.intent_changes_per_day))
    row, tick = np.nonzero(~is_change & (day < config.span_days))
    first = np.searchsorted(row, np.arange(len(user)))
    return _Acts(
        user=user[row],
        position=tick.astype(np.uint64),
        ordinal=np.arange(len(row)) - first[row],
        occurred_us=config.start_us + (day[row, tick] * DAY_US).astype(np.int64),
        intent=world.edge_intents[path[row, tick], 1],
    )


def _walk(world: World, state: Indices, is_change: npt.NDArray[np.bool_], uniform: Floats) -> Indices:
    """[users, ticks] the state at each tick; `uniform` is in [0, 1) where the state changes."""
    config, width = world.config, world.next_edges.shape[1]
    path: Indices = np.empty(is_change.shape, dtype=np.int64)
    kept = (uniform - config.restart_share) / max(1 - config.restart_share, _NOTHING)
    spill = (kept - config.favoured_share) / max(1 - config.favoured_share, _NOTHING)
    rank = np.where(kept < config.favoured_share, 0, 1 + _pick(spill, width - 1))
    fresh = _pick(uniform / max(config.restart_share, _NOTHING), world.num_states)
    for tick in range(path.shape[1]):
        ahead = world.next_edges[state, rank[:, tick]]
        ahead = np.where(kept[:, tick] < 0, fresh[:, tick], ahead)
        state = np.where(is_change[:, tick], ahead, state)
        path[:, tick] = state
    return path


def _pick(uniform: Floats, size: int) -> Indices:
    """One of `size` numbers; what lies outside [0, 1) is drawn for nothing and comes out as an end."""
    picked: Indices = (np.clip(uniform, 0.0, _BELOW_ONE) * size).astype(np.int64)
    return picked


def _draw_marks(world: World, tables: _Tables, acts: _Acts) -> _Marks:
    config = world.config
    era = (acts.occurred_us >= world.launch_us).astype(np.int64)

    def draw(stream: int) -> Floats:
        return uniforms(stream_keys(config.seed, acts.user, stream), acts.position)

    advertiser = tables.advertiser.draw(era * config.num_intents + acts.intent, draw(_ADVERTISER))
    shelf = tables.item.draw(era * world.num_advertisers + advertiser, draw(_ITEM))
    kind = np.searchsorted(np.cumsum(config.type_shares[:-1]), draw(_TYPE), side="right")
    shortest, longest = config.late_hours
    delay_hours = shortest * (longest / shortest) ** draw(_DELAY)
    is_late = (kind > 0) & (draw(_LATE) < config.late_share)
    return _Marks(
        kind=kind,
        advertiser=advertiser,
        item=advertiser * config.items_per_advertiser + shelf,
        quantity=np.where(kind == _CHECKOUT, 1 + (draw(_QUANTITY) ** 3 * 4).astype(np.int64), 1),
        delay_us=np.where(is_late, delay_hours * (DAY_US / 24), 0.0).astype(np.int64),
    )


def _to_frame(world: World, tables: _Tables, acts: _Acts, marks: _Marks) -> pl.DataFrame:
    """The canonical columns; a signup has no item, value or quantity."""
    first = int(acts.user[0]) if len(acts.user) else 0
    users = pl.Series([f"u{number:09d}" for number in range(first, int(acts.user.max(initial=first)) + 1)])
    bought = pl.col("kind") != _SIGNUP
    instant = pl.Datetime("us", "UTC")
    frame = pl.DataFrame(
        {
            columns.USER_ID: users.gather(acts.user - first),
            columns.EVENT_TYPE: _TYPE_NAMES.gather(marks.kind),
            columns.ADVERTISER_ID: tables.advertiser_ids.gather(marks.advertiser),
            columns.ITEM_ID: tables.item_ids.gather(marks.item),
            columns.OCCURRED_AT: acts.occurred_us,
            columns.ARRIVED_AT: acts.occurred_us + marks.delay_us,
            columns.ORDINAL: acts.ordinal,
            columns.VALUE: np.round(world.item_price[marks.item] * marks.quantity, 2),
            columns.QUANTITY: marks.quantity.astype(np.float64),
            "kind": marks.kind,
        }
    )
    return frame.select(
        pl.concat_str(columns.USER_ID, columns.ORDINAL, separator="-").alias(columns.EVENT_ID),
        columns.USER_ID,
        columns.EVENT_TYPE,
        columns.ADVERTISER_ID,
        pl.when(bought).then(columns.ITEM_ID).alias(columns.ITEM_ID),
        pl.col(columns.OCCURRED_AT).cast(instant),
        pl.col(columns.ARRIVED_AT).cast(instant),
        columns.ORDINAL,
        pl.when(bought).then(columns.VALUE).alias(columns.VALUE),
        pl.when(bought).then(pl.lit("USD")).alias(columns.CURRENCY),
        pl.when(bought).then(columns.QUANTITY).alias(columns.QUANTITY),
    )
