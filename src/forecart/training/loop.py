"""The training loop: forward, backward, step, average; a checkpoint now and then; a validation each epoch.

Takes a model, examples and an objective; gives averaged weights and the curve. Validation is injected as a
function of the model, so training knows no evaluation. Every step derives its randomness from the seed and
its own number, so a run that was killed and resumed ends with the same bits as one that was not (CPU).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forecart.model.tensors import to_tensors
from forecart.model.two_tower import TwoTower
from forecart.training.checkpoint import (
    Checkpoint,
    load_newest_checkpoint,
    remove_checkpoints,
    save_checkpoint,
)
from forecart.training.examples import Examples
from forecart.training.objective import Objective
from forecart.training.settings import TrainingSettings

Validate = Callable[[TwoTower], dict[str, float]]
_SCALER_BATCHES = 4
_EARLY_STOP_METRIC = "recall_at_10"


@dataclass(frozen=True)
class Progress:
    """Where a run stands; handed to `on_step` after every step."""

    step: int
    num_steps: int
    epoch: int
    loss: float
    rows_per_s: float
    eta_s: float


@dataclass
class Trainer:
    """One training run.

    Attributes:
        model: trained in place; at the end it holds the averaged weights.
        examples: the rows.
        objective: the loss.
        settings: the schedule.
        folder: where checkpoints go.
        seed: of negatives and dropout.
        validate: measures the averaged weights after each epoch; None skips it.
        on_step: told of every step.
        on_epoch: told of every finished epoch's entry of the curve.
    """

    model: TwoTower
    examples: Examples
    objective: Objective
    settings: TrainingSettings
    folder: Path
    seed: int
    validate: Validate | None = None
    on_step: Callable[[Progress], None] | None = None
    on_epoch: Callable[[dict[str, Any]], None] | None = None
    curve: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.device = pick_device(self.settings)
        self.precision = pick_precision(self.settings, self.device)
        self.model.to(self.device)
        self.optimizer = _build_optimizer(self.model, self.settings)
        self.averaged = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        self.steps_per_epoch = self.examples.steps_per_epoch
        self.num_steps = self.steps_per_epoch * self.settings.num_epochs
        self._best: dict[str, Tensor] | None = None

    def run(self) -> list[dict[str, Any]]:
        """Trains to the end, from the newest checkpoint if there is one, and returns the curve."""
        step = self._resume()
        while step < self.num_steps and not self._is_stopped():
            step = self._run_epoch(step)
        self._load_weights(self.averaged if self._best is None else self._best)
        remove_checkpoints(self.folder)
        return self.curve

    def _run_epoch(self, step: int) -> int:
        epoch, done = divmod(step, self.steps_per_epoch)
        started, losses, num_rows = time.perf_counter(), [], 0
        for batch in self.examples.batches(epoch, first=done):
            losses.append(self._step(step, to_tensors(batch, self.device)))
            step, num_rows = step + 1, num_rows + len(batch)
            rows_per_s = num_rows / max(time.perf_counter() - started, 1e-9)
            if self.on_step is not None:
                eta_s = (self.num_steps - step) * (time.perf_counter() - started) / len(losses)
                self.on_step(Progress(step, self.num_steps, epoch + 1, losses[-1], rows_per_s, eta_s))
            if step % self.settings.checkpoint_every_steps == 0 and step % self.steps_per_epoch:
                self._save(step)
        self._finish_epoch(step, epoch, losses, time.perf_counter() - started, rows_per_s)
        self._save(step)
        return step

    def _step(self, step: int, batch: Any) -> float:
        seed = derive_seed(self.seed, step)
        torch.manual_seed(seed)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * self._schedule(step)
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            loss = self.objective(self.model, batch, generator=torch.Generator().manual_seed(seed))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_gradient_norm)
        self.optimizer.step()
        self._average(step)
        return float(loss.detach())

    def _schedule(self, step: int) -> float:
        """Linear warm-up, then a cosine down to two percent."""
        warmup = min(1.0, (step + 1) / max(self.settings.warmup_steps, 1))
        return warmup * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / max(self.num_steps, 1))))

    def _average(self, step: int) -> None:
        decay = min(self.settings.average_decay, (step + 1) / (step + 11))
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                self.averaged[name].lerp_(value, 1 - decay)

    def _finish_epoch(
        self, step: int, epoch: int, losses: list[float], elapsed_s: float, rows_per_s: float
    ) -> None:
        entry: dict[str, Any] = {
            "epoch": epoch + 1,
            "step": step,
            "loss": sum(losses) / len(losses),
            "elapsed_s": elapsed_s,
            "rows_per_s": rows_per_s,
        }
        if self.validate is not None:
            entry["validation"] = self._validate_averaged()
        self.curve.append(entry)
        if self._is_best():
            self._best = {name: value.clone() for name, value in self.averaged.items()}
        if self.on_epoch is not None:
            self.on_epoch(entry)

    def _validate_averaged(self) -> dict[str, float]:
        assert self.validate is not None
        weights = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        self._load_weights(self.averaged)
        measures = self.validate(self.model)
        self._load_weights(weights)
        return measures

    def _is_best(self) -> bool:
        if self.validate is None or not self.settings.patience:
            return False
        values = [entry["validation"][_EARLY_STOP_METRIC] for entry in self.curve]
        return bool(values[-1] == max(values))

    def _is_stopped(self) -> bool:
        if not self.settings.patience or self.validate is None or not self.curve:
            return False
        values = [entry["validation"][_EARLY_STOP_METRIC] for entry in self.curve]
        return len(values) - 1 - values.index(max(values)) >= self.settings.patience

    def _load_weights(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                value.copy_(weights[name])

    def _save(self, step: int) -> None:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"averaged.{name}": value for name, value in self.averaged.items()}
        tensors |= {f"best.{name}": value for name, value in (self._best or {}).items()}
        for at, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{at}.{name}": value for name, value in state.items()}
        save_checkpoint(self.folder, Checkpoint(step, tensors, {"curve": self.curve}))

    def _resume(self) -> int:
        checkpoint = load_newest_checkpoint(self.folder)
        if checkpoint is None:
            self._fit_scaler()
            return 0
        tensors = checkpoint.tensors
        self.model.load_state_dict(_below(tensors, "model."))
        self.averaged = {name: value.to(self.device) for name, value in _below(tensors, "averaged.").items()}
        self._best = _below(tensors, "best.") or None
        self.optimizer.load_state_dict(
            {**self.optimizer.state_dict(), "state": _optimizer_state(_below(tensors, "optimizer."))}
        )
        self.curve = checkpoint.facts["curve"]
        return checkpoint.step

    def _fit_scaler(self) -> None:
        rows = self.examples.order(0)[:_SCALER_BATCHES]
        features = [to_tensors(self.examples.batch(at), self.device).own_feature_MF for at in rows]
        self.model.scaler.fit(torch.cat(features))


def derive_seed(seed: int, step: int) -> int:
    """Returns the seed of one step: the same for the same (seed, step), far apart for neighbours."""
    return ((seed + 1) * 0x9E3779B97F4A7C15 + (step + 1) * 0xBF58476D1CE4E5B9) % (1 << 63)


def pick_device(settings: TrainingSettings) -> torch.device:
    """Returns the device that the settings name, or CUDA where there is one."""
    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(settings.device)


def pick_precision(settings: TrainingSettings, device: torch.device) -> str:
    """Returns bfloat16 where it is asked for, or where the hardware multiplies it fast."""
    if settings.precision != "auto":
        return settings.precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    # The CPU gains from bfloat16 only with large widths: at width 64 the casts cost more than they save.
    return "float32"


def _build_optimizer(model: TwoTower, settings: TrainingSettings) -> torch.optim.Optimizer:
    named = list(model.named_parameters())
    decayed = [value for name, value in named if value.ndim > 1 and not name.startswith("own.")]
    other = [value for name, value in named if value.ndim <= 1 or name.startswith("own.")]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": other, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _optimizer_state(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        at, _, key = name.partition(".")
        state.setdefault(int(at), {})[key] = value
    return state
