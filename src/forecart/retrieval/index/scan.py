"""Exact search in numpy: for few users and few candidates, where nothing may load torch.

The lists that an approximate index could not fill, candidates under a narrow mask, and what was added since
an index was built are searched here. For a whole population see `group_max`.
"""

from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from forecart.retrieval.top_k import TopK, best_first, no_lists

_BLOCK_ROWS: Final = 1 << 14


class Scan(Protocol):
    """An exact search over vectors in memory."""

    def __call__(
        self,
        vector_ND: npt.NDArray[Any],
        candidate_N: npt.NDArray[np.int32],
        query_BD: npt.NDArray[np.float32],
        *,
        top_k: int,
    ) -> TopK:
        """Returns the best `top_k` of the N candidates for each user."""


def scan(
    vector_ND: npt.NDArray[Any],
    candidate_N: npt.NDArray[np.int32],
    query_BD: npt.NDArray[np.float32],
    *,
    top_k: int,
) -> TopK:
    """Returns the best `top_k` of the N candidates for each user, of equal scores the lower index first.

    Args:
        vector_ND: of any float type; products are float32.
        candidate_N: ascending.
        query_BD: [B, D].
        top_k: K; a list is short where N is less.
    """
    found = no_lists(len(query_BD), top_k)
    query_DB = np.ascontiguousarray(query_BD.T)
    for first in range(0, len(vector_ND), _BLOCK_ROWS):
        block_D = vector_ND[first : first + _BLOCK_ROWS].astype(np.float32, copy=False)
        score_BM = np.ascontiguousarray((block_D @ query_DB).T)
        for row, score_M in enumerate(score_BM):
            _take(found, row, score_M, candidate_N[first : first + _BLOCK_ROWS])
    return found


def _take(
    found: TopK, row: int, score_M: npt.NDArray[np.float32], candidate_M: npt.NDArray[np.int32]
) -> None:
    """Puts the better ones of later candidates into a list; of equal scores those that are there stay."""
    top_k = found.score.shape[1]
    is_full = not np.isneginf(found.score[row, -1])
    position = np.flatnonzero(score_M > found.score[row, -1]) if is_full else np.arange(len(score_M))
    if len(position):
        score = np.concatenate([found.score[row], score_M[position]])
        order = best_first(score, top_k)
        candidate = np.concatenate([found.candidate[row], candidate_M[position]])
        found.score[row], found.candidate[row] = score[order], candidate[order]
