"""A distribution over all candidates that takes memory for the few that differ, not for the catalogue.

Takes counts of the candidates that were counted; the rest are alike, so one number stands for all of them.
Draws and log probabilities are exact, in float64: no table of the catalogue is made, read or searched.

Shapes: S candidates with a share of their own, V all candidates, N draws.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class SparseShares:
    """The probability of each of V candidates in one draw.

    Attributes:
        index_S: int64, ascending, none below `first`: candidates with a probability of their own.
        log_prob_S: float64.
        log_prob_rest: of each other candidate.
        num_candidates: V.
        first: candidates below it are never drawn and have -inf; 2 skips padding and unknown.
    """

    index_S: Tensor
    log_prob_S: Tensor
    log_prob_rest: float
    num_candidates: int
    first: int = 2
    _cumulative_S: Tensor = field(init=False, repr=False)
    # How many of the rest stand before each of S.
    _rest_before_S: Tensor = field(init=False, repr=False)

    @classmethod
    def from_counts(
        cls, index_S: Tensor, count_S: Tensor, *, num_candidates: int, power: float, first: int = 2
    ) -> "SparseShares":
        """Return probabilities in proportion to (1 + count)^power; 0 is uniform.

        Args:
            index_S: int64, ascending and distinct: which candidates have a count; those below `first` are
                left out.
            count_S: how often each was counted.
            num_candidates: V.
            power: 1 is as frequent as the counts, less is flatter.
            first: the first candidate that may be drawn.
        """
        is_own_S = (index_S >= first) & (power > 0)
        index_S, count_S = index_S[is_own_S], count_S[is_own_S].double()
        log_weight_S = power * torch.log1p(count_S)
        total = float(log_weight_S.exp().sum()) + (num_candidates - first - len(index_S))
        return cls(index_S, log_weight_S - np.log(total), -float(np.log(total)), num_candidates, first)

    def __post_init__(self) -> None:
        place_S = torch.arange(len(self.index_S), device=self.index_S.device)
        object.__setattr__(self, "_cumulative_S", self.log_prob_S.exp().cumsum(0))
        object.__setattr__(self, "_rest_before_S", self.index_S - self.first - place_S)

    def log_prob(self, index: Tensor) -> Tensor:
        """Return float64 log probabilities of these candidates, in their shape and on their device."""
        at = index.to(self.index_S.device)
        log_prob = torch.full(at.shape, self.log_prob_rest, dtype=torch.float64, device=at.device)
        if len(self.index_S):
            place = torch.searchsorted(self.index_S, at).clamp_(max=len(self.index_S) - 1)
            log_prob = torch.where(self.index_S[place] == at, self.log_prob_S[place], log_prob)
        return log_prob.masked_fill_(at < self.first, -torch.inf).to(index.device)

    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """Return int64 [num] draws with replacement; the same generator state, the same draws."""
        device = self.index_S.device
        draw_device = device if generator is None else generator.device
        uniform_N = torch.rand(num, dtype=torch.float64, generator=generator, device=draw_device).to(device)
        num_rest = self.num_candidates - self.first - len(self.index_S)
        if not len(self.index_S):
            return self.first + self._rank(uniform_N, num_rest)
        own_share = self._cumulative_S[-1]
        rest_share = num_rest * float(np.exp(self.log_prob_rest))
        point_N = uniform_N * (own_share + rest_share)
        place_N = torch.searchsorted(self._cumulative_S, point_N, right=True)
        own_N = self.index_S[place_N.clamp(max=len(self.index_S) - 1)]
        if not num_rest:
            return own_N
        rank_N = self._rank((point_N - own_share) / rest_share, num_rest)
        rest_N = self.first + rank_N + torch.searchsorted(self._rest_before_S, rank_N, right=True)
        return torch.where(point_N < own_share, own_N, rest_N)

    @staticmethod
    def _rank(uniform_N: Tensor, num: int) -> Tensor:
        return (uniform_N * num).long().clamp_(0, num - 1)
