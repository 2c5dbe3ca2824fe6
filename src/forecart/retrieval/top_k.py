"""Lists of the best K: what every search returns, and how lists are cut and merged. Loads no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class TopK:
    """The lists of B users; a list that is short ends in candidate 0 with score -inf.

    Attributes:
        candidate: [B, K] int32, best first; of equal scores the lower index first.
        score: [B, K] float32.
    """

    candidate: npt.NDArray[np.int32]
    score: npt.NDArray[np.float32]


def no_lists(num_users: int, top_k: int) -> TopK:
    """Returns lists with nothing in them."""
    return TopK(
        np.zeros((num_users, top_k), np.int32),
        np.full((num_users, top_k), -np.inf, np.float32),
    )


def best_first(score_M: npt.NDArray[np.float32], top_k: int) -> npt.NDArray[np.int64]:
    """Returns the positions of the `top_k` highest scores, best first; of equal ones the earlier first."""
    last = len(score_M) - top_k
    position = np.flatnonzero(score_M >= np.partition(score_M, last)[last]) if last > 0 else None
    if position is None:
        return np.argsort(-score_M, kind="stable")
    return position[np.argsort(-score_M[position], kind="stable")][:top_k]


def sort_lists(candidate_BM: npt.NDArray[np.int32], score_BM: npt.NDArray[np.float32], top_k: int) -> TopK:
    """Returns the best `top_k` of lists in any order, padding of score -inf among them."""
    order = np.lexsort((candidate_BM, -score_BM))[:, :top_k]
    candidate_BK = np.take_along_axis(candidate_BM, order, axis=1)
    score_BK = np.take_along_axis(score_BM, order, axis=1)
    candidate_BK[np.isneginf(score_BK)] = 0
    padding = ((0, 0), (0, top_k - score_BK.shape[1]))
    if padding[1][1]:
        candidate_BK, score_BK = (
            np.pad(candidate_BK, padding),
            np.pad(score_BK, padding, constant_values=-np.inf),
        )
    return TopK(candidate_BK, score_BK)


def merge_lists(parts: Sequence[TopK], top_k: int) -> TopK:
    """Returns the best `top_k` of lists over candidates that have none in common."""
    candidate_BM = np.concatenate([part.candidate for part in parts], axis=1)
    return sort_lists(candidate_BM, np.concatenate([part.score for part in parts], axis=1), top_k)
