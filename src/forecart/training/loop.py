"""The training loop: forward, backward, step, average; a checkpoint now and then; a validation each epoch.

Takes a model, examples and an objective; gives averaged weights and the curve. Validation is injected as a
function of the model, so training knows no evaluation. Every step derives its randomness from the seed and
its own number, so a run that was killed and resumed ends with the same bits as one that was not (CPU).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from forecart.errors import ConfigError
from forecart.model.tensors import TowerBatch, to_tensors
from forecart.model.two_tower import TwoTower
from forecart.sequences.candidate_store import CandidateStore
from forecart.training.checkpoint import load_newest_checkpoint, save_checkpoint
from forecart.training.examples import Examples
from forecart.training.feed import Feed, derive_seed, negatives_generator
from forecart.training.objective import Objective
from forecart.training.settings import TrainingSettings
from forecart.training.state import EpochTotals, TrainingState

Validate = Callable[[TwoTower], dict[str, float]]
_SCALER_BATCHES = 4
_EARLY_STOP_METRIC = "recall_at_10"


@dataclass(frozen=True)
class Progress:
    """Where a run stands; handed to `on_step` after every step, which waited `waited_s` for its batch."""

    step: int
    num_steps: int
    epoch: int
    loss: float
    rows_per_s: float
    eta_s: float
    waited_s: float


@dataclass(frozen=True, eq=False)
class Trainer:
    """One training run, from its newest checkpoint if there is one.

    Attributes:
        model: trained in place; at the end it holds the averaged weights, the best ones with `patience`.
        examples: the rows.
        objective: the loss.
        settings: the schedule.
        folder: where checkpoints go; the last one stays, so that the weights are safe until they are saved
            elsewhere (then `remove_checkpoints`).
        seed: of negatives and dropout.
        validate: measures the averaged weights after each epoch; None skips it. With `patience` its
            `recall_at_10` says which epoch is the best.
        on_step: told of every step.
        on_epoch: told of every finished epoch's entry of the curve.
        store: of the items of a large catalogue, from which batches are read ahead (`Feed`).
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
    store: CandidateStore | None = None

    def run(self) -> list[dict[str, Any]]:
        """Trains to the end and returns the curve: an entry for each epoch.

        Raises:
            ConfigError: the loss is not a number any more.
        """
        device = pick_device(self.settings)
        self.model.to(device)
        self.model.tower_dtype = pick_tower_dtype(self.settings, device)
        state = TrainingState(self.model, self.settings)
        checkpoint = load_newest_checkpoint(self.folder)
        if checkpoint is None:
            self._fit_scaler(device)
        else:
            state.restore(checkpoint)
        while state.step < self.num_steps and not self._is_stopped(state.curve):
            self._run_epoch(state, device)
        state.leave_final_weights()
        return state.curve

    @cached_property
    def num_steps(self) -> int:
        """Of the whole run, should it not stop early."""
        return self._steps_per_epoch * self.settings.num_epochs

    @cached_property
    def _steps_per_epoch(self) -> int:
        return self.examples.steps_per_epoch

    def _run_epoch(self, state: TrainingState, device: torch.device) -> None:
        """Runs what is left of the present epoch."""
        epoch = state.step // self._steps_per_epoch
        feed = Feed(self.examples, self.objective, device, self.seed, self.store)
        before = asked = time.perf_counter()
        for batch in feed.batches(state.step, steps_per_epoch=self._steps_per_epoch):
            waited_s = time.perf_counter() - asked
            loss = self.take_step(state, batch)
            now = time.perf_counter()
            state.totals.add(loss=loss, num_rows=batch.num_rows, elapsed_s=now - before)
            before = now
            self._tell_step(state, loss, waited_s)
            is_due = state.step % self.settings.checkpoint_every_steps == 0
            if is_due and state.step % self._steps_per_epoch:
                save_checkpoint(self.folder, state.to_checkpoint())
            asked = time.perf_counter()
        self._finish_epoch(state, epoch)
        save_checkpoint(self.folder, state.to_checkpoint())

    def take_step(self, state: TrainingState, batch: TowerBatch) -> float:
        """Takes one step and returns its loss.

        Raises:
            ConfigError: the loss is not a number any more.
        """
        torch.manual_seed(derive_seed(self.seed, state.step))
        generator = negatives_generator(self.seed, state.step)
        for group in state.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * self._schedule(state.step)
        self.model.train()
        loss = self.objective(self.model, batch, generator=generator)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_gradient_norm)
        state.optimizer.step()
        state.step += 1
        state.average()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ConfigError(
                f"the loss must be a finite number, step {state.step} gave {value}: lower the learning rate"
            )
        return value

    def _schedule(self, step: int) -> float:
        """Linear warm-up, then a cosine down to two percent."""
        warmup = min(1.0, (step + 1) / max(self.settings.warmup_steps, 1))
        return warmup * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / self.num_steps)))

    def _tell_step(self, state: TrainingState, loss: float, waited_s: float) -> None:
        if self.on_step is None:
            return
        totals = state.totals
        self.on_step(
            Progress(
                step=state.step,
                num_steps=self.num_steps,
                epoch=(state.step - 1) // self._steps_per_epoch + 1,
                loss=loss,
                rows_per_s=totals.rows_per_s,
                eta_s=(self.num_steps - state.step) * totals.elapsed_s / totals.num_steps,
                waited_s=waited_s,
            )
        )

    def _finish_epoch(self, state: TrainingState, epoch: int) -> None:
        totals = state.totals
        entry: dict[str, Any] = {
            "epoch": epoch + 1,
            "step": state.step,
            "loss": totals.loss / totals.num_steps,
            "elapsed_s": totals.elapsed_s,
            "rows_per_s": totals.rows_per_s,
        }
        if self.validate is not None:
            with state.averaged_weights() as model:
                entry["validation"] = self.validate(model)
        state.curve.append(entry)
        state.totals = EpochTotals()
        if self._epochs_since_best(state.curve) == 0:
            state.keep_best()
        if self.on_epoch is not None:
            self.on_epoch(entry)

    def _is_stopped(self, curve: list[dict[str, Any]]) -> bool:
        since_best = self._epochs_since_best(curve)
        return since_best is not None and since_best >= self.settings.patience

    def _epochs_since_best(self, curve: list[dict[str, Any]]) -> int | None:
        """How many epochs ago the best one ended; None where there is nothing to tell by, or no patience."""
        if not self.settings.patience or self.validate is None or not curve:
            return None
        return len(curve) - 1 - curve.index(kept_entry(curve, self.settings))

    def _fit_scaler(self, device: torch.device) -> None:
        batches = islice(self.examples.batches(0), _SCALER_BATCHES)
        features = [to_tensors(batch, device).own_feature_MF for batch in batches]
        self.model.scaler.fit(torch.cat(features))


def kept_entry(curve: list[dict[str, Any]], settings: TrainingSettings) -> dict[str, Any]:
    """Returns the entry of a curve whose weights training keeps: the best with `patience`, else the last."""
    if not settings.patience or "validation" not in curve[-1]:
        return curve[-1]
    return max(curve, key=lambda entry: entry["validation"][_EARLY_STOP_METRIC])


def pick_device(settings: TrainingSettings) -> torch.device:
    """Returns the device that the settings name, or CUDA where there is one."""
    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(settings.device)


def pick_tower_dtype(settings: TrainingSettings, device: torch.device) -> torch.dtype:
    """Returns bfloat16 where it is asked for, or where the hardware multiplies it fast."""
    if settings.precision != "auto":
        return torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
    # The CPU gains from bfloat16 only with large widths: at width 64 the casts cost more than they save.
    is_fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if is_fast else torch.float32
