"""What the whole population did with each candidate before a cut: the prior of a candidate.

Takes a `PairLog` and a cut; gives arrays over all candidates. Only events that had arrived before the cut
count, so the statistics of a training cut know nothing of its label window.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from forecart.sequences.pair_log import PairLog, run_ends, run_starts
from forecart.sequences.split import DAY_US

FloatArray = npt.NDArray[np.float32]

# "Days since" of what never happened: beyond any that occurs in a year of data.
NEVER_DAYS: Final = 400.0
_NO_GAP_DAYS: Final = 30.0
# Windows of the shares of users who converted, and of those with an event of any type; the last is all time.
POPULARITY_DAYS: Final = (7.0, 28.0, float("inf"))
INTEREST_DAYS: Final = (28.0, float("inf"))


@dataclass(frozen=True, eq=False)
class Population:
    """Statistics of N candidates and U users as of a cut.

    With `seen`, N is the number of the seen candidates and one row more, the last, for any other: what is
    said of a candidate without an event is the same for all.

    Attributes:
        log_share: [N, 5] float32, log of the smoothed share of users who converted in 7 days, 28 days, ever;
            then of those with an event of any type in 28 days, ever.
        visits_per_user: [N] float32, distinct times a converter converted; 1 where nobody did.
        gap_days: [N] float32, mean days between conversions of those who came back; 30 where nobody did.
        user_visits: [U] float32, distinct times each user converted.
        user_visits_30d: [U] float32, the same, each decayed by exp(-age / 30 days).
        user_last_days: [U] float32, days since the user's last conversion, at most `NEVER_DAYS`, which it is
            where there is none.
        seen: [N - 1] ascending candidates; None when every candidate has a row of its own.
    """

    log_share: FloatArray
    visits_per_user: FloatArray
    gap_days: FloatArray
    user_visits: FloatArray
    user_visits_30d: FloatArray
    user_last_days: FloatArray
    seen: npt.NDArray[np.int32] | None = None

    def rows_of(self, candidate: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns the row of each candidate."""
        return candidate if self.seen is None else _place_among(self.seen, candidate)

    @cached_property
    def log_user(self) -> FloatArray:
        """[3, U]: log(1 + visits), log(1 + decayed visits) and log(1 + days since the last)."""
        return np.log1p(np.stack([self.user_visits, self.user_visits_30d, self.user_last_days]))

    @cached_property
    def log_candidate(self) -> FloatArray:
        """[6, N]: the three log shares, 7 days' less 28 days', log visits per user, log(1 + gap in days)."""
        week, month, ever = self.log_share[:, : len(POPULARITY_DAYS)].T
        return np.stack(
            [week, month, ever, week - month, np.log(self.visits_per_user), np.log1p(self.gap_days)]
        )


def read_population(log: PairLog, cut_us: int) -> Population:
    """Returns the statistics of every candidate and user from what arrived before the cut.

    Of a log with `seen` these candidates alone have a row of their own.
    """
    seen, num_users = log.seen, len(log.start) - 1
    totals = _Totals.empty(log.num_candidates if seen is None else len(seen) + 1)
    of_users = np.stack([np.zeros(num_users), np.zeros(num_users), np.full(num_users, NEVER_DAYS)])
    for users in log.blocks():
        totals.add(_read_rows(log, users, cut_us), cut_us)
        of_users[:, users] = _user_statistics(log, users, cut_us)
    visits, visits_30d, last_days = of_users.astype(np.float32)
    return Population(
        totals.log_share(),
        totals.visits_per_user(),
        totals.gap_days(),
        visits,
        visits_30d,
        last_days,
        seen,
    )


def _place_among(seen: npt.NDArray[np.int32], candidate: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns where each candidate stands among the seen, and their number for one that is not seen."""
    # Of one type, or all of `seen` would be converted for each search.
    place = np.searchsorted(seen, candidate.astype(np.int32, copy=False))
    is_seen = seen[np.minimum(place, len(seen) - 1)] == candidate if len(seen) else np.zeros(len(place), bool)
    return np.where(is_seen, place, len(seen))


@dataclass(frozen=True, eq=False)
class _Rows:
    """Events of some users that had arrived before a cut, in the order of the log."""

    user: npt.NDArray[np.int32]
    candidate: npt.NDArray[Any]
    occurred_us: npt.NDArray[np.int64]

    def take(self, row: npt.NDArray[np.int64]) -> "_Rows":
        return _Rows(self.user[row], self.candidate[row], self.occurred_us[row])

    @property
    def num_users(self) -> int:
        return int(np.count_nonzero(run_starts(self.user)))


def _read_rows(log: PairLog, users: slice, cut_us: int) -> tuple[_Rows, _Rows]:
    """Returns the events of these users, and those of them that are visits."""
    user, event = log.known_before(cut_us, users)
    candidate = log.candidate[event]
    if log.seen is not None:
        candidate = _place_among(log.seen, candidate)
    events = _Rows(user, candidate, log.histories.occurred_us[event])
    return events, events.take(np.flatnonzero(log.is_visit[event]))


@dataclass(eq=False)
class _Totals:
    """Counts of N candidates that grow by a block of users at a time, so that only a block is in memory.

    Attributes:
        num_converters: users with a conversion.
        num_users: users with an event.
        converters: [3, N], users who converted, by `POPULARITY_DAYS`.
        interested: [2, N], users with an event, by `INTEREST_DAYS`.
        visits: [N].
        num_back: [N], users who came back.
        gap_sum: [N], of their mean days between visits.
    """

    num_converters: int
    num_users: int
    converters: npt.NDArray[np.int64]
    interested: npt.NDArray[np.int64]
    visits: npt.NDArray[np.int64]
    num_back: npt.NDArray[np.int64]
    gap_sum: npt.NDArray[np.float64]

    @classmethod
    def empty(cls, num: int) -> "_Totals":
        """Returns counts of nothing."""
        converters, interested = (
            np.zeros((len(days), num), np.int64) for days in (POPULARITY_DAYS, INTEREST_DAYS)
        )
        none = np.zeros(num, np.int64)
        return cls(0, 0, converters, interested, none, none.copy(), np.zeros(num))

    def add(self, rows: tuple[_Rows, _Rows], cut_us: int) -> None:
        """Counts the events and visits of further users."""
        events, visits = rows
        self.num_users += events.num_users
        self.num_converters += visits.num_users
        last = np.flatnonzero(run_ends(events.user, events.candidate))
        _count_recent(self.interested, events.take(last), INTEREST_DAYS, cut_us)
        first = np.flatnonzero(run_starts(visits.user, visits.candidate))
        num_visits = np.diff(first, append=len(visits.user))
        last = first + num_visits - 1
        _count_recent(self.converters, visits.take(last), POPULARITY_DAYS, cut_us)
        self.visits += np.bincount(visits.candidate, minlength=len(self.visits))
        back = np.flatnonzero(num_visits > 1)
        span_us = visits.occurred_us[last[back]] - visits.occurred_us[first[back]]
        candidate = visits.candidate[first[back]]
        self.num_back += np.bincount(candidate, minlength=len(self.visits))
        # One by one in the order of the log: the same bits however the users are cut into blocks.
        np.add.at(self.gap_sum, candidate, span_us / DAY_US / (num_visits[back] - 1))

    def log_share(self) -> FloatArray:
        """Returns `Population.log_share`: conversions may be rare, so interest counts events of any type."""
        pairs = ((self.converters, self.num_converters), (self.interested, self.num_users))
        shares = [np.log((count + 0.5) / (num_users + 1)).astype(np.float32) for count, num_users in pairs]
        # Row by row in memory: a product with it rounds otherwise in another layout.
        return np.ascontiguousarray(np.concatenate(shares).T)

    def visits_per_user(self) -> FloatArray:
        """Returns `Population.visits_per_user`."""
        ever = self.converters[-1]
        return np.where(ever > 0, self.visits / np.maximum(ever, 1), 1.0).astype(np.float32)

    def gap_days(self) -> FloatArray:
        """Returns `Population.gap_days`."""
        mean = self.gap_sum / np.maximum(self.num_back, 1)
        return np.where(self.num_back > 0, mean, _NO_GAP_DAYS).astype(np.float32)


def _count_recent(
    total_WN: npt.NDArray[np.int64], latest: _Rows, windows_days: tuple[float, ...], cut_us: int
) -> None:
    """Adds the users whose latest event, a row of each (user, candidate), is within each window."""
    last_days = (cut_us - latest.occurred_us) / DAY_US
    for total_N, days in zip(total_WN, windows_days, strict=True):
        total_N += np.bincount(latest.candidate[last_days < days], minlength=len(total_N))


def _user_statistics(log: PairLog, users: slice, cut_us: int) -> npt.NDArray[np.float64]:
    """Returns [3, number of users]: visits, decayed visits, days since the last.

    Args:
        log: events by pair.
        users: a run of them.
        cut_us: visits that arrived at or after it are not read.
    """
    bounds, num_users = log.visit_start[users.start : users.stop + 1], users.stop - users.start
    visit, user = log.user_visit[bounds[0] : bounds[-1]], np.repeat(np.arange(num_users), np.diff(bounds))
    is_known = log.histories.arrived_us[visit] < cut_us
    visit, user = visit[is_known], user[is_known]
    age_days = (cut_us - log.histories.occurred_us[visit]) / DAY_US
    visits = np.bincount(user, minlength=num_users)
    visits_30d = np.bincount(user, np.exp(-age_days / 30), minlength=num_users)
    last_days = np.full(num_users, NEVER_DAYS)
    is_last = run_ends(user)
    last_days[user[is_last]] = np.minimum(age_days[is_last], NEVER_DAYS)
    return np.stack([visits, visits_30d, last_days])
