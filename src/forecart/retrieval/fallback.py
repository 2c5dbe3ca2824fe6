"""Lists for whom nothing personal may be said: popular eligible candidates, by country and everywhere.

Takes what everyone converted with before a moment; gives one table. Popularity is the share of converting
users (of the country) whose latest conversion with the candidate is within seven days, ties by all time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from forecart import columns
from forecart.retrieval.candidate_files import EVERYONE
from forecart.sequences.countries import NO_COUNTRY, decode_country
from forecart.sequences.pair_log import PairLog, run_ends
from forecart.sequences.split import DAY_US
from forecart.sequences.vocabulary import FIRST_INDEX, Vocabulary

MIN_USERS: Final = 50
"""Converting users below which a country has no list of its own: too few to say what is popular there."""
_WEEK_DAYS: Final = 7.0
_TIE: Final = 0.001


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Every (user, candidate) with a conversion, M of them, and how long ago the latest was."""

    user: npt.NDArray[np.int32]
    candidate: npt.NDArray[np.int32]
    age_days: npt.NDArray[np.float64]


def list_popular(
    log: PairLog,
    cut_us: int,
    *,
    user_country: npt.NDArray[np.uint16],
    is_eligible: npt.NDArray[np.bool_],
    top_k: int,
) -> dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Returns by country, `EVERYONE` first, the indices of its popular candidates and their popularity.

    A country's list holds only what somebody there converted with; the list of everyone holds every eligible
    candidate, up to `top_k`.

    Args:
        log: conversions; what arrived at or after the cut does not count.
        cut_us: the moment.
        user_country: [U], see `sequences/countries.py`.
        is_eligible: [N].
        top_k: length of a list, at most.
    """
    pairs = _find_pairs(log, cut_us)
    is_listed = is_eligible.copy()
    is_listed[:FIRST_INDEX] = False
    lists = {EVERYONE: _rank(pairs, is_listed, top_k=top_k)}
    for country, theirs in _split(pairs, user_country):
        is_known = np.zeros(len(is_listed), np.bool_)
        is_known[theirs.candidate] = True
        lists[country] = _rank(theirs, is_listed & is_known, top_k=top_k)
    return lists


def make_fallback_table(
    lists: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]],
    candidates: Vocabulary,
    id_column: str,
) -> pl.DataFrame:
    """Returns the lists as rows: country, rank from 1, the candidate's id, score."""
    index = np.concatenate([index for index, _ in lists.values()])
    lengths = [len(index) for index, _ in lists.values()]
    country = np.repeat(np.array(list(lists)), lengths)
    return pl.DataFrame(
        {
            columns.COUNTRY: country,
            columns.RANK: np.concatenate([np.arange(1, length + 1, dtype=np.int32) for length in lengths]),
            id_column: candidates.id_series(index),
            columns.SCORE: np.concatenate([score for _, score in lists.values()]),
        }
    )


def _find_pairs(log: PairLog, cut_us: int) -> _Pairs:
    visit = np.flatnonzero(log.is_visit & (log.arrived_us < cut_us))
    last = visit[run_ends(log.user[visit], log.candidate[visit])]
    return _Pairs(log.user[last], log.candidate[last], (cut_us - log.occurred_us[last]) / DAY_US)


def _split(pairs: _Pairs, user_country: npt.NDArray[np.uint16]) -> Iterator[tuple[str, _Pairs]]:
    """Returns the pairs of each country with enough users, by country."""
    country_M = user_country[pairs.user]
    for number in np.unique(country_M[country_M != NO_COUNTRY]).tolist():
        theirs = np.flatnonzero(country_M == number)
        if len(np.unique(pairs.user[theirs])) >= MIN_USERS:
            found = _Pairs(pairs.user[theirs], pairs.candidate[theirs], pairs.age_days[theirs])
            yield decode_country(number), found


def _rank(
    pairs: _Pairs, is_listed_N: npt.NDArray[np.bool_], *, top_k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    num, num_users = len(is_listed_N), len(np.unique(pairs.user))
    week_N = np.bincount(pairs.candidate[pairs.age_days < _WEEK_DAYS], minlength=num)
    ever_N = np.bincount(pairs.candidate, minlength=num)
    # Smoothed as the model's prior is, so that a candidate of nobody is not impossible.
    share_N = (week_N + 0.5 + _TIE * (ever_N + 0.5)) / (num_users + 1)
    share_N[~is_listed_N] = -np.inf
    best = np.argsort(-share_N, kind="stable")[: min(top_k, int(is_listed_N.sum()))]
    return best, share_N[best].astype(np.float32)
