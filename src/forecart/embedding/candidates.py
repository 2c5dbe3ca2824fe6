"""Vectors and prior of every candidate, as of a cut.

Takes a trained model and the population at the cut; gives what a search needs: unit vectors, a prior per
candidate, and the temperature that brings both to one scale.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from forecart.model.two_tower import TwoTower
from forecart.sequences.population import Population


@dataclass(frozen=True)
class CandidateEmbeddings:
    """N candidates, padding and unknown included.

    Attributes:
        vector_ND: unit vectors.
        prior_N: the prior in units of score: prior logit times temperature.
        temperature: of the model; score = logit * temperature, so that a score without terms is the cosine.
    """

    vector_ND: Tensor
    prior_N: Tensor
    temperature: float


@torch.no_grad()
def embed_candidates(model: TwoTower, population: Population) -> CandidateEmbeddings:
    """Returns vectors and prior of all candidates; the model is put into evaluation mode."""
    model.eval()
    log_share_NS = torch.from_numpy(population.log_share).to(model.prior.device)
    temperature = model.temperature()
    return CandidateEmbeddings(
        vector_ND=model.encode_candidates(),
        prior_N=model.prior_logit(log_share_NS) * temperature,
        temperature=float(temperature),
    )
