"""How hard an approximate index must look: chosen by measured recall when it is built, and stored with it."""

import time
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from forecart.retrieval.index.contract import Floats, IndexSettings, IndexSource
from forecart.retrieval.index.scan import scan
from forecart.retrieval.top_k import TopK

SearchAt = Callable[[Floats, int], TopK]
"""Searches for users with an effort: lists that are read, or candidates that a walk keeps in mind."""
_NUM_TIMED: Final = 50
_SCANNED: Final = (1024, 1 << 16)


def sample_queries(source: IndexSource, settings: IndexSettings) -> Floats:
    """Returns vectors of users, or of the index where none are given: [S, D]."""
    pool = source.vector_ND if source.user_SD is None else source.user_SD
    generator = np.random.default_rng(settings.seed)
    num = min(settings.num_sampled, len(pool))
    return np.array(pool[np.sort(generator.choice(len(pool), num, replace=False))], np.float32)


def index_recall_at_k(found: TopK, exact: TopK) -> npt.NDArray[np.float64]:
    """Returns the share of each exact list that was found, [B]; 1 where the exact list is empty.

    This is recall against exact search, not against what users did.
    """
    is_listed = exact.candidate > 0
    pairs = zip(found.candidate, exact.candidate, strict=True)
    num_found = np.array([np.isin(one, other[other > 0]).sum() for one, other in pairs], np.float64)
    return np.where(is_listed.any(axis=1), num_found / np.maximum(is_listed.sum(axis=1), 1), 1.0)


def recall_bound(recall_S: npt.NDArray[np.float64]) -> float:
    """Returns the mean less two standard errors: recall is measured on a sample."""
    return float(recall_S.mean() - 2 * recall_S.std() / np.sqrt(len(recall_S)))


def find_effort(search_at: SearchAt, query_SD: Floats, exact: TopK, target: float, *, limit: int) -> int:
    """Returns the least effort whose recall reaches the target; `limit` where none below does.

    Recall counts with two standard errors less than was measured (`recall_bound`).
    """

    def is_enough(effort: int) -> bool:
        return recall_bound(index_recall_at_k(search_at(query_SD, effort), exact)) >= target

    low, high = 0, 1
    while high < limit and not is_enough(high):
        low, high = high, 2 * high
    high = min(high, limit)
    # To within an eighth: recall is hardly steeper than that, and each step costs a search of the sample.
    while high - low > max(1, high // 8):
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def time_scan_us(source: IndexSource, query_SD: Floats, top_k: int) -> tuple[float, float]:
    """Returns what an exact search for one user takes: microseconds, and microseconds a candidate."""
    taken = []
    for num in _SCANNED:
        vector_ND = np.array(source.vector_ND[:num], np.float32)
        candidate_N = source.candidate_N[:num]
        taken.append(time_us(partial(scan, vector_ND, candidate_N, top_k=top_k), query_SD))
    few, many = _SCANNED
    each_us = max(taken[1] - taken[0], 0.0) / (many - few)
    return max(taken[0] - few * each_us, 0.0), each_us


def time_us(search: Callable[[Floats], TopK], query_SD: Floats) -> float:
    """Returns the median time of a search for one user, in microseconds."""
    taken = []
    for row in range(min(len(query_SD), _NUM_TIMED)):
        started = time.perf_counter()
        search(query_SD[row : row + 1])
        taken.append(time.perf_counter() - started)
    return float(np.median(taken)) * 1e6
