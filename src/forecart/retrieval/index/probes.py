"""Which lists of an inverted file are read for a recall: found when it is built, on users' vectors.

Most users have their best in a few lists, and how good those are says how far others need be looked at. What
margin that takes follows from the lists that the exact best are in, and is then tried.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from forecart.retrieval.index.contract import Floats
from forecart.retrieval.index.inverted_file import InvertedFile
from forecart.retrieval.index.masks import Effort, MaskedLists
from forecart.retrieval.index.tuning import index_recall_at_k, recall_bound
from forecart.retrieval.top_k import TopK

SearchLists = Callable[[Floats, Effort], TopK]
_PROBES_FOR: Final = 0.95
"""Share of the users for whom the most lists that are read are all that are near."""
_LEAST_MISSED: Final = 1e-4
_NEXT_MISSED: Final = 0.8
_MARGINS: Final = np.linspace(0.8, 1, 401)
_BLOCK_SCORES: Final = 1 << 24
EVERYTHING: Final = float(np.finfo(np.float32).max)
"""A margin that no list is outside of."""


def find_probes(
    index: InvertedFile,
    query_SD: Floats,
    exact: TopK,
    *,
    search: SearchLists,
    masked: MaskedLists,
    target: float,
) -> Effort:
    """Returns the effort with the least margin that reaches the target; every list where none does.

    Args:
        index: whose lists.
        query_SD: users.
        exact: their best, as places.
        search: for users with an effort.
        masked: the mask that the lists are under.
        target: recall, which counts with two standard errors less than was measured.
    """
    num_first, num_lists = masked.count_first(exact.score.shape[1]), index.lists.nlist
    is_listed_SK = ~np.isneginf(exact.score)
    listed = TopK(np.where(is_listed_SK, index.candidate_N[exact.candidate], 0), exact.score)
    last_S = search(query_SD, Effort(num_first, 0, 0.0)).score[:, -1]
    gap_SK = np.where(is_listed_SK, last_S[:, None] - _score_lists(index, query_SD, exact), -np.inf)
    centroid_LD = index.centroid_LD if masked.is_even else index.centroid_LD[masked.list_L]
    missed = 1 - target
    while missed > _LEAST_MISSED:
        margin = _find_margin(gap_SK, is_listed_SK, 1 - missed)
        num_near_S = _count_near(centroid_LD, query_SD, last_S - margin)
        effort = Effort(num_first, int(np.quantile(num_near_S, _PROBES_FOR)), margin)
        if recall_bound(index_recall_at_k(search(query_SD, effort), listed)) >= target:
            return effort
        missed *= _NEXT_MISSED
    return Effort(num_lists, num_lists, EVERYTHING)


def _score_lists(index: InvertedFile, query_SD: Floats, exact: TopK) -> Floats:
    """Returns the score of the centroid of the list that each of some places is in, [S, K]."""
    score_SK = np.empty(exact.score.shape, np.float32)
    for row, place_K in enumerate(exact.candidate):
        score_SK[row] = index.centroid_LD[index.list_of_N[place_K]] @ query_SD[row]
    return score_SK


def _find_margin(gap_SK: Floats, is_listed_SK: npt.NDArray[np.bool_], target: float) -> float:
    """Returns the least margin within which so many of each list are, of those that are listed."""
    finite = gap_SK[np.isfinite(gap_SK)]
    if not len(finite):
        return 0.0
    for margin in np.quantile(finite, _MARGINS):
        is_near_SK = (gap_SK <= margin) & is_listed_SK
        if recall_bound(is_near_SK.sum(axis=1) / is_listed_SK.sum(axis=1).clip(min=1)) >= target:
            return float(margin)
    return float(finite.max())


def _count_near(centroid_LD: Floats, query_SD: Floats, least_S: Floats) -> npt.NDArray[np.int64]:
    """Returns how many centroids have no less than these scores, [S]."""
    rows = max(1, _BLOCK_SCORES // len(centroid_LD))
    parts = []
    for first in range(0, len(query_SD), rows):
        score_ML = query_SD[first : first + rows] @ centroid_LD.T
        parts.append((score_ML >= least_S[first : first + rows, None]).sum(axis=1))
    return np.concatenate(parts)
