"""One model to train: what it learns from, with which settings; builds the features, the rows, the trainer.

Takes sequences and settings; gives a `Trainer` and, after its run, the folder of a trained model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from forecart.model.settings import ModelSettings
from forecart.sequences.batches import BatchBuilder
from forecart.sequences.build import Sequences
from forecart.sequences.pair_log import PairLog
from forecart.sequences.split import LabelContract, Level
from forecart.training.examples import Examples
from forecart.training.loop import Progress, Trainer, Validate
from forecart.training.objective import Objective
from forecart.training.prepare import prepare_examples
from forecart.training.settings import TrainingSettings
from forecart.training.trained_model import (
    LevelFeatures,
    build_model,
    read_features,
    read_start,
    save_trained,
)


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """What one model is trained on.

    Attributes:
        sequences: all of them; nothing that arrived at `learn_until_us` or later is read.
        catalogue: of the events stage.
        logs: events by pair of both levels.
        builder: of the model's batches.
        level: of the candidates.
        contract: of the labels.
        model: the architecture.
        training: the schedule.
        learn_until_us: microseconds since the epoch.
        seed: of weights, order, negatives and dropout.
        feature_seed: of the static features, the same for every seed of a run.
    """

    sequences: Sequences
    catalogue: pl.DataFrame
    logs: dict[Level, PairLog]
    builder: BatchBuilder
    level: Level
    contract: LabelContract
    model: ModelSettings
    training: TrainingSettings
    learn_until_us: int
    seed: int
    feature_seed: int

    @cached_property
    def features(self) -> LevelFeatures:
        """Static features of both levels."""
        return read_features(
            self.sequences,
            self.catalogue,
            logs=self.logs,
            settings=self.model,
            learn_until_us=self.learn_until_us,
            seed=self.feature_seed,
        )

    @cached_property
    def examples(self) -> Examples:
        """The training rows."""
        return prepare_examples(
            self.builder,
            level=self.level,
            contract=self.contract,
            settings=self.training,
            learn_until_us=self.learn_until_us,
            seed=self.seed,
        )

    def build_trainer(
        self,
        folder: Path,
        *,
        validate: Validate | None = None,
        on_step: Callable[[Progress], None] | None = None,
        on_epoch: Callable[[dict[str, Any]], None] | None = None,
    ) -> Trainer:
        """Returns a trainer of a new model; the arguments are those of `Trainer`."""
        model = build_model(
            self.features,
            level=self.level,
            settings=self.model,
            is_causal=self.builder.is_causal,
            seed=self.seed,
            start=read_start(self.logs[self.level], settings=self.model, learn_until_us=self.learn_until_us),
        )
        positive = self.examples.labels.candidate
        return Trainer(
            model,
            self.examples,
            Objective.build(self.training.loss, positive, model.num_candidates),
            self.training,
            folder,
            self.seed,
            validate=validate,
            on_step=on_step,
            on_epoch=on_epoch,
        )

    def save(self, trainer: Trainer, folder: Path) -> None:
        """Writes the trained model; the caller marks the folder complete."""
        save_trained(
            folder,
            trainer.model.cpu(),
            features=self.features,
            level=self.level,
            is_causal=self.builder.is_causal,
        )
