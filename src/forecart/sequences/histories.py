"""Every user's events as flat memory-mapped arrays, in the order they arrived.

A user is a slice `start : start + length`; the history at a cut-off is the prefix of that slice that arrived
before it, so one table serves every cut and nothing that arrived later can be in a prefix. Users lie in index
order, one after the other. `write_histories` fills the arrays partition by partition: it holds one partition
in memory, the output is mapped.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from forecart import artifacts, columns
from forecart.errors import ArtifactError
from forecart.sequences.vocabulary import Vocabulary

BLOCK_EVENTS: Final = 1 << 22
"""What is sorted or counted of a log is so many events at a time, so that it takes memory for these alone."""
# Of each event, in arrival order; the user arrays are `start` and `length`.
EVENT_DTYPES: Final[dict[str, Any]] = {
    "event_type": np.uint8,
    "advertiser": np.int32,
    "item": np.int32,
    "occurred_us": np.int64,
    "arrived_us": np.int64,
    "price": np.float32,
}


LENGTHS: Final = "length.npy"


@dataclass(frozen=True, eq=False)
class Histories:
    """The events of every user. U users by user_index (0 and 1 have none), E events.

    Attributes:
        start: [U], where a user's events begin.
        length: [U], how many there are.
        event_type: [E], codes of `columns.EVENT_TYPE_CODES`.
        advertiser: [E], advertiser_index.
        item: [E], item_index, 0 where the event has none.
        occurred_us: [E], microseconds since the epoch, UTC.
        arrived_us: [E], the same; ascending within a user and never before `occurred_us`.
        price: [E], price of one unit, NaN where unknown.
    """

    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    event_type: npt.NDArray[np.uint8]
    advertiser: npt.NDArray[np.int32]
    item: npt.NDArray[np.int32]
    occurred_us: npt.NDArray[np.int64]
    arrived_us: npt.NDArray[np.int64]
    price: npt.NDArray[np.float32]

    @property
    def num_users(self) -> int:
        """U: the size of the user index space, padding and unknown included."""
        return len(self.start)

    @property
    def num_events(self) -> int:
        """E: the number of events of all users."""
        return len(self.event_type)

    def end_at(self, user_index: npt.ArrayLike, cut_us: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Returns where each user's prefix of events that arrived before the cut ends: `start[u] : end`.

        A user without such events has `end == start[u]`.

        Args:
            user_index: user indices; broadcast against `cut_us`.
            cut_us: cut-offs in microseconds since the epoch; an event at the cut itself is after it.

        Returns:
            Absolute offsets, of the broadcast shape.
        """
        users, cuts = np.broadcast_arrays(np.asarray(user_index), np.asarray(cut_us, dtype=np.int64))
        low = np.array(self.start[users], dtype=np.int64)
        high = low + self.length[users]
        is_open = low < high
        while is_open.any():
            middle = (low + high) // 2
            is_before = np.zeros(low.shape, bool)
            is_before[is_open] = self.arrived_us[middle[is_open]] < cuts[is_open]
            low = np.where(is_open & is_before, middle + 1, low)
            high = np.where(is_open & ~is_before, middle, high)
            is_open = low < high
        return low

    def known_until_us(self, now_us: int) -> int:
        """Returns the moment just after the last event that has arrived by now.

        A row of a day to come is a mistake of its log; the last of such rows counts only where all are.
        """
        latest_us = int(self.arrived_us.max())
        if latest_us > now_us:  # a copy of nearly all, which is for a mistake only
            latest_us = int(self.arrived_us[self.arrived_us <= now_us].max(initial=0)) or latest_us
        return latest_us + 1

    def event_users(self) -> npt.NDArray[np.int32]:
        """Returns the user_index of every event, [E]."""
        return np.repeat(np.arange(self.num_users, dtype=np.int32), self.length)

    def blocks(self) -> Iterator[tuple[int, "Histories"]]:
        """Yields the histories of runs of users, each after the index of its first one, who is 0 there."""
        bounds = np.append(self.start, self.num_events)
        for first, last in split_users(bounds):
            rows = slice(int(bounds[first]), int(bounds[last]))
            events = {name: getattr(self, name)[rows] for name in EVENT_DTYPES}
            yield first, Histories(self.start[first:last] - rows.start, self.length[first:last], **events)

    def save(self, folder: Path) -> None:
        """Writes one `.npy` per array."""
        for field in fields(self):
            artifacts.write_npy(folder / f"{field.name}.npy", getattr(self, field.name))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Maps saved histories into memory.

        Raises:
            ArtifactError: a file is missing, or the arrays do not belong together.
        """
        histories = cls(
            **{field.name: artifacts.read_npy(folder / f"{field.name}.npy") for field in fields(cls)}
        )
        num_events = {len(getattr(histories, name)) for name in EVENT_DTYPES} | {int(histories.length.sum())}
        if len(num_events) != 1 or len(histories.start) != len(histories.length):
            raise ArtifactError(
                f"the arrays of the histories in {folder} are not of one size: build them again"
            )
        return histories


def split_users(bounds: npt.NDArray[np.int64], *, num_rows: int | None = None) -> Iterator[tuple[int, int]]:
    """Yields runs [first, last) of users with about `num_rows` rows; all of a user's rows are in one run.

    Args:
        bounds: [U + 1], the rows of user u are `bounds[u] : bounds[u + 1]`.
        num_rows: `BLOCK_EVENTS` when None.
    """
    size = num_rows or BLOCK_EVENTS
    inner = np.searchsorted(bounds, np.arange(size, bounds[-1], size))
    return pairwise(np.unique([0, *inner, len(bounds) - 1]).tolist())


@dataclass(frozen=True)
class Vocabularies:
    """The three index spaces that events are written in."""

    users: Vocabulary
    advertisers: Vocabulary
    items: Vocabulary


@dataclass(frozen=True, eq=False)
class Places:
    """Where events go. U users by user_index.

    Attributes:
        vocabularies: the index spaces; they know every id of the events.
        length: [U], the number of events of each user.
        start: [U], where a user's events begin.
    """

    vocabularies: Vocabularies
    length: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]

    @classmethod
    def of(cls, vocabularies: Vocabularies, length: npt.NDArray[np.int64]) -> Self:
        """Returns the places of users who lie in index order, one after the other."""
        return cls(vocabularies, length, np.concatenate([np.zeros(1, np.int64), np.cumsum(length)[:-1]]))


@dataclass(frozen=True, eq=False)
class Placed:
    """The n events of some users as they are in the arrays.

    Attributes:
        users: user_index of each user.
        rows: [n], where each event goes.
        columns: name of an array of `Histories` -> its [n] values.
    """

    users: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int64]
    columns: dict[str, npt.NDArray[Any]]


def write_histories(parts: Iterable[Placed], folder: Path, *, places: Places) -> None:
    """Writes the histories of placed events to `folder`, whatever the order of the parts.

    Raises:
        ArtifactError: a user is in two parts, or a user who should have events in none.
    """
    is_written = np.zeros(len(places.length), bool)
    with _mapped_columns(folder, int(places.length.sum())) as outputs:
        for part in parts:
            if is_written[part.users].any():
                raise _not_consecutive()
            is_written[part.users] = True
            for name, values in part.columns.items():
                outputs[name][part.rows] = values
    if not np.array_equal(is_written, places.length > 0):
        raise ArtifactError(
            "every user of the vocabulary must be in the events, some are not: build both again"
        )
    artifacts.write_npy(folder / "start.npy", places.start)
    artifacts.write_npy(folder / LENGTHS, places.length)


@contextmanager
def _mapped_columns(folder: Path, num_events: int) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Gives writable mapped arrays that get their names when all are filled."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f".{name}.building" for name in EVENT_DTYPES}
    try:
        outputs: dict[str, npt.NDArray[Any]] = {
            name: np.lib.format.open_memmap(paths[name], "w+", dtype, (num_events,))
            for name, dtype in EVENT_DTYPES.items()
        }
        yield outputs
        outputs.clear()  # unmaps, so that what was written is in the files before they are synced
        for name, path in paths.items():
            artifacts.publish_built(path, folder / f"{name}.npy")
    finally:
        for path in paths.values():
            path.unlink(missing_ok=True)


def place_events(part: pl.DataFrame, places: Places) -> Placed:
    """Returns the events of a part as they are in the arrays, and where they go.

    Raises:
        ArtifactError: a user's events are not consecutive and in arrival order, or not as many as expected.
    """
    runs = part[columns.USER_ID].rle().struct.unnest()
    users = places.vocabularies.users.index(runs["value"])
    run_length = runs["len"].to_numpy().astype(np.int64)
    if len(np.unique(users)) < len(users) or not np.array_equal(places.length[users], run_length):
        raise _not_consecutive()
    first_row = np.cumsum(run_length) - run_length
    _check_arrival_order(part, first_row)
    offset = np.repeat(places.start[users] - first_row, run_length)
    return Placed(users, offset + np.arange(len(part)), _columns_of(part, places.vocabularies))


def _not_consecutive() -> ArtifactError:
    return ArtifactError(
        "a user's events must be consecutive in one partition, some are not: ingest them again"
    )


def _check_arrival_order(part: pl.DataFrame, first_row: npt.NDArray[np.int64]) -> None:
    step = np.diff(part[columns.ARRIVED_AT].to_physical().to_numpy())
    step[first_row[1:] - 1] = 0
    if (step < 0).any():
        raise ArtifactError("a user's events must be in order of arrival, some are not: ingest them again")


def _columns_of(part: pl.DataFrame, vocabularies: Vocabularies) -> dict[str, npt.NDArray[Any]]:
    codes = part[columns.EVENT_TYPE].replace_strict(columns.EVENT_TYPE_CODES, return_dtype=pl.UInt8)
    return {
        "event_type": codes.to_numpy(),
        "advertiser": vocabularies.advertisers.index(part[columns.ADVERTISER_ID]),
        "item": vocabularies.items.index(part[columns.ITEM_ID]),
        "occurred_us": part[columns.OCCURRED_AT].to_physical().to_numpy(),
        "arrived_us": part[columns.ARRIVED_AT].to_physical().to_numpy(),
        "price": part.select(_unit_price())[columns.PRICE].fill_null(float("nan")).to_numpy(),
    }


def _unit_price() -> pl.Expr:
    """Returns the price of one unit, value / quantity; null where it is unknown or not positive and finite.

    A row without a quantity is of one unit.
    """
    price = (pl.col(columns.VALUE) / pl.col(columns.QUANTITY).fill_null(1.0)).cast(pl.Float32)
    return pl.when(price.is_finite() & (price > 0)).then(price).alias(columns.PRICE)
