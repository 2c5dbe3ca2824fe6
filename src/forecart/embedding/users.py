"""Vectors of users and the scores of their own candidates, as of a cut.

Takes a trained model and users; gives unit vectors and, per user, a sparse list of terms for the candidates
of the user's own history. The same code embeds for evaluation and for the candidate tables.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from forecart.embedding.candidates import CandidateEmbeddings
from forecart.model.tensors import to_tensors
from forecart.model.two_tower import TwoTower
from forecart.sequences.batches import BatchBuilder
from forecart.sequences.population import Population
from forecart.sequences.successors import SuccessorTerm


@dataclass(frozen=True)
class PairTerms:
    """P pairs of a user and a candidate, and what is added to their scores.

    Attributes:
        row_P: position of the user in the batch.
        candidate_P: candidate index.
        term_P: in units of score.
    """

    row_P: Tensor
    candidate_P: Tensor
    term_P: Tensor


@dataclass(frozen=True)
class UserEmbeddings:
    """B users and M pairs of their own histories.

    Attributes:
        user_index: [B].
        vector_BD: unit vectors; zeros for a user of whom nothing is known.
        own_row_M: position of the user in the batch.
        own_candidate_M: candidate index.
        own_term_M: what is added to cosine and prior, in units of score.
        has_converted_M: whether the user converted with the candidate before the cut.
        successors: the successor term, of candidates of the own history too; None where there is none.
    """

    user_index: npt.NDArray[np.int32]
    vector_BD: Tensor
    own_row_M: Tensor
    own_candidate_M: Tensor
    own_term_M: Tensor
    has_converted_M: Tensor
    successors: PairTerms | None = None


@torch.no_grad()
def embed_users(
    model: TwoTower,
    builder: BatchBuilder,
    user_index: npt.NDArray[np.int32],
    *,
    cut_us: int,
    population: Population,
    candidates: CandidateEmbeddings,
) -> UserEmbeddings:
    """Returns the embeddings of these users as of the cut.

    Args:
        model: trained; put into evaluation mode.
        builder: reads the histories.
        user_index: [B].
        cut_us: microseconds since the epoch.
        population: as of the same cut.
        candidates: all candidates, of the same model and cut.
    """
    model.eval()
    batch = builder.build(user_index, np.full(len(user_index), cut_us), population=population)
    tensors = to_tensors(batch, model.prior.device)
    vector_BD = model.encode_users(tensors)
    own_term_M = torch.zeros(len(tensors.own_row_M), device=vector_BD.device)
    if model.own is not None:
        own_vector_MD = candidates.vector_ND[tensors.own_candidate_M]
        tower_M = model.pair_logits(vector_BD, tensors.own_row_M, own_vector_MD)
        own_term_M = model.own_logit(tensors, tower_M) * candidates.temperature
    return UserEmbeddings(
        user_index=user_index,
        vector_BD=vector_BD,
        own_row_M=tensors.own_row_M,
        own_candidate_M=tensors.own_candidate_M,
        own_term_M=own_term_M,
        has_converted_M=torch.from_numpy(batch.own.has_converted).to(vector_BD.device),
    )


def with_successors(users: UserEmbeddings, successors: SuccessorTerm, *, cut_us: int) -> UserEmbeddings:
    """Returns the embeddings with the successor term as of the same cut."""
    term_BN = successors.read(users.user_index, cut_us)
    parts = (term_BN.row.astype(np.int64), term_BN.col.astype(np.int64), term_BN.data)
    row_P, candidate_P, term_P = (torch.from_numpy(part).to(users.vector_BD.device) for part in parts)
    return replace(users, successors=PairTerms(row_P, candidate_P, term_P))
