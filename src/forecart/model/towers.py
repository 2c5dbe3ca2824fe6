"""The user tower, the candidate tower and the own-history term: each one idea, composed by `TwoTower`.

Takes states, static features and own statistics; gives unit vectors to compare by cosine, and the part of
the score that comes from the user's own history. Advertisers and items share the candidate tower: which one
it is depends on the features it is given.
"""

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forecart.model.event_encoder import EventEncoder
from forecart.model.layers import Dropout, EmbeddingTable, HashedEmbedding, Mlp
from forecart.model.settings import ModelSettings
from forecart.model.static_features import StaticFeatures
from forecart.model.tensors import CandidateRows, TowerBatch
from forecart.sequences.own_history import FEATURES

_NUM_FEATURES: Final = len(FEATURES)
_GATE_WIDTH: Final = 16
# Per standard deviation of each feature; chosen once, by what a recency-and-frequency heuristic does.
_FIRST_OWN_WEIGHTS: Final = {
    "log_visits_120d": 1.0,
    "log_visits": 0.5,
    "log_views": 0.5,
    "log_intents": 0.5,
    "log_days_since_any": -0.3,
}
_FIRST_OWN_LOGIT: Final = 3.0
# Brings a tower logit, of order ten, into the range of the standardised features.
_LOGIT_SCALE: Final = 0.3


class StandardScaler(nn.Module):
    """Centres and scales the own-history features; fitted once, saved with the weights."""

    mean_F: Tensor
    scale_F: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean_F", torch.zeros(num_features))
        self.register_buffer("scale_F", torch.ones(num_features))

    def fit(self, feature_MF: Tensor) -> None:
        """Set mean and standard deviation from a sample of training rows; an empty one changes nothing."""
        if feature_MF.numel():
            self.mean_F.copy_(feature_MF.double().mean(0))
            self.scale_F.copy_(feature_MF.double().std(0, correction=0).clamp(min=1e-3))

    def forward(self, feature_MF: Tensor) -> Tensor:
        """Return [M, F] standardised, clipped to ten deviations; without features what arrived."""
        if not feature_MF.shape[1]:
            return feature_MF
        return ((feature_MF - self.mean_F) / self.scale_F).clamp(-10, 10)


class CandidateTower(nn.Module):
    """Static features (and hashed ids) -> unit vector: a linear path and an MLP that starts at zero.

    The linear path starts as the identity on the co-conversion vectors, so that an untrained tower already
    puts together what is bought together.

    Args:
        static: features and advertiser of all candidates, buffers that are not saved.
        settings: width and embeddings.
        id_start_ND: rows that a table of ids starts from.
    """

    static_NF: Tensor
    advertiser_N: Tensor

    def __init__(
        self, static: StaticFeatures, *, settings: ModelSettings, id_start_ND: Tensor | None = None
    ) -> None:
        super().__init__()
        width, has_advertisers = settings.width, bool(static.advertiser_N.any())
        self.register_buffer("static_NF", static.candidate_NF, persistent=False)
        self.register_buffer("advertiser_N", static.advertiser_N, persistent=False)
        self.num_collaborative = static.num_collaborative
        self.feature_dropout = settings.feature_dropout
        num_features = static.candidate_NF.shape[1]
        self.linear = nn.Linear(num_features, width, bias=False)
        self.mlp = Mlp(num_features, hidden=2 * width, width_out=width)
        self.id: EmbeddingTable | HashedEmbedding | None = None
        if settings.id_embedding == "table":
            self.id = EmbeddingTable(len(static.candidate_NF), width, start_ND=id_start_ND)
        elif settings.id_embedding == "hashed":
            self.id = HashedEmbedding(settings.id_rows, width, scale=settings.id_scale)
        self.advertiser_id: HashedEmbedding | None = None
        if has_advertisers and settings.advertiser_embedding == "hashed":
            self.advertiser_id = HashedEmbedding(settings.id_rows, width, scale=settings.id_scale)
        _start_as_identity(self.linear, static.num_collaborative)
        nn.init.zeros_(self.mlp.to_output.weight)
        nn.init.zeros_(self.mlp.to_output.bias)

    def forward(self, index_N: Tensor, rows: CandidateRows | None = None) -> Tensor:
        """Return unit vectors [N, D] of these candidates; any shape of indices in one dimension.

        Args:
            index_N: int64.
            rows: what `index_N` numbers; None for the whole catalogue.
        """
        if rows is None:
            static_NF, advertiser_N = self.static_NF[index_N].float(), self.advertiser_N[index_N]
        else:
            static_NF, advertiser_N = rows.static_NF[index_N], rows.advertiser_N[index_N]
            index_N = rows.index_N[index_N]
        static_NF = self._hide(static_NF)
        x_ND: Tensor = self.linear(static_NF) + self.mlp(static_NF)
        if self.id is not None:
            x_ND = x_ND + self.id(index_N)
        if self.advertiser_id is not None:
            x_ND = x_ND + self.advertiser_id(advertiser_N)
        return F.normalize(x_ND, dim=-1)

    def _hide(self, static_NF: Tensor) -> Tensor:
        if not self.training or not self.feature_dropout or not self.num_collaborative:
            return static_NF
        is_kept_N1 = torch.rand(len(static_NF), 1, device=static_NF.device) >= self.feature_dropout
        collaborative_NK = static_NF[:, : self.num_collaborative] * is_kept_N1
        return torch.cat([collaborative_NK, static_NF[:, self.num_collaborative :]], dim=1)


class HistorySummary(nn.Module):
    """A weighted sum of static features over *all* candidates of a user's history, [B, D].

    The encoder sees the latest L events; this sees every candidate there ever was, weighted by its own
    statistics. Divided by the length of the weights, so that long histories have no longer vectors.
    """

    static_NF: Tensor

    def __init__(self, static_NF: Tensor, *, num_collaborative: int, width: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("static_NF", static_NF, persistent=False)
        self.gate = Mlp(_NUM_FEATURES, hidden=_GATE_WIDTH, width_out=1)
        self.linear = nn.Linear(static_NF.shape[1], width, bias=False)
        self.dropout = Dropout(dropout)
        _start_as_identity(self.linear, num_collaborative)

    def forward(self, feature_MF: Tensor, batch: TowerBatch) -> Tensor:
        """Return [B, D], given the standardised features of the own pairs; zeros for a row without any."""
        weight_M = self.dropout(F.softplus(self.gate(feature_MF)[:, 0].float()) * batch.own_mass_M)
        row_B = torch.arange(batch.num_rows, device=weight_M.device)
        # A bag of pairs per row: the features of all pairs, [M, F], are never in memory at once.
        candidate_M, static_NF = batch.own_candidate_M, self.static_NF
        if batch.rows is not None:
            static_NF = batch.rows.static_NF
        elif static_NF.dtype != weight_M.dtype:  # the files of a store: only what is named is made whole
            index_N, candidate_M = torch.unique(candidate_M, return_inverse=True)
            static_NF = static_NF[index_N].to(weight_M.dtype)
        summed_BF = F.embedding_bag(
            candidate_M,
            static_NF,
            torch.searchsorted(batch.own_row_M, row_B),
            mode="sum",
            per_sample_weights=weight_M,
        )
        square_B = weight_M.new_zeros(batch.num_rows).index_add(0, batch.own_row_M, weight_M.square())
        out_BD: Tensor = self.linear(summed_BF) / (square_B + 1e-6).sqrt()[:, None]
        return out_BD


class UserTower(nn.Module):
    """A user's history -> unit vector: the encoder's state plus the summary's, each where there is one.

    Args:
        static: features of advertisers, items and candidates.
        settings: the architecture.
        is_causal: whether rows of one user share a pass of the encoder.
    """

    def __init__(self, static: StaticFeatures, *, settings: ModelSettings, is_causal: bool) -> None:
        super().__init__()
        width = settings.width
        self.width = width
        self.encoder: EventEncoder | None = None
        self.summary: HistorySummary | None = None
        if settings.num_layers:
            self.encoder = EventEncoder(static, settings=settings, is_causal=is_causal)
            self.from_state = nn.Linear(width, width)
            if settings.id_embedding == "table":
                # Events and candidates share a space: the state starts as a candidate that would follow.
                nn.init.eye_(self.from_state.weight)
            else:
                std = 0.02 if settings.use_summary else 1 / math.sqrt(width)
                nn.init.normal_(self.from_state.weight, std=std)
        if settings.use_summary:
            self.summary = HistorySummary(
                static.candidate_NF,
                num_collaborative=static.num_collaborative,
                width=width,
                dropout=settings.dropout,
            )
            self.from_summary = nn.Linear(width, width, bias=False)
            nn.init.eye_(self.from_summary.weight)

    def forward(
        self, batch: TowerBatch, own_feature_MF: Tensor, *, id_table: EmbeddingTable | None = None
    ) -> Tensor:
        """Return unit vectors [B, D]; the zero vector for a row that nothing is known of.

        Args:
            batch: the rows.
            own_feature_MF: standardised features of the own pairs.
            id_table: the candidate tower's, which events are read by too.
        """
        vector_BD = torch.zeros(batch.num_rows, self.width, device=batch.offsets.device)
        if self.encoder is not None:
            vector_BD = vector_BD + self.from_state(self.encoder(batch, id_table))
        if self.summary is not None:
            vector_BD = vector_BD + self.from_summary(self.summary(own_feature_MF, batch))
        return F.normalize(vector_BD, dim=-1)


class OwnHistoryTerm(nn.Module):
    """The learned logit of a candidate of the user's own history, from its statistics and its tower logit.

    It starts as a heuristic that is good by itself, recent and frequent conversions first and everything seen
    before the unseen, so that a small log has little left to learn: a linear path, and an MLP that starts at
    zero.

    Args:
        width: hidden.
        tower_share: how much of the tower logit stays in the candidate's score.
    """

    def __init__(self, width: int, *, tower_share: float) -> None:
        super().__init__()
        self.tower_share = tower_share
        self.linear = nn.Linear(_NUM_FEATURES, 1)
        self.mlp = Mlp(_NUM_FEATURES + 1, hidden=width, width_out=1)
        for layer in (self.linear, self.mlp.to_output):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.linear.bias, _FIRST_OWN_LOGIT)
        with torch.no_grad():
            for name, weight in _FIRST_OWN_WEIGHTS.items():
                self.linear.weight[0, FEATURES.index(name)] = weight

    def forward(self, feature_MF: Tensor, tower_logit_M: Tensor) -> Tensor:
        """Return [M], to be added to the tower logit."""
        kept_M = self.tower_share * tower_logit_M
        inputs = torch.cat([feature_MF, _LOGIT_SCALE * kept_M[:, None]], dim=1)
        term_M1: Tensor = self.linear(feature_MF) + self.mlp(inputs)
        return term_M1[:, 0] + kept_M - tower_logit_M


def _start_as_identity(linear: nn.Linear, num_columns: int) -> None:
    nn.init.normal_(linear.weight, std=0.02)
    if num_columns:
        with torch.no_grad():
            linear.weight[:, :num_columns] = torch.eye(linear.out_features, num_columns)
