"""Lists for whom nothing personal may be said: popular eligible candidates, by country and everywhere.

Takes what everyone converted with before a moment; gives one table. Popularity is the share of all users with
an event before the moment (of the country) whose latest conversion with the candidate is no older than the
label window is long, ties by all time: a probability of what calibrations are fitted on, so that ads of
these lists and of the users' own stand on one scale.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from forecart import columns
from forecart.retrieval.candidate_files import EVERYONE
from forecart.sequences.countries import NO_COUNTRY, decode_country
from forecart.sequences.histories import Histories
from forecart.sequences.pair_log import PairLog, run_ends
from forecart.sequences.vocabulary import FIRST_INDEX, Vocabulary

MIN_USERS: Final = 50
"""Users with an event below which a country has no list of its own: too few to say what is popular there."""
_TIE: Final = 0.001


@dataclass(frozen=True, eq=False)
class People:
    """Of whom popularity is a share.

    Attributes:
        country: [U], see `sequences/countries.py`.
        has_history: [U], whether any event of theirs had arrived before the moment.
    """

    country: npt.NDArray[np.uint16]
    has_history: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Every (user, candidate) with a conversion, M of them, and how long ago the latest was."""

    user: npt.NDArray[np.int32]
    candidate: npt.NDArray[np.int32]
    age_us: npt.NDArray[np.int64]


def find_people(histories: Histories, user_country: npt.NDArray[np.uint16], cut_us: int) -> People:
    """Returns everyone, and who has a history before the cut."""
    has_history = np.zeros(histories.num_users, np.bool_)
    has_event = np.flatnonzero(histories.length)
    has_history[has_event] = histories.arrived_us[histories.start[has_event]] < cut_us
    return People(user_country, has_history)


def list_popular(
    log: PairLog,
    cut_us: int,
    *,
    people: People,
    window_us: int,
    is_eligible: npt.NDArray[np.bool_],
    top_k: int,
) -> dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Returns by country, `EVERYONE` first, the indices of its popular candidates and their popularity.

    A country's list holds only what somebody there converted with; the list of everyone holds every eligible
    candidate, up to `top_k`.

    Args:
        log: conversions; what arrived at or after the cut does not count.
        cut_us: the moment.
        people: all of them, those who never converted too.
        window_us: length of the label window, microseconds.
        is_eligible: [N].
        top_k: length of a list, at most.
    """
    pairs, rank = _find_pairs(log, cut_us), partial(_rank, window_us=window_us, top_k=top_k)
    is_listed = is_eligible.copy()
    is_listed[:FIRST_INDEX] = False
    lists = {EVERYONE: rank(pairs, is_listed, num_users=int(people.has_history.sum()))}
    for country, num_users, theirs in _split(pairs, people):
        is_known = np.zeros(len(is_listed), np.bool_)
        is_known[theirs.candidate] = True
        lists[country] = rank(theirs, is_listed & is_known, num_users=num_users)
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
    found = [_Pairs(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int64))]
    for users in log.blocks():
        user, event = log.known_before(cut_us, users)
        visit = np.flatnonzero(log.is_visit[event])
        user, event = user[visit], event[visit]
        last = np.flatnonzero(run_ends(user, log.candidate[event]))
        user, event = user[last], event[last]
        found.append(_Pairs(user, log.candidate[event], cut_us - log.histories.occurred_us[event]))
    return _Pairs(*(np.concatenate([getattr(one, field.name) for one in found]) for field in fields(_Pairs)))


def _split(pairs: _Pairs, people: People) -> Iterator[tuple[str, int, _Pairs]]:
    """Returns each country with enough users, how many, and their pairs."""
    country_M, num_by_country = people.country[pairs.user], np.bincount(people.country[people.has_history])
    for number in np.unique(country_M[country_M != NO_COUNTRY]).tolist():
        if (num_users := int(num_by_country[number])) >= MIN_USERS:
            theirs = np.flatnonzero(country_M == number)
            found = _Pairs(pairs.user[theirs], pairs.candidate[theirs], pairs.age_us[theirs])
            yield decode_country(number), num_users, found


def _rank(
    pairs: _Pairs, is_listed_N: npt.NDArray[np.bool_], *, num_users: int, window_us: int, top_k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    num = len(is_listed_N)
    recent_N = np.bincount(pairs.candidate[pairs.age_us < window_us], minlength=num)
    ever_N = np.bincount(pairs.candidate, minlength=num)
    # Smoothed as the model's prior is, so that a candidate of nobody is not impossible.
    share_N = (recent_N + 0.5 + _TIE * (ever_N + 0.5)) / (num_users + 1)
    share_N[~is_listed_N] = -np.inf
    best = np.argsort(-share_N, kind="stable")[: min(top_k, int(is_listed_N.sum()))]
    return best, share_N[best].astype(np.float32)
