"""The user tower, the candidate tower and the own-history term: each one idea, composed by `TwoTower`.

Takes states, static features and own statistics; gives unit vectors to compare by cosine, and the part of
the score that comes from the user's own history. Advertisers and items share the candidate tower: which one
it is depends on the features it is given.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forecart.model.event_encoder import ID_SCALE
from forecart.model.layers import HashedEmbedding, Mlp
from forecart.sequences.own_history import FEATURES

_NUM_FEATURES: Final = len(FEATURES)
_GATE_WIDTH: Final = 16
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
        """Set mean and standard deviation from a sample of training rows; an empty sample changes nothing."""
        if len(feature_MF):
            self.mean_F.copy_(feature_MF.double().mean(0))
            self.scale_F.copy_(feature_MF.double().std(0, correction=0).clamp(min=1e-3))

    def forward(self, feature_MF: Tensor) -> Tensor:
        """Return [M, F] standardised, clipped to ten deviations."""
        return ((feature_MF - self.mean_F) / self.scale_F).clamp(-10, 10)


class CandidateTower(nn.Module):
    """Static features (and a hashed id) -> unit vector: a linear path and an MLP that starts at zero.

    The linear path starts as the identity on the co-conversion vectors, so that an untrained tower already
    puts together what is bought together.

    Args:
        static_NF: static features of all candidates, a buffer that is not saved.
        num_collaborative: how many of the first columns are the co-conversion vector.
        width: D.
        id_rows: rows of the hashed id table; 0 for none.
        feature_dropout: share of candidates whose co-conversion vector is hidden in training.
    """

    static_NF: Tensor

    def __init__(
        self,
        static_NF: Tensor,
        *,
        num_collaborative: int,
        width: int,
        id_rows: int,
        feature_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer("static_NF", static_NF, persistent=False)
        self.num_collaborative = num_collaborative
        self.feature_dropout = feature_dropout
        num_features = static_NF.shape[1]
        self.linear = nn.Linear(num_features, width, bias=False)
        self.mlp = Mlp(num_features, hidden=2 * width, width_out=width)
        self.id = HashedEmbedding(id_rows, width) if id_rows else None
        _start_as_identity(self.linear, num_collaborative)
        nn.init.zeros_(self.mlp.to_output.weight)
        nn.init.zeros_(self.mlp.to_output.bias)

    def forward(self, index_N: Tensor) -> Tensor:
        """Return unit vectors [N, D] of these candidates; any shape of indices in one dimension."""
        static_NF = self._hide(self.static_NF[index_N])
        x_ND: Tensor = self.linear(static_NF) + self.mlp(static_NF)
        if self.id is not None:
            x_ND = x_ND + ID_SCALE * self.id(index_N)
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
    statistics.
    """

    static_NF: Tensor

    def __init__(self, static_NF: Tensor, *, num_collaborative: int, width: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("static_NF", static_NF, persistent=False)
        self.gate = Mlp(_NUM_FEATURES, hidden=_GATE_WIDTH, width_out=1)
        self.linear = nn.Linear(static_NF.shape[1], width, bias=False)
        self.dropout = nn.Dropout(dropout)
        _start_as_identity(self.linear, num_collaborative)

    def forward(
        self, feature_MF: Tensor, mass_M: Tensor, row_M: Tensor, candidate_M: Tensor, num_rows: int
    ) -> Tensor:
        """Return [B, D]; zeros for a row without history."""
        weight_M = self.dropout(F.softplus(self.gate(feature_MF)[:, 0]) * mass_M)
        weighted_MF = weight_M[:, None] * self.static_NF[candidate_M]
        summed_BF = weighted_MF.new_zeros(num_rows, weighted_MF.shape[1]).index_add(0, row_M, weighted_MF)
        square_B = weight_M.new_zeros(num_rows).index_add(0, row_M, weight_M.square())
        out_BD: Tensor = self.linear(summed_BF) / (square_B + 1e-6).sqrt()[:, None]
        return out_BD


class OwnHistoryTerm(nn.Module):
    """The learned logit of a candidate of the user's own history, from its statistics and its tower logit.

    Args:
        width: hidden.
        tower_share: how much of the tower logit stays in the candidate's score.
    """

    def __init__(self, width: int, *, tower_share: float) -> None:
        super().__init__()
        self.tower_share = tower_share
        self.mlp = Mlp(_NUM_FEATURES + 1, hidden=width, width_out=1)

    def forward(self, feature_MF: Tensor, tower_logit_M: Tensor) -> Tensor:
        """Return [M], to be added to the tower logit."""
        kept_M = self.tower_share * tower_logit_M
        inputs = torch.cat([feature_MF, _LOGIT_SCALE * kept_M[:, None]], dim=1)
        return self.mlp(inputs)[:, 0] + kept_M - tower_logit_M


def _start_as_identity(linear: nn.Linear, num_columns: int) -> None:
    nn.init.normal_(linear.weight, std=0.02)
    if num_columns:
        with torch.no_grad():
            linear.weight[:, :num_columns] = torch.eye(linear.out_features, num_columns)
