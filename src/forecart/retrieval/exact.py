"""Exact search: every candidate scored, own-history and successor terms added, the best K eligible ones kept.

Takes embeddings; gives scores and lists. Eligibility is applied before the top K, so a list is short only
when fewer than K candidates are eligible. Users come in blocks, so that a block of scores fits the cache of
a laptop's memory, not the whole population.
"""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from forecart.embedding.candidates import CandidateEmbeddings
from forecart.embedding.users import UserEmbeddings
from forecart.retrieval.top_k import TopK
from forecart.sequences.vocabulary import FIRST_INDEX

_GROUPED: Final = 16
_MAX_GROUPED: Final = 1 << 14
"""Columns up to which a bound by groups takes less time than `topk`: about half of it at 5,000."""
_TILE_SCORES: Final = 1 << 19


def score_exact(users: UserEmbeddings, candidates: CandidateEmbeddings) -> Tensor:
    """Returns the score of every candidate for each user, [B, N]: cosine + prior + the sparse terms."""
    score_BN = users.vector_BD @ candidates.vector_ND.T + candidates.prior_N
    pairs = (users.own_row_M, users.own_candidate_M)
    score_BN.index_put_(pairs, users.own_term_M, accumulate=True)
    if (terms := users.successors) is not None:
        # Thousands of pairs a user: adding at flat indices takes a fraction of what `index_put_` does.
        flat_P = terms.row_P * score_BN.shape[1] + terms.candidate_P
        score_BN.view(-1).index_add_(0, flat_P, terms.term_P)
    return score_BN


def search_exact(score_BN: Tensor, *, top_k: int, is_eligible_N: Tensor) -> TopK:
    """Returns the `top_k` eligible candidates of each row of scores.

    Args:
        score_BN: overwritten where a candidate is not eligible.
        top_k: K; fewer are listed where fewer are eligible.
        is_eligible_N: bool; padding and unknown are never listed, whatever it says.

    Raises:
        ValueError: the score of an eligible candidate is NaN.
    """
    score_BN.masked_fill_(~is_eligible_N, -torch.inf)
    score_BN[:, :FIRST_INDEX] = -torch.inf
    score_BK, candidate_BK = top_by_score_then_index(score_BN, min(top_k, score_BN.shape[1]))
    if score_BK[:, :1].isnan().any():  # NaN sorts before every number
        raise ValueError("a score is a number, NaN arrived: the model has diverged")
    candidate_BK[score_BK.isneginf()] = 0
    padding = ((0, 0), (0, top_k - score_BK.shape[1]))
    return TopK(
        np.pad(candidate_BK.cpu().numpy().astype(np.int32), padding),
        np.pad(score_BK.cpu().numpy(), padding, constant_values=-np.inf),
    )


def top_by_score_then_index(score_BN: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Returns the best `top_k` scores of each row and where they are; of equal ones the lower index first.

    What is NaN comes first. Where a score is -inf, its index may be any.
    """
    num = score_BN.shape[1]
    if not 2 * top_k * _GROUPED < num <= _MAX_GROUPED:
        return _top_by_sorting(score_BN, top_k)
    tiles = torch.split(score_BN, max(1, _TILE_SCORES // num))
    score, index = zip(*(_top_above_bound(tile, top_k) for tile in tiles), strict=True)
    return torch.cat(score), torch.cat(index)


def _top_above_bound(score_BN: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The K-th highest of maxima over groups bounds the K-th score from below; few scores are above it."""
    num_groups = score_BN.shape[1] // _GROUPED
    grouped_BN = score_BN[:, : num_groups * _GROUPED].view(-1, _GROUPED, num_groups)
    highest_BK = grouped_BN.amax(dim=1).topk(top_k, dim=1, sorted=False).values
    # Nothing is below NaN, and everything above -inf.
    bound_B1 = highest_BK.amin(dim=1, keepdim=True).clamp(min=torch.finfo(score_BN.dtype).min)
    is_above_BN = ~(score_BN < bound_B1)
    num_above_B = is_above_BN.sum(dim=1)
    is_tied_B = num_above_B > 4 * top_k
    is_above_BN[is_tied_B] = False
    num_above_B[is_tied_B] = 0
    row_M, index_M = is_above_BN.nonzero(as_tuple=True)
    column_M = torch.arange(len(row_M), device=row_M.device) - (num_above_B.cumsum(0) - num_above_B)[row_M]
    shape = (len(score_BN), max(int(num_above_B.max()), top_k))
    score_BM, index_BM = score_BN.new_full(shape, -torch.inf), index_M.new_zeros(shape)
    score_BM[row_M, column_M], index_BM[row_M, column_M] = score_BN[row_M, index_M], index_M
    score_BM, order_BM = score_BM.sort(dim=1, descending=True, stable=True)
    score_BK, index_BK = score_BM[:, :top_k], index_BM.gather(1, order_BM[:, :top_k])
    if is_tied_B.any():
        score_BK[is_tied_B], index_BK[is_tied_B] = _top_by_sorting(score_BN[is_tied_B], top_k)
    return score_BK, index_BK


def _top_by_sorting(score_BN: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    # One more than is asked for: if it is equal, topk may have left out one of a lower index.
    score_BK, candidate_BK = score_BN.topk(min(top_k + 1, score_BN.shape[1]), dim=1)
    # topk promises nothing about equal scores, neither their order nor which of them are the last of the K.
    candidate_BK, by_index = candidate_BK.sort(dim=1)
    score_BK, by_score = score_BK.gather(1, by_index).sort(dim=1, descending=True, stable=True)
    candidate_BK = candidate_BK.gather(1, by_score)
    last_B1 = score_BK[:, top_k - 1 : top_k]
    is_tied_B = (score_BK[:, top_k:] == last_B1).any(dim=1) & ~last_B1[:, 0].isneginf()
    score_BK, candidate_BK = score_BK[:, :top_k].contiguous(), candidate_BK[:, :top_k].contiguous()
    if is_tied_B.any():
        sorted_score, by_score = score_BN[is_tied_B].sort(dim=1, descending=True, stable=True)
        score_BK[is_tied_B], candidate_BK[is_tied_B] = sorted_score[:, :top_k], by_score[:, :top_k]
    return score_BK, candidate_BK
