"""How widely lists spread over the catalogue, and how alike the candidates of one list are.

Takes `count_N`, how many of the lists hold each candidate of the index (0 for one that none holds), or the
lists themselves; gives numbers. They say nothing about whether a list is right: read them beside recall, as
the reference system does.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

CountArray = npt.NDArray[np.integer]
_BLOCK_LISTS: Final = 256
"""Lists whose vectors are held at once."""


def exposure_counts(candidate_RK: CountArray, *, num_candidates: int) -> npt.NDArray[np.int64]:
    """Returns how many lists hold each candidate, [N]; negative entries (a list's empty end) are left out."""
    return np.bincount(candidate_RK[candidate_RK >= 0].ravel(), minlength=num_candidates)


def p90_coverage(count_N: CountArray) -> float:
    """Returns the share of the index that makes up 90 % of the retrieved results.

    The smallest n / N such that the n most retrieved candidates have at least .9 of the sum of counts. 0 when
    nothing was retrieved; .9 (rounded up) when all are retrieved alike; near 0 when a few crowd out the rest.

    Source: Pal et al., PinnerFormer, 2022, section 4.
    """
    total = int(count_N.sum())
    if total == 0:
        return 0.0
    reached = np.cumsum(np.sort(count_N)[::-1])
    # Compared in whole numbers: .9 * total rounds up for some totals.
    return float((np.searchsorted(10 * reached, 9 * total) + 1) / len(count_N))


def catalogue_coverage(count_N: CountArray) -> float:
    """Returns the share of the index that is retrieved at all: |{count > 0}| / N; 0 for an empty index."""
    return float(np.count_nonzero(count_N) / max(len(count_N), 1))


def gini(count_N: CountArray) -> float:
    """Returns the Gini coefficient of exposure: 0 all alike, (N - 1) / N one candidate has everything.

    G = sum over i of (2 i - N - 1) c_(i) / (N sum c), with c_(1) <= ... <= c_(N). 0 when nothing was
    retrieved.
    """
    total, size = int(count_N.sum()), len(count_N)
    if total == 0:
        return 0.0
    weight_N = 2.0 * np.arange(1, size + 1) - size - 1
    return float(weight_N @ np.sort(count_N) / (size * total))


def intra_list_similarity(candidate_RK: CountArray, vector_ND: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Returns the mean cosine of the pairs of different candidates in each list, [R].

    (|sum v|^2 - n) / (n (n - 1)) over the n candidates of a list; NaN with fewer than two of them.

    Args:
        candidate_RK: negative entries (a list's empty end) are left out.
        vector_ND: unit vectors.

    Source: Ziegler et al., 2005, as a mean.
    """
    similarity_R = np.full(len(candidate_RK), np.nan)
    for first in range(0, len(candidate_RK), _BLOCK_LISTS):
        candidate_BK = candidate_RK[first : first + _BLOCK_LISTS]
        is_there_BK = candidate_BK >= 0
        vector_BKD = vector_ND[np.maximum(candidate_BK, 0)] * is_there_BK[:, :, None]
        sum_BD, num_B = vector_BKD.sum(axis=1, dtype=np.float64), is_there_BK.sum(axis=1)
        pairs_B = num_B * (num_B - 1)
        numerator_B = (sum_BD**2).sum(axis=1) - num_B
        np.divide(numerator_B, pairs_B, out=similarity_R[first : first + _BLOCK_LISTS], where=pairs_B > 0)
    return similarity_R
