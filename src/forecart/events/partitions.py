"""Rows routed to partitions of a user hash on disk, and one partition at a time made into its final table.

The hash is FNV-1a (64 bit) with murmur's finaliser, written here in numpy: the same in every process, on
every machine and with every version of every library, so a user stays in one partition for the life of a
store.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from forecart import columns as c
from forecart.events.schema import EVENT_SCHEMA

_FNV_OFFSET: Final = np.uint64(0xCBF29CE484222325)
_FNV_PRIME: Final = np.uint64(0x100000001B3)
_IDENTITY: Final = [c.USER_ID, c.EVENT_ID]
_STORE_ORDER: Final = [c.USER_ID, c.ARRIVED_AT, c.OCCURRED_AT, c.ORDINAL, c.EVENT_ID]
_CONTENT: Final = [c.USER_ID, c.EVENT_TYPE, c.ADVERTISER_ID, c.ITEM_ID, c.VALUE, c.CURRENCY, c.QUANTITY]
_US_PER_HOUR: Final = 3_600_000_000


def hash_texts(texts: pl.Series) -> npt.NDArray[np.uint64]:
    """Returns the 64-bit FNV-1a hash of every text's UTF-8 bytes; there must be no nulls."""
    array = texts.cast(pl.Binary).to_arrow()
    _, offset_buffer, data_buffer = array.cast(pa.large_binary()).buffers()
    bounds = np.frombuffer(offset_buffer, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_buffer or b"", dtype=np.uint8)
    lengths = np.diff(bounds)
    longest_first = np.argsort(-lengths, kind="stable")
    starts = bounds[:-1][longest_first]
    hashes = np.full(len(lengths), _FNV_OFFSET)
    for position in range(int(lengths.max(initial=0))):
        active = int(np.count_nonzero(lengths > position))
        hashes[:active] ^= data[starts[:active] + position]
        hashes[:active] *= _FNV_PRIME
    result = np.empty_like(hashes)
    result[longest_first] = hashes
    return result


def assign_partitions(user_ids: pl.Series, num_partitions: int) -> npt.NDArray[np.uint32]:
    """Returns the partition of every user id."""
    mixed = hash_texts(user_ids)
    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        mixed ^= mixed >> np.uint64(33)
        mixed *= np.uint64(multiplier)
    mixed ^= mixed >> np.uint64(33)
    return (mixed % np.uint64(num_partitions)).astype(np.uint32)


class PartitionSpill:
    """Append-only files, one per partition, that take event rows in any order (Arrow streams, LZ4)."""

    def __init__(self, folder: Path, num_partitions: int) -> None:
        self._schema = pl.DataFrame(schema=EVENT_SCHEMA).to_arrow().schema
        paths = [spilled_path(folder, partition) for partition in range(num_partitions)]
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writers = [pa.ipc.new_stream(str(path), self._schema, options=options) for path in paths]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, events: pl.DataFrame) -> None:
        """Adds typed rows, each to the partition of its user."""
        partition = pl.Series("partition", assign_partitions(events[c.USER_ID], len(self._writers)))
        parts = events.with_columns(partition).partition_by("partition", as_dict=True, include_key=False)
        for (number,), part in parts.items():
            self._writers[number].write_table(part.to_arrow().cast(self._schema))

    def close(self) -> None:
        """Finishes the files; needed before they are read, harmless when repeated."""
        for writer in self._writers:
            writer.close()


def read_spilled(folders: Sequence[Path], partition: int) -> pl.DataFrame:
    """Returns all rows of one partition, in the order they came."""
    tables = []
    for folder in folders:
        with pa.OSFile(str(spilled_path(folder, partition))) as file:
            tables.append(pa.ipc.open_stream(file).read_all())
    return pl.DataFrame(pl.from_arrow(pa.concat_tables(tables))).select(*EVENT_SCHEMA)


def spilled_path(folder: Path, partition: int) -> Path:
    """Returns the file of a partition."""
    return folder / f"{partition:05d}.arrow"


def drop_repeated_ids(events: pl.DataFrame) -> pl.DataFrame:
    """Returns one row per user and event id, the first to arrive, in store order."""
    # Rows of one id that arrived at once are told apart by content, so that their order cannot matter.
    order = [
        *_IDENTITY,
        c.ARRIVED_AT,
        *(name for name in EVENT_SCHEMA if name not in (*_IDENTITY, c.ARRIVED_AT)),
    ]
    has_repeats = events.select(pl.struct(_IDENTITY).is_duplicated().any()).item()
    unique = (
        events.sort(order).unique(_IDENTITY, keep="first", maintain_order=True) if has_repeats else events
    )
    return sort_events(unique)


def drop_second_deliveries(events: pl.DataFrame, *, window_h: float) -> pl.DataFrame:
    """Returns one event for each pair of equal content at most `window_h` apart, for logs that deliver twice.

    Equal rows are taken in order of time and paired first with second, third with fourth, so that two real
    events that were delivered twice stay two. The earlier one is kept, with the earlier arrival of the pair.
    """
    ordered = events.sort([*_CONTENT, c.OCCURRED_AT, c.ARRIVED_AT, c.EVENT_ID])
    window = pl.duration(microseconds=round(window_h * _US_PER_HOUR))
    starts_run = (pl.col(c.OCCURRED_AT).diff().over(_CONTENT) > window).fill_null(True)
    placed = ordered.with_columns(starts_run.cum_sum().alias("run"))
    place = pl.int_range(pl.len()).over("run")
    placed = placed.with_columns((place % 2 == 1).alias("is_second"))
    next_arrival = pl.when(pl.col("is_second").shift(-1)).then(pl.col(c.ARRIVED_AT).shift(-1))
    arrival = pl.max_horizontal(c.OCCURRED_AT, pl.min_horizontal(c.ARRIVED_AT, next_arrival))
    kept = placed.with_columns(arrival.alias(c.ARRIVED_AT)).filter(~pl.col("is_second"))
    return sort_events(kept.select(*EVENT_SCHEMA))


def sort_events(events: pl.DataFrame) -> pl.DataFrame:
    """Returns the rows in store order, in one chunk (the layout of a Parquet file depends on chunks)."""
    return events.sort(_STORE_ORDER).rechunk()
