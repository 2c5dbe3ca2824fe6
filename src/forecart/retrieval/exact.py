"""Exact search: every candidate scored, own-history terms added, the best K eligible ones kept.

Takes embeddings; gives scores and lists. Eligibility is applied before the top K, so a list is short only
when fewer than K candidates are eligible. Users come in blocks, so that a block of scores fits the cache of
a laptop's memory, not the whole population.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from forecart.embedding.candidates import CandidateEmbeddings
from forecart.embedding.users import UserEmbeddings
from forecart.sequences.vocabulary import FIRST_INDEX


@dataclass(frozen=True, eq=False)
class TopK:
    """The lists of B users; a list that is short ends in candidate 0 with score -inf.

    Attributes:
        candidate: [B, K] int32, best first; of equal scores the lower index first.
        score: [B, K] float32.
    """

    candidate: npt.NDArray[np.int32]
    score: npt.NDArray[np.float32]


def score_exact(users: UserEmbeddings, candidates: CandidateEmbeddings) -> Tensor:
    """Returns the score of every candidate for each user, [B, N]: cosine + bias + own-history term."""
    score_BN = users.vector_BD @ candidates.vector_ND.T + candidates.bias_N
    pairs = (users.own_row_M, users.own_candidate_M)
    return score_BN.index_put_(pairs, users.own_term_M, accumulate=True)


def search_exact(score_BN: Tensor, *, top_k: int, is_eligible_N: Tensor) -> TopK:
    """Returns the `top_k` eligible candidates of each row of scores.

    Args:
        score_BN: overwritten where a candidate is not eligible.
        top_k: K; fewer are listed where fewer are eligible.
        is_eligible_N: bool; padding and unknown are never listed, whatever it says.
    """
    score_BN[:, ~is_eligible_N] = -torch.inf
    score_BN[:, :FIRST_INDEX] = -torch.inf
    score_BK, candidate_BK = score_BN.topk(min(top_k, score_BN.shape[1]), dim=1)
    # topk does not say in which order equal scores come.
    candidate_BK, by_index = candidate_BK.sort(dim=1)
    score_BK, by_score = score_BK.gather(1, by_index).sort(dim=1, descending=True, stable=True)
    candidate = candidate_BK.gather(1, by_score)
    candidate[torch.isneginf(score_BK)] = 0
    return TopK(
        _padded(candidate.cpu().numpy().astype(np.int32), top_k, 0),
        _padded(score_BK.cpu().numpy(), top_k, -np.inf),
    )


def _padded(array: npt.NDArray[np.generic], width: int, filler: float) -> npt.NDArray[np.generic]:
    missing = width - array.shape[1]
    return np.pad(array, ((0, 0), (0, missing)), constant_values=filler) if missing > 0 else array
