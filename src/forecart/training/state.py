"""What changes while a model trains: weights, their average, the best of them, the optimiser, the curve.

Takes a model and settings; gives checkpoints and is restored from them. Everything that a next step depends
on is here and in a checkpoint, but for the random numbers, which follow from the seed and the step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from forecart.model.two_tower import TwoTower
from forecart.training.checkpoint import Checkpoint
from forecart.training.settings import TrainingSettings

Weights = dict[str, Tensor]
# Early steps count less in the average than `average_decay` says, or it would remember the first weights.
_AVERAGE_WARMUP_STEPS = 10


@dataclass
class EpochTotals:
    """Sums over the steps of the epoch so far."""

    num_steps: int = 0
    num_rows: int = 0
    loss: float = 0.0
    elapsed_s: float = 0.0

    def add(self, *, loss: float, num_rows: int, elapsed_s: float) -> None:
        """Counts one more step."""
        self.num_steps += 1
        self.num_rows += num_rows
        self.loss += loss
        self.elapsed_s += elapsed_s

    @property
    def rows_per_s(self) -> float:
        """Throughput of the epoch so far."""
        return self.num_rows / max(self.elapsed_s, 1e-9)


class TrainingState:
    """One model in training.

    Attributes:
        model: trained in place.
        optimizer: AdamW over its weights.
        step: finished steps.
        totals: of the unfinished epoch.
        curve: an entry for each finished epoch.
    """

    def __init__(self, model: TwoTower, settings: TrainingSettings) -> None:
        self.model = model
        self.optimizer = _build_optimizer(model, settings)
        self.step = 0
        self.totals = EpochTotals()
        self.curve: list[dict[str, Any]] = []
        self._average_decay = settings.average_decay
        self._averaged = self._copy_weights()
        self._best: Weights = {}

    def average(self) -> None:
        """Moves the averaged weights towards the present ones; the step must be counted already."""
        decay = min(self._average_decay, self.step / (self.step + _AVERAGE_WARMUP_STEPS))
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                self._averaged[name].lerp_(value, 1 - decay)

    @contextmanager
    def averaged_weights(self) -> Iterator[TwoTower]:
        """Lends the model with the averaged weights in it; afterwards it has its own again."""
        present = self._copy_weights()
        self._put_into_model(self._averaged)
        try:
            yield self.model
        finally:
            self._put_into_model(present)

    def keep_best(self) -> None:
        """Remembers the averaged weights as the best so far."""
        self._best = {name: value.clone() for name, value in self._averaged.items()}

    def leave_final_weights(self) -> None:
        """Puts the best weights into the model, or the averaged ones where no best was kept."""
        self._put_into_model(self._best or self._averaged)

    def to_checkpoint(self) -> Checkpoint:
        """Returns everything that a later process needs to go on."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"averaged.{name}": value for name, value in self._averaged.items()}
        tensors |= {f"best.{name}": value for name, value in self._best.items()}
        for at, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{at}.{name}": value for name, value in state.items()}
        return Checkpoint(self.step, tensors, {"curve": self.curve, "totals": asdict(self.totals)})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes back to where a checkpoint was taken."""
        device = self.model.prior.device
        tensors = {name: value.to(device) for name, value in checkpoint.tensors.items()}
        self.model.load_state_dict(_below(tensors, "model."))
        self._averaged, self._best = _below(tensors, "averaged."), _below(tensors, "best.")
        optimizer_state: dict[int, Weights] = {}
        for name, value in _below(tensors, "optimizer.").items():
            at, _, key = name.partition(".")
            optimizer_state.setdefault(int(at), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": optimizer_state})
        self.step, self.curve = checkpoint.step, checkpoint.facts["curve"]
        self.totals = EpochTotals(**checkpoint.facts["totals"])

    def _copy_weights(self) -> Weights:
        return {name: value.detach().clone() for name, value in self.model.named_parameters()}

    def _put_into_model(self, weights: Weights) -> None:
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                value.copy_(weights[name])


def _build_optimizer(model: TwoTower, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Matrices decay, but not those of the own-history term, whose few weights carry most of the score.

    `peak_lr` of a group is what the schedule is a share of.
    """
    own, matrices, others = list[Tensor](), list[Tensor](), list[Tensor]()
    for name, value in model.named_parameters():
        (own if name.startswith("own.") else matrices if value.ndim > 1 else others).append(value)
    rate, own_rate = settings.learning_rate, settings.learning_rate * settings.own_rate_factor
    groups: list[dict[str, Any]] = [
        {"params": own, "peak_lr": own_rate, "weight_decay": 0.0},
        {"params": matrices, "peak_lr": rate, "weight_decay": settings.weight_decay},
        {"params": others, "peak_lr": rate, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, fused=True)


def _below(tensors: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
