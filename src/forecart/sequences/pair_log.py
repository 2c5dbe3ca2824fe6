"""Each user's events by candidate: one sorted copy of a log from which any cut is read without sorting again.

Takes histories; gives their events ordered by (user, candidate, time). The events of one (user, candidate)
pair that had arrived before a cut are a masked run of rows, so the statistics of millions of pairs are a few
passes over flat arrays. Rows without a known candidate at this level are left out. Conversions at one time
are one visit; it is told of its row that arrived first, so that it is known as of a cut when that row is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from forecart.sequences.histories import Histories, split_users
from forecart.sequences.split import Level
from forecart.sequences.vocabulary import FIRST_INDEX

ROW_DTYPES: Final[dict[str, Any]] = {
    "user": np.int32,
    "candidate": np.int32,
    "occurred_us": np.int64,
    "arrived_us": np.int64,
    "event_type": np.uint8,
    "is_conversion": np.bool_,
    "is_visit": np.bool_,
}


@dataclass(frozen=True, eq=False)
class PairLog:
    """Events by (user, candidate, time): E rows, U users, N candidates.

    Attributes:
        start: [U + 1], where each user's rows begin.
        user: [E], user_index.
        candidate: [E], ascending within a user.
        occurred_us: [E], ascending within a pair.
        arrived_us: [E], ascending among the rows of a pair at one time.
        event_type: [E], codes.
        is_conversion: [E].
        is_visit: [E], the first conversion to arrive of each distinct time of a pair.
        user_visit: [W], rows: the first conversion to arrive of each distinct time of a user, by user, time.
        num_candidates: N, padding and unknown included.
        group: [N, 2], category and family of each candidate (`read_candidate_groups`).
        seen: ascending, the candidates of this log, when statistics are to have a row for them alone
            (`Population`); None for a row of each of the N.
    """

    start: npt.NDArray[np.int64]
    user: npt.NDArray[np.int32]
    candidate: npt.NDArray[np.int32]
    occurred_us: npt.NDArray[np.int64]
    arrived_us: npt.NDArray[np.int64]
    event_type: npt.NDArray[np.uint8]
    is_conversion: npt.NDArray[np.bool_]
    is_visit: npt.NDArray[np.bool_]
    user_visit: npt.NDArray[np.int64]
    num_candidates: int
    group: npt.NDArray[np.int32]
    seen: npt.NDArray[np.int32] | None = None

    @classmethod
    def build(
        cls,
        histories: Histories,
        *,
        level: Level,
        num_candidates: int,
        conversion_codes: frozenset[int],
        group: npt.NDArray[np.int32] | None = None,
    ) -> Self:
        """Sorts the events of `histories` by user, candidate and time, a block of users at a time.

        Args:
            histories: all events; what arrived after a cut is masked when the cut is read.
            level: which index is the candidate.
            num_candidates: N; candidates of a later vocabulary are left out.
            conversion_codes: event types that are conversions.
            group: [N, 2], category and family of each candidate; all of one when None.
        """
        num_rows = sum(len(_rows_with(block, level, num_candidates)) for _, block in histories.blocks())
        rows = {name: np.empty(num_rows, dtype) for name, dtype in ROW_DTYPES.items()}
        user_visit, end = [np.empty(0, np.int64)], 0
        for first_user, block in histories.blocks():
            found = _sort_events(block, level, num_candidates, conversion_codes)
            visit = np.flatnonzero(found["is_visit"])
            user_visit.append(end + _user_visits(visit, *(found[name] for name in _VISIT_KEYS)))
            found["user"] += np.int32(first_user)
            start, end = end, end + len(found["user"])
            for name, values in found.items():
                rows[name][start:end] = values
        users = np.arange(histories.num_users + 1, dtype=np.int32)
        return cls(
            start=np.searchsorted(rows["user"], users),
            **rows,
            user_visit=np.concatenate(user_visit),
            num_candidates=num_candidates,
            group=np.broadcast_to(np.int32(1), (num_candidates, 2)) if group is None else group,
        )

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Yields runs of users, each with its rows: what is counted block by block takes memory for one."""
        for first, last in split_users(self.start):
            yield slice(first, last), slice(int(self.start[first]), int(self.start[last]))

    def with_seen_only(self) -> Self:
        """Returns this log for statistics of the candidates that occur in it."""
        return replace(self, seen=np.unique(self.candidate).astype(np.int32))

    def rows_of(
        self, user_index: npt.NDArray[np.int32], cut_us: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Returns the rows of each user that arrived before that user's cut.

        Args:
            user_index: [B].
            cut_us: [B].

        Returns:
            The position in the batch and the row in this log, [R] each, by batch position, candidate, time.
        """
        position, row = expand_ranges(self.start[user_index], self.start[user_index + 1])
        is_known = self.arrived_us[row] < cut_us[position]
        return position[is_known], row[is_known]


_VISIT_KEYS: Final = ("user", "occurred_us", "arrived_us")


def _candidate_of(histories: Histories, level: Level) -> npt.NDArray[np.int32]:
    return histories.advertiser if level == "advertiser" else histories.item


def _rows_with(histories: Histories, level: Level, num_candidates: int) -> npt.NDArray[np.int64]:
    """Returns the events that have a candidate below `num_candidates`."""
    candidate = _candidate_of(histories, level)
    return np.flatnonzero((candidate >= FIRST_INDEX) & (candidate < num_candidates))


def _sort_events(
    histories: Histories, level: Level, num_candidates: int, conversion_codes: frozenset[int]
) -> dict[str, npt.NDArray[Any]]:
    """Returns the columns of `ROW_DTYPES` of these histories."""
    candidate, row = _candidate_of(histories, level), _rows_with(histories, level, num_candidates)
    user = histories.event_users()[row]
    pair = user.astype(np.int64) * num_candidates + candidate[row]
    # The sort is stable and histories are in order of arrival: so are the rows of a pair at one time.
    order = np.lexsort((histories.occurred_us[row], pair))
    row, user = row[order], user[order]
    occurred_us, event_type = histories.occurred_us[row], histories.event_type[row]
    is_conversion = np.isin(event_type, sorted(conversion_codes))
    is_visit = np.zeros(len(row), bool)
    converted = np.flatnonzero(is_conversion)
    is_visit[converted] = run_starts(pair[order[converted]], occurred_us[converted])
    return {
        "user": user,
        "candidate": candidate[row],
        "occurred_us": occurred_us,
        "arrived_us": histories.arrived_us[row],
        "event_type": event_type,
        "is_conversion": is_conversion,
        "is_visit": is_visit,
    }


def _user_visits(
    visit: npt.NDArray[np.int64],
    user: npt.NDArray[np.int32],
    occurred_us: npt.NDArray[np.int64],
    arrived_us: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Returns of the pairs' visits the first to arrive of each distinct time of a user."""
    visit = visit[np.lexsort((arrived_us[visit], occurred_us[visit], user[visit]))]
    return visit[run_starts(user[visit], occurred_us[visit])]


def expand_ranges(
    first: npt.NDArray[np.int64], end: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns every number of the ranges [first, end) one after the other, each with its range's position."""
    length = np.maximum(end - first, 0)
    position = np.repeat(np.arange(len(first)), length)
    within = np.arange(len(position)) - np.repeat(np.cumsum(length) - length, length)
    return position, first[position] + within


def run_starts(*keys: npt.NDArray[np.int64] | npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Says of each row whether any of the keys differs from the row before; the first row starts a run."""
    is_start = np.zeros(len(keys[0]), bool)
    is_start[:1] = True
    for key in keys:
        is_start[1:] |= key[1:] != key[:-1]
    return is_start


def run_ends(*keys: npt.NDArray[np.int64] | npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Says of each row whether any of the keys differs from the row after; the last row ends a run."""
    return np.roll(run_starts(*keys), -1)
