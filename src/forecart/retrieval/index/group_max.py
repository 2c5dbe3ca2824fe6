"""Exact search of a whole population: products in blocks that stay in the cache, and no list of all scores.

Of every 32 candidates only the highest score is kept, and the K groups with the highest of them are scored
again: the best K are among these, since each of the K groups has a candidate that is at least as good as any
outside. So memory and sorting are a 32nd of what the scores would take, and the time is that of the products.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from forecart.retrieval.exact import top_by_score_then_index
from forecart.retrieval.top_k import TopK

GROUP: Final = 32
_TILE_USERS: Final = 512
_TILE_ROWS: Final = 1024
_MAX_MAXIMA: Final = 1 << 26
_MAX_SCORES: Final = 1 << 19
_ERROR_BOUND: Final = 1e-5
"""Of a float32 product, relative to the length of the vectors."""
_BFLOAT16_MARGIN: Final = 1.5
"""Groups scored again for each of the K, where they were picked by products of half as many bits."""


@dataclass(frozen=True)
class GroupMaxScan:
    """A `Scan` for many users over many candidates.

    Attributes:
        is_bfloat16: whether groups are picked by bfloat16 products: faster where the processor has them, and
            a few candidates at the end of a list may differ; scores are float32 either way.
    """

    is_bfloat16: bool = False

    @torch.no_grad()
    def __call__(
        self,
        vector_ND: npt.NDArray[Any],
        candidate_N: npt.NDArray[np.int32],
        query_BD: npt.NDArray[np.float32],
        *,
        top_k: int,
    ) -> TopK:
        """Returns the best `top_k` of the N candidates for each user, of equal scores the lower index first.

        Args:
            vector_ND: float32.
            candidate_N: ascending.
            query_BD: [B, D].
            top_k: K; a list is short where N is less.
        """
        vectors, queries = torch.from_numpy(vector_ND), torch.from_numpy(query_BD)
        num_users, num = len(query_BD), len(vector_ND)
        kept = min(top_k, num)
        score = np.full((num_users, top_k), -np.inf, np.float32)
        candidate = np.zeros((num_users, top_k), np.int32)
        is_grouped = num // GROUP > 2 * self._num_picked(top_k)
        search, columns = (self._search, num // GROUP) if is_grouped else (_search_all, num)
        tile = max(1, min(_TILE_USERS, (_MAX_MAXIMA if is_grouped else _MAX_SCORES) // max(columns, 1)))
        # One for all tiles: new memory costs more than what is written to it.
        scratch = torch.empty(min(tile, num_users), columns)
        for first in range(0, num_users if kept else 0, tile):
            query_TD = queries[first : first + tile]
            score_TK, place_TK = search(vectors, query_TD, kept, scratch[: len(query_TD)])
            score[first : first + tile, :kept] = score_TK.numpy()
            candidate[first : first + tile, :kept] = candidate_N[place_TK.numpy()]
        return TopK(candidate, score)

    def _num_picked(self, top_k: int) -> int:
        return int(top_k * _BFLOAT16_MARGIN) if self.is_bfloat16 else top_k

    def _search(
        self, vector_ND: Tensor, query_BD: Tensor, top_k: int, maximum_BG: Tensor
    ) -> tuple[Tensor, Tensor]:
        num_picked = self._num_picked(top_k)
        for dtype, precision in self._ways():
            with _precision(precision):
                find_maxima(vector_ND, query_BD, maximum_BG, dtype)
            # Of bfloat16 maxima many are equal, and sorting all of them would settle nothing.
            pick = top_by_score_then_index if dtype == torch.float32 else torch.topk
            picked_BG, group_BG = pick(maximum_BG, num_picked)
            group_BG, order_BG = group_BG.sort(dim=1)
            score_BM = score_groups(vector_ND, query_BD, group_BG)
            if dtype == torch.bfloat16:
                is_right = bool((picked_BG > 0).all())
            else:
                error = _error(score_BM, picked_BG.gather(1, order_BG), vector_ND[:1], query_BD)
                is_right = error <= _ERROR_BOUND
            if is_right:
                break
        return _list_best(score_BM, group_BG, len(vector_ND), top_k)

    def _ways(self) -> list[tuple[torch.dtype, str]]:
        """The fastest first; the next where it was not right.

        On some processors `medium` means that float32 is cut to fewer bits; bfloat16 needs positive scores.
        """
        fast, safe = (torch.float32, "medium"), (torch.float32, "highest")
        return [(torch.bfloat16, "highest"), fast, safe] if self.is_bfloat16 else [fast, safe]


def _search_all(vector_ND: Tensor, query_BD: Tensor, top_k: int, score_BN: Tensor) -> tuple[Tensor, Tensor]:
    return top_by_score_then_index(torch.mm(query_BD, vector_ND.T, out=score_BN), top_k)


def find_maxima(vector_ND: Tensor, query_BD: Tensor, maximum_BG: Tensor, dtype: torch.dtype) -> None:
    """Puts the highest score in each whole group of 32 candidates into `maximum_BG`, [B, N // 32].

    Of bfloat16 scores that are all negative it may be another: the bits are compared as whole numbers, which
    takes a sixth of the time.
    """
    num_groups = len(vector_ND) // GROUP
    query_DB = query_BD.to(dtype).T.contiguous()
    block_MB = torch.empty(_TILE_ROWS, len(query_BD), dtype=dtype)
    for first in range(0, num_groups * GROUP, _TILE_ROWS):
        last = min(first + _TILE_ROWS, num_groups * GROUP)
        score_MB = torch.mm(vector_ND[first:last].to(dtype), query_DB, out=block_MB[: last - first])
        bits_MB = score_MB if dtype == torch.float32 else score_MB.view(torch.int16)
        highest_GB = bits_MB.view(-1, GROUP, len(query_BD)).amax(dim=1).view(dtype)
        maximum_BG[:, first // GROUP : last // GROUP] = highest_GB.T


def score_groups(vector_ND: Tensor, query_BD: Tensor, group_BG: Tensor) -> Tensor:
    """Returns the scores of every candidate of these groups, then of the ones in no whole group: [B, M]."""
    (num, width), num_kept = vector_ND.shape, group_BG.shape[1]
    num_whole = num // GROUP * GROUP
    group_GW = vector_ND[:num_whole].view(-1, GROUP * width)
    score_BM = torch.empty(len(query_BD), num_kept * GROUP + num - num_whole)
    taken_GW = torch.empty(num_kept, GROUP * width)
    for row, query_D in enumerate(query_BD):
        torch.index_select(group_GW, 0, group_BG[row], out=taken_GW)
        torch.mv(taken_GW.view(-1, width), query_D, out=score_BM[row, : num_kept * GROUP])
    score_BM[:, num_kept * GROUP :] = query_BD @ vector_ND[num_whole:].T
    return score_BM


def _list_best(score_BM: Tensor, group_BG: Tensor, num: int, top_k: int) -> tuple[Tensor, Tensor]:
    # Groups ascend, and what is in none comes last: the order of the columns is that of the candidates.
    score_BK, column_BK = top_by_score_then_index(score_BM, top_k)
    num_scored = group_BG.shape[1] * GROUP
    in_group_BK = column_BK.clamp(max=num_scored - 1)
    place_BK = group_BG.gather(1, in_group_BK // GROUP) * GROUP + in_group_BK % GROUP
    rest_BK = num // GROUP * GROUP + column_BK - num_scored
    return score_BK, torch.where(column_BK < num_scored, place_BK, rest_BK)


def _error(score_BM: Tensor, maximum_BG: Tensor, vector_1D: Tensor, query_BD: Tensor) -> float:
    num_scored = maximum_BG.shape[1] * GROUP
    again_BG = score_BM[:, :num_scored].view(len(score_BM), -1, GROUP).amax(dim=2)
    length = float(vector_1D.norm() * query_BD.norm(dim=1).max())
    return float((again_BG - maximum_BG).abs().max()) / max(length, 1.0)


@contextmanager
def _precision(precision: str) -> Iterator[None]:
    """Lets PyTorch take its fastest float32 product, oneDNN's; what it means depends on the processor."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
