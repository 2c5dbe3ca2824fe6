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
_INDEX_BITS: Final = 14
_MAX_GROUPED: Final = 1 << _INDEX_BITS
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
    if score_BN.device.type != "cpu" or not 2 * top_k * _GROUPED < num <= _MAX_GROUPED:
        return _top_by_sorting(score_BN, top_k)
    tiles = torch.split(score_BN, max(1, _TILE_SCORES // num))
    score, index = zip(*(_top_above_bound(tile, top_k) for tile in tiles), strict=True)
    return torch.cat(score), torch.cat(index)


def _top_above_bound(score_BN: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The K-th highest of maxima over groups bounds the K-th score from below; few scores are above it."""
    num_users, num = score_BN.shape
    num_groups = num // _GROUPED
    num_whole = num_groups * _GROUPED
    highest_BG = score_BN[:, :num_whole].view(num_users, _GROUPED, num_groups).amax(dim=1)
    bound_B1 = highest_BG.topk(top_k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    if bound_B1.isnan().any() or score_BN[:, num_whole:].isnan().any():
        return _top_by_sorting(score_BN, top_k)
    bound_B1.clamp_(min=torch.finfo(torch.float32).min)  # only -inf is below
    flat_M = np.flatnonzero((score_BN >= bound_B1).numpy())
    row_M, index_M = np.divmod(flat_M, num)
    # One sort of whole numbers, by row, falling score and index: each row sorted takes ten times as long.
    bits_M = (score_BN.numpy().reshape(-1)[flat_M] + np.float32(0)).view(np.int32).astype(np.int64)
    falling_M = 0x7FFFFFFF - (bits_M ^ ((bits_M >> 31) & 0x7FFFFFFF))
    key_M = (row_M << 32 + _INDEX_BITS) | (falling_M << _INDEX_BITS) | index_M
    key_M.sort()
    num_above_B = np.bincount(row_M, minlength=num_users)
    rank_K = np.arange(top_k)
    place_BK = (np.cumsum(num_above_B) - num_above_B)[:, None] + rank_K
    is_there_BK = torch.from_numpy(rank_K < num_above_B[:, None])
    listed_BK = key_M[np.minimum(place_BK, max(len(key_M) - 1, 0))] if len(key_M) else place_BK
    index_BK = torch.from_numpy(listed_BK & ((1 << _INDEX_BITS) - 1))
    return score_BN.gather(1, index_BK).masked_fill_(~is_there_BK, -torch.inf), index_BK


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
