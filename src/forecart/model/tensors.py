"""A batch as tensors on one device: what the towers and the training step read.

Takes a `sequences.Batch`; gives the same arrays as tensors. The only place where numpy becomes torch.
"""

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from forecart.model.negatives import DrawnNegatives
from forecart.sequences.batches import Batch
from forecart.sequences.own_history import FEATURES

_MASS = [FEATURES.index(name) for name in ("log_rows", "log_intents", "log_views")]


@dataclass(frozen=True)
class CandidateRows:
    """The items of a large catalogue that a batch names or draws: its candidates are numbered among them.

    Attributes:
        index_N: int64, ascending, padding and unknown first: the index of each in the catalogue.
        static_NF: float32.
        advertiser_N: int64.
        drawn: the negatives; of the pool too the candidates are numbered among these.
    """

    index_N: Tensor
    static_NF: Tensor
    advertiser_N: Tensor
    drawn: DrawnNegatives


@dataclass(frozen=True)
class TowerBatch:
    """B rows over S histories with T events in all, M own pairs, N candidates, P positives.

    Attributes:
        offsets: int64 [S + 1].
        advertiser_T: int64.
        item_T: int64.
        event_type_T: int64.
        log_price_T: float32.
        time_TF: float32.
        position_T: int64.
        history_B: int64.
        last_event_B: int64, -1 for an empty history.
        own_row_M: int64.
        own_candidate_M: int64.
        own_feature_MF: float32, not standardised; F is 0 where the model reads no feature.
        own_mass_M: float32, log counts of the pair's events: how much it weighs in the summary; without
            features nothing.
        log_share_NS: float32.
        positive_row_P: int64, empty without labels; the next four too.
        positive_P: int64.
        weight_P: float32.
        future_row_H: int64.
        future_H: int64.
        is_in_window_H: bool.
        rows: the N candidates when they are not the whole catalogue; None when they are.
    """

    offsets: Tensor
    advertiser_T: Tensor
    item_T: Tensor
    event_type_T: Tensor
    log_price_T: Tensor
    time_TF: Tensor
    position_T: Tensor
    history_B: Tensor
    last_event_B: Tensor
    own_row_M: Tensor
    own_candidate_M: Tensor
    own_feature_MF: Tensor
    own_mass_M: Tensor
    log_share_NS: Tensor
    positive_row_P: Tensor
    positive_P: Tensor
    weight_P: Tensor
    future_row_H: Tensor
    future_H: Tensor
    is_in_window_H: Tensor
    rows: CandidateRows | None = None

    @property
    def num_rows(self) -> int:
        """B."""
        return len(self.history_B)

    @property
    def num_candidates(self) -> int:
        """N, padding and unknown included."""
        return len(self.log_share_NS)


def to_tensors(batch: Batch, device: torch.device) -> TowerBatch:
    """Returns the batch on `device`."""

    def index(array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array.astype("int64", copy=False)).to(device, non_blocking=True)

    def number(array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array.astype("float32", copy=False)).to(device, non_blocking=True)

    events, own, positives = batch.events, batch.own, batch.positives
    nothing = torch.zeros(0, dtype=torch.int64, device=device)
    mass = own.feature[:, _MASS] if own.feature.shape[1] else own.feature
    return TowerBatch(
        offsets=index(events.offsets),
        advertiser_T=index(events.advertiser),
        item_T=index(events.item),
        event_type_T=index(events.event_type),
        log_price_T=number(events.log_price),
        time_TF=number(events.time),
        position_T=index(events.position),
        history_B=index(batch.history),
        last_event_B=index(batch.last_event),
        own_row_M=index(own.row),
        own_candidate_M=index(own.candidate),
        own_feature_MF=number(own.feature),
        own_mass_M=number(mass.sum(axis=1)),
        log_share_NS=number(batch.log_share),
        positive_row_P=nothing if positives is None else index(positives.row),
        positive_P=nothing if positives is None else index(positives.candidate),
        weight_P=nothing.float() if positives is None else number(positives.weight),
        future_row_H=nothing if positives is None else index(positives.future_row),
        future_H=nothing if positives is None else index(positives.future_candidate),
        is_in_window_H=nothing.bool() if positives is None else index(positives.is_in_window).bool(),
    )
