"""What the whole population did with each candidate before a cut: the prior of a candidate.

Takes a `PairLog` and a cut; gives arrays over all candidates. Only conversions that had arrived before the
cut count, so the statistics of a training cut know nothing of its label window.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from forecart.sequences.pair_log import PairLog, run_starts
from forecart.sequences.split import DAY_US

# The windows of the popularity shares; the last one is all time.
POPULARITY_DAYS: Final = (7.0, 28.0, float("inf"))


@dataclass(frozen=True, eq=False)
class Population:
    """Statistics of N candidates and U users as of a cut.

    Attributes:
        log_share: [N, 3] float32, log of the smoothed share of users who converted in 7 days, 28 days, ever.
        visits_per_user: [N] float32, distinct times a converter converted; 1 where nobody did.
        gap_days: [N] float32, mean days between conversions of those who came back; 30 where nobody did.
        user_visits: [U] float32, distinct times each user converted.
        user_visits_30d: [U] float32, the same, each decayed by exp(-age / 30 days).
        user_last_days: [U] float32, days since the user's last conversion; 400 where there is none.
    """

    log_share: npt.NDArray[np.float32]
    visits_per_user: npt.NDArray[np.float32]
    gap_days: npt.NDArray[np.float32]
    user_visits: npt.NDArray[np.float32]
    user_visits_30d: npt.NDArray[np.float32]
    user_last_days: npt.NDArray[np.float32]


def read_population(log: PairLog, cut_us: int) -> Population:
    """Returns the statistics of every candidate and user from conversions that arrived before the cut."""
    row = np.flatnonzero(log.is_conversion & (log.arrived_us < cut_us))
    user, candidate, occurred = log.user[row], log.candidate[row], log.occurred_us[row]
    is_visit = run_starts(user, candidate, occurred)
    is_pair = run_starts(user, candidate)
    log_share, visits_per_user, gap_days = _candidate_statistics(
        log, cut_us, (user, candidate, occurred), (is_pair, is_visit)
    )
    visits, visits_30d, last_days = _user_statistics(log, cut_us, user, occurred)
    return Population(log_share, visits_per_user, gap_days, visits, visits_30d, last_days)


def _candidate_statistics(
    log: PairLog,
    cut_us: int,
    rows: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int64]],
    runs: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    user, candidate, occurred = rows
    is_pair, is_visit = runs
    first = np.flatnonzero(is_pair)
    last = np.append(first[1:], len(candidate)) - 1
    pair_candidate = candidate[first]
    last_days = (cut_us - occurred[last]) / DAY_US
    num_users = len(np.unique(user))
    n = log.num_candidates
    shares = [np.bincount(pair_candidate[last_days < days], minlength=n) for days in POPULARITY_DAYS]
    log_share = np.log((np.stack(shares, axis=1) + 0.5) / (num_users + 1))
    visits = np.bincount(candidate[is_visit], minlength=n)
    pair_visits = np.add.reduceat(is_visit.astype(np.int64), first) if len(first) else np.zeros(0, np.int64)
    span_days = (occurred[last] - occurred[first]) / DAY_US
    came_back = pair_visits > 1
    gap = np.divide(span_days, pair_visits - 1, where=came_back, out=np.zeros(len(first)))
    num_back = np.bincount(pair_candidate[came_back], minlength=n)
    gap_sum = np.bincount(pair_candidate, gap, minlength=n)
    gap_days = np.where(num_back > 0, gap_sum / np.maximum(num_back, 1), 30.0)
    visits_per_user = np.where(shares[-1] > 0, visits / np.maximum(shares[-1], 1), 1.0)
    return log_share.astype(np.float32), visits_per_user.astype(np.float32), gap_days.astype(np.float32)


def _user_statistics(
    log: PairLog, cut_us: int, user: npt.NDArray[np.int32], occurred: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    num_users = len(log.start) - 1
    order = np.lexsort((occurred, user))
    user, occurred = user[order], occurred[order]
    is_visit = run_starts(user, occurred)
    user, age_days = user[is_visit], (cut_us - occurred[is_visit]) / DAY_US
    visits = np.bincount(user, minlength=num_users)
    visits_30d = np.bincount(user, np.exp(-age_days / 30), minlength=num_users)
    last_days = np.full(num_users, 400.0)
    np.minimum.at(last_days, user, age_days)
    return visits.astype(np.float32), visits_30d.astype(np.float32), last_days.astype(np.float32)
