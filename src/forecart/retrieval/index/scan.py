"""Exact search in numpy: for few users and few candidates, where nothing may load torch.

The lists that an approximate index could not fill, candidates under a narrow mask, and what was added since
an index was built are searched here. For a whole population see `group_max`.
"""

from collections.abc import Callable, Iterable, Sequence
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


def scan_under_masks(
    blocks: Iterable[tuple[int, npt.NDArray[Any]]],
    candidate_N: npt.NDArray[np.int32],
    query_BD: npt.NDArray[np.float32],
    *,
    masks: Sequence[tuple[npt.NDArray[np.bool_], int]],
    top_k: int,
) -> list[TopK]:
    """Returns the lists of `scan` under each of several masks; every vector is read and scored once.

    Args:
        blocks: vectors, each block with its first place.
        candidate_N: ascending.
        query_BD: [B, D].
        masks: [N] each, with the number of users, of the first ones, that are searched for under it.
        top_k: K.
    """
    lists = [no_lists(num_users, top_k) for _, num_users in masks]
    for begins, block_MD in blocks:
        for first in range(0, len(block_MD), _BLOCK_ROWS):
            part_D = block_MD[first : first + _BLOCK_ROWS].astype(np.float32, copy=False)
            score_BM = query_BD @ part_D.T
            rows = slice(begins + first, begins + first + len(part_D))
            for found, (mask_N, num_users) in zip(lists, masks, strict=True):
                for row, score_M in enumerate(score_BM[:num_users]):
                    _take(found, row, score_M, candidate_N[rows], mask_N[rows])
    return lists


def fill_short(
    found: TopK,
    num_eligible: int,
    query_BD: npt.NDArray[np.float32],
    search: Callable[[npt.NDArray[np.float32]], TopK],
) -> TopK:
    """Returns lists of which none is short: where one has fewer than there are, an exact search fills it.

    Args:
        found: by an approximate search; it is changed.
        num_eligible: how many candidates there are to be listed.
        query_BD: [B, D].
        search: finds exact lists for some of the queries.
    """
    is_short = (found.candidate > 0).sum(axis=1) < min(found.candidate.shape[1], num_eligible)
    if is_short.any():
        exact = search(query_BD[is_short])
        found.candidate[is_short], found.score[is_short] = exact.candidate, exact.score
    return found


def _take(
    found: TopK,
    row: int,
    score_M: npt.NDArray[np.float32],
    candidate_M: npt.NDArray[np.int32],
    is_eligible_M: npt.NDArray[np.bool_] | None = None,
) -> None:
    """Puts the better ones of later candidates into a list; of equal scores those that are there stay."""
    top_k = found.score.shape[1]
    is_full = not np.isneginf(found.score[row, -1])
    position = np.flatnonzero(score_M > found.score[row, -1]) if is_full else np.arange(len(score_M))
    if is_eligible_M is not None:
        position = position[is_eligible_M[position]]
    if len(position):
        score = np.concatenate([found.score[row], score_M[position]])
        order = best_first(score, top_k)
        candidate = np.concatenate([found.candidate[row], candidate_M[position]])
        found.score[row], found.candidate[row] = score[order], candidate[order]
