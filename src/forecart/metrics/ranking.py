"""How good ranked lists are: per-row measures from a hit matrix and the number of relevant candidates.

Takes `is_hit_RK`, whether the candidate at each rank (best first) of each of R lists is relevant, and
`num_relevant_R`, how many candidates are relevant to each row, listed or not. Gives one value a row, so that
means, differences and intervals are taken by whoever asks. A row with nothing relevant is NaN everywhere: it
says nothing about a list. A list shorter than K counts as it is (a rank that is not there is no hit).
"""

from typing import Final

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.integer]
FloatArray = npt.NDArray[np.float64]

NO_CANDIDATE: Final = -1


def recall_at_k(is_hit_RK: BoolArray, num_relevant_R: IntArray, *, k: int) -> FloatArray:
    """Returns hits in the top K / number relevant, [R]."""
    return _ratio(_hits(is_hit_RK, k), num_relevant_R)


def capped_recall_at_k(is_hit_RK: BoolArray, num_relevant_R: IntArray, *, k: int) -> FloatArray:
    """Returns hits in the top K / min(K, number relevant), [R]: 1 where the top K could not be better."""
    return _ratio(_hits(is_hit_RK, k), np.minimum(num_relevant_R, _positive(k)))


def hit_rate_at_k(is_hit_RK: BoolArray, num_relevant_R: IntArray, *, k: int) -> FloatArray:
    """Returns 1 where the top K holds any relevant candidate, else 0, [R]."""
    return np.where(num_relevant_R > 0, (_hits(is_hit_RK, k) > 0).astype(np.float64), np.nan)


def ndcg_at_k(is_hit_RK: BoolArray, num_relevant_R: IntArray, *, k: int) -> FloatArray:
    """Returns DCG / ideal DCG with binary gains, [R].

    DCG = sum over ranks r <= K of hit(r) / log2(r + 1); the ideal list starts with min(K, relevant) hits.

    Source: Järvelin and Kekäläinen, 2002.
    """
    discount_K = 1.0 / np.log2(np.arange(2, _positive(k) + 2))
    top_RK = is_hit_RK[:, :k]
    gain_R = top_RK.astype(np.float64) @ discount_K[: top_RK.shape[1]]
    ideal = np.concatenate([[0.0], np.cumsum(discount_K)])
    return _ratio(gain_R, ideal[np.minimum(num_relevant_R, k)])


def mrr(is_hit_RK: BoolArray, num_relevant_R: IntArray) -> FloatArray:
    """Returns 1 / rank of the first hit, 0 where the list has none, [R]."""
    first_R = is_hit_RK.argmax(axis=1) + 1 if is_hit_RK.shape[1] else np.ones(len(is_hit_RK))
    return np.where(num_relevant_R > 0, is_hit_RK.any(axis=1) / first_R, np.nan)


def index_recall_at_k(score_RM: npt.NDArray[np.floating], is_relevant_RM: BoolArray, *, k: int) -> FloatArray:
    """Returns the recall at K of a search in a random index and not in the whole catalogue, [R].

    Index recall = relevant candidates among the K best of the index / number relevant. It rises as the index
    shrinks: compare it only at one index size. Ties: the lower column first.

    Args:
        score_RM: [R, M], scores of the index: a random sample and the row's relevant candidates; -inf marks
            a column that is not in a row's index.
        is_relevant_RM: [R, M].
        k: K, at least 1.
    """
    candidate_RK, _ = rank_top_k(score_RM, k=k)
    is_hit_RK = np.take_along_axis(is_relevant_RM, np.maximum(candidate_RK, 0), axis=1)
    return recall_at_k(is_hit_RK & (candidate_RK != NO_CANDIDATE), is_relevant_RM.sum(axis=1), k=k)


def rank_top_k(
    score_RN: npt.NDArray[np.floating], *, k: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Returns the K best columns of every row and their scores, best first: two [R, K].

    The order of record: the higher score first, then the lower index. A score of -inf is never listed; a row
    with fewer than K others ends in `NO_CANDIDATE` with a score of -inf. NaN is refused.

    Raises:
        ValueError: `k` is below 1, or a score is NaN.
    """
    if np.isnan(score_RN).any():
        raise ValueError("a score must be a number to be ranked, some are NaN")
    width = min(_positive(k), score_RN.shape[1])
    row, column = np.nonzero(_is_in_top(score_RN, width))
    score = score_RN[row, column]
    order = np.lexsort((column, -score, row))
    row, column, score = row[order], column[order], score[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    candidate_RK = np.full((len(score_RN), k), NO_CANDIDATE, np.int32)
    best_RK = np.full((len(score_RN), k), -np.inf, np.float32)
    candidate_RK[row, rank], best_RK[row, rank] = column, score
    return candidate_RK, best_RK


def _is_in_top(score_RN: npt.NDArray[np.floating], width: int) -> BoolArray:
    """Marks at most `width` listed columns a row: all above the row's threshold, then ties by index."""
    if width == 0:
        return np.zeros(score_RN.shape, bool)
    threshold_R1 = -np.partition(-score_RN, width - 1, axis=1)[:, width - 1 : width]
    is_in = (score_RN >= threshold_R1) & (score_RN > -np.inf)
    crowded = np.flatnonzero(is_in.sum(axis=1) > width)
    if len(crowded):
        is_above = score_RN[crowded] > threshold_R1[crowded]
        is_tied = is_in[crowded] & ~is_above
        places_left = width - is_above.sum(axis=1, keepdims=True)
        is_in[crowded] = is_above | (is_tied & (np.cumsum(is_tied, axis=1, dtype=np.int32) <= places_left))
    return is_in


def _hits(is_hit_RK: BoolArray, k: int) -> FloatArray:
    hits_R: FloatArray = is_hit_RK[:, : _positive(k)].sum(axis=1, dtype=np.float64)
    return hits_R


def _positive(k: int) -> int:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return k


def _ratio(numerator_R: FloatArray, denominator_R: npt.NDArray[np.generic]) -> FloatArray:
    denominator = np.asarray(denominator_R, np.float64)
    ratio = np.full(len(numerator_R), np.nan)
    np.divide(numerator_R, denominator, out=ratio, where=denominator > 0)
    return ratio
