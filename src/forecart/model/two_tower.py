"""The two-tower model: logit(user, candidate) = cosine / temperature + prior + own-history term.

Takes batches; gives unit vectors, logits and losses. Advertiser and item models are this one class with other
features. The three parts are kept apart because they are served apart: vectors are searched, the prior is a
bias per candidate refreshed daily, and the own-history term is a sparse list per user merged afterwards.
"""

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forecart.model.layers import EmbeddingTable
from forecart.model.settings import MAX_TEMPERATURE, MIN_TEMPERATURE, ModelSettings
from forecart.model.static_features import NO_START, CandidateStart, StaticFeatures
from forecart.model.tensors import CandidateRows, TowerBatch
from forecart.model.towers import (
    CandidateTower,
    OwnHistoryTerm,
    StandardScaler,
    UserTower,
)
from forecart.sequences.own_history import FEATURES

# Learned as a tenth of its value, so that it moves ten times as fast as the other weights.
_PRIOR_SCALE: Final = 10.0
# Converters in 7 days, 28 days, ever; anyone in 28 days, ever. Where conversions are rare, a month of other
# events says as much as they do (docs/log.md).
_FIRST_PRIOR: Final = (0.02, 0.02, 0.04, 0.04, 0.0)


class TwoTower(nn.Module):
    """Scores candidates for (user, cut) rows.

    Args:
        static: features of advertisers, items and candidates.
        settings: the architecture.
        is_causal: for the dense objective.
        start: of what is learned per candidate.
    """

    def __init__(
        self,
        static: StaticFeatures,
        *,
        settings: ModelSettings,
        is_causal: bool = False,
        start: CandidateStart = NO_START,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.scaler = StandardScaler(len(FEATURES))
        self.candidate_tower = CandidateTower(static, settings=settings, id_start_ND=start.id_ND)
        self.user_tower = UserTower(static, settings=settings, is_causal=is_causal)
        self.own: OwnHistoryTerm | None = None
        if settings.use_own_history:
            self.own = OwnHistoryTerm(settings.own_width, tower_share=settings.own_tower_share)
        self.prior = nn.Parameter(torch.tensor(_FIRST_PRIOR))
        self.bias: nn.Parameter | None = None
        if settings.prior == "learned":
            bias_N = torch.zeros(self.num_candidates) if start.bias_N is None else start.bias_N
            self.bias = nn.Parameter(bias_N)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(settings.temperature)))
        self.tower_dtype = torch.float32

    @property
    def num_candidates(self) -> int:
        """N, padding and unknown included."""
        return len(self.candidate_tower.static_NF)

    def temperature(self) -> Tensor:
        """The learned temperature, kept within what `ModelSettings` allows."""
        return (-self.log_scale).exp().clamp(MIN_TEMPERATURE, MAX_TEMPERATURE)

    def encode_users(self, batch: TowerBatch) -> Tensor:
        """Return unit vectors [B, D] in float32; the zero vector for a row the tower knows nothing of."""
        table = self.candidate_tower.id
        with self._tower_precision():
            vector_BD: Tensor = self.user_tower(
                batch,
                self.scaler(batch.own_feature_MF),
                id_table=table if isinstance(table, EmbeddingTable) else None,
            )
        return vector_BD.float()

    def encode_candidates(self, index_N: Tensor | None = None, rows: CandidateRows | None = None) -> Tensor:
        """Return unit vectors [N, D] in float32 of these candidates, or of all; `rows` as in the tower."""
        if index_N is None:
            index_N = torch.arange(self.num_candidates, device=self.prior.device)
        with self._tower_precision():
            vector_ND: Tensor = self.candidate_tower(index_N, rows)
        return vector_ND.float()

    def _tower_precision(self) -> torch.autocast:
        """In training only the towers may compute in bfloat16; logits need more digits than it has."""
        is_low = self.training and self.tower_dtype != torch.float32
        return torch.autocast(self.prior.device.type, self.tower_dtype, enabled=is_low)

    def prior_logit(self, log_share_NS: Tensor) -> Tensor:
        """Return [N]: the learned bias, or what conversions and events of everyone say of each candidate."""
        if self.bias is not None:
            return self.bias
        return log_share_NS @ (_PRIOR_SCALE * self.prior)

    def own_logit(self, batch: TowerBatch, tower_logit_M: Tensor) -> Tensor:
        """Return [M], what is added to the tower logit of each own pair; zeros without the term."""
        if self.own is None:
            return torch.zeros_like(tower_logit_M)
        term_M: Tensor = self.own(self.scaler(batch.own_feature_MF), tower_logit_M)
        return term_M

    def pair_logits(self, user_BD: Tensor, row_M: Tensor, vector_MD: Tensor) -> Tensor:
        """Return the tower logit [M] of pairs (row, candidate vector)."""
        # Not `user_BD[row_M]`: on several CPU threads the gradient of that depends on their race.
        return (F.embedding(row_M, user_BD) * vector_MD).sum(-1) / self.temperature()

    @property
    def needs_own_vectors(self) -> bool:
        """Whether the tower logit of own pairs has a part in their score."""
        return self.own is None or self.own.tower_share > 0

    def forward(self, batch: TowerBatch) -> Tensor:
        """Return logits [B, N] of every candidate."""
        return self.score_all(batch, self.encode_candidates())

    def score_all(self, batch: TowerBatch, candidate_ND: Tensor) -> Tensor:
        """Return logits [B, N], given the vectors of all candidates."""
        tower_BN = self.encode_users(batch) @ candidate_ND.T / self.temperature()
        logit_BN = tower_BN + self.prior_logit(batch.log_share_NS)[None]
        if self.own is None:
            return logit_BN
        pairs = (batch.own_row_M, batch.own_candidate_M)
        # The term holds `-(1 - share) * tower logit`, so the sum leaves exactly the share that counts.
        return logit_BN.index_put(pairs, self.own_logit(batch, tower_BN[pairs]), accumulate=True)
