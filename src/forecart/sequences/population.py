"""What the whole population did with each candidate before a cut: the prior of a candidate.

Takes a `PairLog` and a cut; gives arrays over all candidates. Only events that had arrived before the cut
count, so the statistics of a training cut know nothing of its label window.
"""

from dataclasses import dataclass, replace
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
    seen = log.seen
    if seen is not None:
        log = replace(log, candidate=_place_among(seen, log.candidate), num_candidates=len(seen) + 1)
    is_known = log.arrived_us < cut_us
    visit = np.flatnonzero(log.is_visit & is_known)
    converters, visits_per_user, gap_days = _candidate_statistics(log, cut_us, visit)
    log_share = np.concatenate([converters, _interest(log, cut_us, np.flatnonzero(is_known))], axis=1)
    visits, visits_30d, last_days = _user_statistics(log, cut_us)
    return Population(log_share, visits_per_user, gap_days, visits, visits_30d, last_days, seen)


def _place_among(seen: npt.NDArray[np.int32], candidate: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns where each candidate stands among the seen, and their number for one that is not seen."""
    # Of one type, or all of `seen` would be converted for each search.
    place = np.searchsorted(seen, candidate.astype(np.int32, copy=False))
    is_seen = seen[np.minimum(place, len(seen) - 1)] == candidate if len(seen) else np.zeros(len(place), bool)
    return np.where(is_seen, place, len(seen))


def _candidate_statistics(
    log: PairLog, cut_us: int, visit: npt.NDArray[np.int64]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    user, candidate, occurred = log.user[visit], log.candidate[visit], log.occurred_us[visit]
    first = np.flatnonzero(run_starts(user, candidate))
    num_visits = np.diff(first, append=len(visit))
    last = first + num_visits - 1
    num_users = int(np.count_nonzero(run_starts(user)))
    n, pair_candidate = log.num_candidates, candidate[first]

    last_days = (cut_us - occurred[last]) / DAY_US
    log_share = _log_shares(pair_candidate, last_days, POPULARITY_DAYS, num_users=num_users, num_candidates=n)
    ever = np.bincount(pair_candidate, minlength=n)
    visits_per_user = np.where(ever > 0, np.bincount(candidate, minlength=n) / np.maximum(ever, 1), 1.0)

    back = np.flatnonzero(num_visits > 1)
    gap = (occurred[last[back]] - occurred[first[back]]) / DAY_US / (num_visits[back] - 1)
    num_back = np.bincount(pair_candidate[back], minlength=n)
    gap_sum = np.bincount(pair_candidate[back], gap, minlength=n)
    gap_days = np.where(num_back > 0, gap_sum / np.maximum(num_back, 1), _NO_GAP_DAYS)
    return log_share, visits_per_user.astype(np.float32), gap_days.astype(np.float32)


def _interest(log: PairLog, cut_us: int, event: npt.NDArray[np.int64]) -> FloatArray:
    """Returns [N, 2], log of the share of users with an event of any type; conversions may be rare."""
    user, candidate = log.user[event], log.candidate[event]
    last = np.flatnonzero(run_ends(user, candidate))
    return _log_shares(
        candidate[last],
        (cut_us - log.occurred_us[event[last]]) / DAY_US,
        INTEREST_DAYS,
        num_users=int(np.count_nonzero(run_starts(user))),
        num_candidates=log.num_candidates,
    )


def _log_shares(
    candidate: npt.NDArray[np.int32],
    last_days: npt.NDArray[np.float64],
    windows_days: tuple[float, ...],
    *,
    num_users: int,
    num_candidates: int,
) -> FloatArray:
    """Returns [N, W], log of the smoothed share of users whose latest event is within each window.

    Args:
        candidate: [M], one for each (user, candidate) pair.
        last_days: [M], days since the pair's latest event.
        windows_days: W of them.
        num_users: who could have had one.
        num_candidates: N.
    """
    counts = [np.bincount(candidate[last_days < days], minlength=num_candidates) for days in windows_days]
    shares: FloatArray = np.log((np.stack(counts, axis=1) + 0.5) / (num_users + 1)).astype(np.float32)
    return shares


def _user_statistics(log: PairLog, cut_us: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    num_users = len(log.start) - 1
    visit = log.user_visit[log.arrived_us[log.user_visit] < cut_us]
    user, age_days = log.user[visit], (cut_us - log.occurred_us[visit]) / DAY_US
    visits = np.bincount(user, minlength=num_users)
    visits_30d = np.bincount(user, np.exp(-age_days / 30), minlength=num_users)
    last_days = np.full(num_users, NEVER_DAYS)
    is_last = run_ends(user)
    last_days[user[is_last]] = np.minimum(age_days[is_last], NEVER_DAYS)
    return visits.astype(np.float32), visits_30d.astype(np.float32), last_days.astype(np.float32)
