"""The two-tower model: logit(user, candidate) = cosine / temperature + prior + own-history term.

Takes batches; gives unit vectors, logits and losses. Advertiser and item models are this one class with other
features. The three parts are kept apart because they are served apart: vectors are searched, the prior is a
bias per candidate refreshed daily, and the own-history term is a sparse list per user merged afterwards.
"""

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forecart.model.event_encoder import EncoderShape, EventEncoder
from forecart.model.settings import ModelSettings
from forecart.model.tensors import TowerBatch
from forecart.model.towers import CandidateTower, HistorySummary, OwnHistoryTerm, StandardScaler
from forecart.sequences.own_history import FEATURES

# Learned as a tenth of its value, so that it moves ten times as fast as the other weights.
_PRIOR_SCALE: Final = 10.0
_FIRST_PRIOR: Final = (0.02, 0.02, 0.06)


@dataclass(frozen=True)
class StaticFeatures:
    """What the towers are built on; none of it is a weight.

    Attributes:
        advertiser_AF: static features of advertisers, read by the event encoder.
        item_IF: static features of items, likewise.
        candidate_NF: static features of the candidates, co-conversion columns first.
        num_collaborative: how many columns of `candidate_NF` those are.
    """

    advertiser_AF: Tensor
    item_IF: Tensor
    candidate_NF: Tensor
    num_collaborative: int


class TwoTower(nn.Module):
    """Scores candidates for (user, cut) rows.

    Args:
        static: features of advertisers, items and candidates.
        settings: the architecture.
        is_causal: for the dense objective.
    """

    def __init__(self, static: StaticFeatures, *, settings: ModelSettings, is_causal: bool = False) -> None:
        super().__init__()
        self.settings = settings
        width, columns = settings.width, static.num_collaborative
        self.scaler = StandardScaler(len(FEATURES))
        self.candidate_tower = CandidateTower(
            static.candidate_NF,
            num_collaborative=columns,
            width=width,
            id_rows=settings.id_rows if settings.id_embedding == "hashed" else 0,
            feature_dropout=settings.feature_dropout,
        )
        self.encoder = _build_encoder(static, settings, is_causal) if settings.num_layers else None
        self.summary = (
            HistorySummary(
                static.candidate_NF, num_collaborative=columns, width=width, dropout=settings.dropout
            )
            if settings.use_summary
            else None
        )
        self.from_state = nn.Linear(width, width)
        self.from_summary = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.from_state.weight, std=0.02 if settings.use_summary else 1 / math.sqrt(width))
        nn.init.eye_(self.from_summary.weight)
        self.own = OwnHistoryTerm(settings.own_width, tower_share=settings.own_tower_share)
        self.prior = nn.Parameter(torch.tensor(_FIRST_PRIOR))
        self.log_scale = nn.Parameter(torch.tensor(-math.log(settings.temperature)))

    @property
    def num_candidates(self) -> int:
        """N, padding and unknown included."""
        return len(self.candidate_tower.static_NF)

    def temperature(self) -> Tensor:
        """The learned temperature, kept in [0.01, 1]."""
        return (-self.log_scale).exp().clamp(0.01, 1.0)

    def encode_users(self, batch: TowerBatch) -> Tensor:
        """Return unit vectors [B, D]; the zero vector for a row the towers know nothing of."""
        vector_BD = torch.zeros(batch.num_rows, self.settings.width, device=batch.offsets.device)
        if self.encoder is not None:
            vector_BD = vector_BD + self.from_state(self.encoder(batch))
        if self.summary is not None:
            summary_BD = self.summary(
                self.scaler(batch.own_feature_MF),
                batch.own_mass_M,
                batch.own_row_M,
                batch.own_candidate_M,
                batch.num_rows,
            )
            vector_BD = vector_BD + self.from_summary(summary_BD)
        return F.normalize(vector_BD, dim=-1)

    def encode_candidates(self, index_N: Tensor | None = None) -> Tensor:
        """Return unit vectors [N, D] of these candidates, or of all."""
        if index_N is None:
            index_N = torch.arange(self.num_candidates, device=self.prior.device)
        vector_ND: Tensor = self.candidate_tower(index_N)
        return vector_ND

    def prior_logit(self, log_share_NS: Tensor) -> Tensor:
        """Return [N]: what the population's recent and all-time conversions say of each candidate."""
        return log_share_NS @ (_PRIOR_SCALE * self.prior)

    def own_logit(self, batch: TowerBatch, tower_logit_M: Tensor) -> Tensor:
        """Return [M], what is added to the tower logit of each own pair; zeros without the term."""
        if not self.settings.use_own_history:
            return torch.zeros_like(tower_logit_M)
        term_M: Tensor = self.own(self.scaler(batch.own_feature_MF), tower_logit_M)
        return term_M

    def pair_logits(self, user_BD: Tensor, row_M: Tensor, vector_MD: Tensor) -> Tensor:
        """Return the tower logit [M] of pairs (row, candidate vector)."""
        return (user_BD[row_M] * vector_MD).sum(-1) / self.temperature()

    def own_tower_logits(self, batch: TowerBatch, user_BD: Tensor) -> Tensor:
        """Return the tower logit [M] of each own pair; zeros where it does not count, and is not computed."""
        if not self._needs_own_vectors:
            return torch.zeros(len(batch.own_row_M), device=user_BD.device)
        distinct_U, inverse_M = torch.unique(batch.own_candidate_M, return_inverse=True)
        vector_MD = self.encode_candidates(distinct_U)[inverse_M]
        return self.pair_logits(user_BD, batch.own_row_M, vector_MD)

    @property
    def _needs_own_vectors(self) -> bool:
        return self.settings.own_tower_share > 0 or not self.settings.use_own_history

    def forward(self, batch: TowerBatch) -> Tensor:
        """Return logits [B, N] of every candidate."""
        return self.score_all(batch, self.encode_candidates())

    def score_all(self, batch: TowerBatch, candidate_ND: Tensor) -> Tensor:
        """Return logits [B, N], given the vectors of all candidates."""
        tower_BN = self.encode_users(batch) @ candidate_ND.T / self.temperature()
        logit_BN = tower_BN + self.prior_logit(batch.log_share_NS)[None]
        pairs = (batch.own_row_M, batch.own_candidate_M)
        # The term holds `-(1 - share) * tower logit`, so the sum leaves exactly the share that counts.
        return logit_BN.index_put(pairs, self.own_logit(batch, tower_BN[pairs]), accumulate=True)


def _build_encoder(static: StaticFeatures, settings: ModelSettings, is_causal: bool) -> EventEncoder:
    shape = EncoderShape(
        width=settings.width,
        num_layers=settings.num_layers,
        num_heads=settings.num_heads,
        history_length=settings.history_length,
        pooling=settings.pooling,
        dropout=settings.dropout,
        id_rows=settings.id_rows,
        is_causal=is_causal,
    )
    return EventEncoder(static.advertiser_AF, static.item_IF, shape=shape)
