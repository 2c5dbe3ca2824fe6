"""Each user's events by candidate: one order of a log, from which any cut is read without sorting again.

Takes histories; gives the order of their events by (user, candidate, time), beside the histories and not a
copy of them: five bytes an event and four a visit. The events of one (user, candidate) pair that had arrived
before a cut are a masked run of that order, so the statistics of millions of pairs are a few passes over flat
arrays. Events without a known candidate at this level are left out. Conversions at one time are one visit; it
is told of its event that arrived first, so that it is known as of a cut when that event is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from forecart.sequences.histories import Histories, split_users
from forecart.sequences.split import Level
from forecart.sequences.vocabulary import FIRST_INDEX

EventArray = npt.NDArray[np.uint32] | npt.NDArray[np.int64]
"""Positions of events in the histories, in four bytes as long as these suffice."""
_NUM_SHORT: Final = 1 << 32
_NUM_TYPES: Final = 256


@dataclass(frozen=True, eq=False)
class PairLog:
    """Events by (user, candidate, time): E events of the histories, R of them with a candidate, U users.

    Attributes:
        histories: the events.
        candidate: [E], advertiser or item of each event; an array of the histories.
        start: [U + 1], where each user's events begin in `order`.
        order: [R], events: by user, candidate, time and, within a pair at one time, arrival.
        is_visit: [E], the first conversion to arrive of each distinct time of a pair.
        visit_start: [U + 1], where each user's visits begin in `user_visit`.
        user_visit: [W], events: by user and time: the first conversion to arrive of each distinct time.
        is_conversion_type: [256], by event type code.
        num_candidates: N, padding and unknown included.
        group: [N, 2], category and family of each candidate (`read_candidate_groups`).
        seen: ascending, the candidates of this log, when statistics are to have a row for them alone
            (`Population`); None for a row of each of the N.
    """

    histories: Histories
    candidate: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]
    order: EventArray
    is_visit: npt.NDArray[np.bool_]
    visit_start: npt.NDArray[np.int64]
    user_visit: EventArray
    is_conversion_type: npt.NDArray[np.bool_]
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
        is_conversion_type = np.isin(np.arange(_NUM_TYPES), sorted(conversion_codes))
        num_events, num_users = histories.num_events, histories.num_users
        dtype: Any = np.uint32 if num_events <= _NUM_SHORT else np.int64
        order, num_rows = np.empty(num_events, dtype), 0
        user_visit, is_visit = [np.empty(0, dtype)], np.zeros(num_events, bool)
        lengths = np.zeros((2, num_users), np.int64)
        for first_user, block in histories.blocks():
            found = _sort_events(block, _candidate_of(block, level), num_candidates, is_conversion_type)
            first_event, num_found = int(histories.start[first_user]), len(found.event)
            order[num_rows : num_rows + num_found] = found.event + first_event
            num_rows += num_found
            is_visit[found.visit + first_event] = True
            user_visit.append((found.user_visit + first_event).astype(dtype))
            lengths[:, first_user : first_user + block.num_users] = found.lengths
        start, visit_start = np.pad(np.cumsum(lengths, axis=1), ((0, 0), (1, 0)))
        return cls(
            histories=histories,
            candidate=_candidate_of(histories, level),
            start=start,
            order=order[:num_rows],
            is_visit=is_visit,
            visit_start=visit_start,
            user_visit=np.concatenate(user_visit),
            is_conversion_type=is_conversion_type,
            num_candidates=num_candidates,
            group=np.broadcast_to(np.int32(1), (num_candidates, 2)) if group is None else group,
        )

    def blocks(self) -> Iterator[slice]:
        """Yields runs of users: what is counted block by block takes memory for one."""
        for first, last in split_users(self.start):
            yield slice(first, last)

    def with_seen_only(self) -> Self:
        """Returns this log for statistics of the candidates that occur in it."""
        is_seen = np.zeros(self.num_candidates, bool)
        for users in self.blocks():
            is_seen[self.candidate[self.order[self.start[users.start] : self.start[users.stop]]]] = True
        return replace(self, seen=np.flatnonzero(is_seen).astype(np.int32))

    def is_conversion(self, event: EventArray) -> npt.NDArray[np.bool_]:
        """Says of each of these events whether it is a conversion."""
        return self.is_conversion_type[self.histories.event_type[event]]

    def events_of(self, user_index: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int64], EventArray]:
        """Returns the events of each of these users: the position in the batch and the event.

        Args:
            user_index: [B].

        Returns:
            [R] each, by batch position, candidate, time.
        """
        position, row = expand_ranges(self.start[user_index], self.start[user_index + 1])
        return position, self.order[row]

    def events_before(
        self, user_index: npt.NDArray[np.int32], cut_us: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], EventArray]:
        """Returns of `events_of` those that arrived before the cut of their user, [B]."""
        position, event = self.events_of(user_index)
        is_known = self.histories.arrived_us[event] < cut_us[position]
        return position[is_known], event[is_known]

    def known_before(
        self, cut_us: int, users: slice | None = None
    ) -> tuple[npt.NDArray[np.int32], EventArray]:
        """Returns the events that arrived before one cut, in the order of the log: user_index and event.

        Args:
            cut_us: microseconds since the epoch.
            users: a run of users; all of them when None.
        """
        first, end = (0, len(self.start) - 1) if users is None else (users.start, users.stop)
        event = self.order[self.start[first] : self.start[end]]
        user = np.repeat(np.arange(first, end, dtype=np.int32), np.diff(self.start[first : end + 1]))
        is_known = self.histories.arrived_us[event] < cut_us
        return user[is_known], event[is_known]


@dataclass(frozen=True, eq=False)
class _Sorted:
    """The events of a block of users.

    Attributes:
        event: those with a candidate, by user, candidate, time and arrival.
        visit: the first conversion to arrive of each distinct time of a pair.
        user_visit: the first conversion to arrive of each distinct time of a user, by user and time.
        lengths: [2, U], how many each user has of `event` and of `user_visit`.
    """

    event: npt.NDArray[np.int64]
    visit: npt.NDArray[np.int64]
    user_visit: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]


def _candidate_of(histories: Histories, level: Level) -> npt.NDArray[np.int32]:
    return histories.advertiser if level == "advertiser" else histories.item


def _sort_events(
    histories: Histories,
    candidate: npt.NDArray[np.int32],
    num_candidates: int,
    is_conversion_type: npt.NDArray[np.bool_],
) -> _Sorted:
    event = np.flatnonzero((candidate >= FIRST_INDEX) & (candidate < num_candidates))
    user, occurred_us = histories.event_users(), histories.occurred_us
    pair = user[event].astype(np.int64) * num_candidates + candidate[event]
    # The sort is stable and histories are in order of arrival: so are the events of a pair at one time.
    order = np.lexsort((occurred_us[event], pair))
    event, pair = event[order], pair[order]
    converted = np.flatnonzero(is_conversion_type[histories.event_type[event]])
    visit = event[converted][run_starts(pair[converted], occurred_us[event[converted]])]
    by_time = np.lexsort((histories.arrived_us[visit], occurred_us[visit], user[visit]))
    user_visit = visit[by_time]
    user_visit = user_visit[run_starts(user[user_visit], occurred_us[user_visit])]
    lengths = [np.bincount(user[some], minlength=histories.num_users) for some in (event, user_visit)]
    return _Sorted(event, visit, user_visit, np.stack(lengths))


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
