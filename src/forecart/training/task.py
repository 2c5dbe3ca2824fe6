"""One model to train: what it learns from, with which settings; builds the features, the rows, the trainer.

Takes sequences and settings; gives a `Trainer` and, after its run, the folder of a trained model.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import polars as pl

from forecart.model.settings import ModelSettings
from forecart.model.two_tower import TwoTower
from forecart.sequences.batches import BatchBuilder
from forecart.sequences.build import Sequences
from forecart.sequences.candidate_store import LARGE_CATALOGUE, CandidateStore, write_features
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
    build_stored_model,
    read_features,
    read_start,
    save_trained,
)

STORE: Final = "store"


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
    logs: Mapping[Level, PairLog]
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
        builder = self.builder
        if self.is_stored:
            builder = replace(builder, log=builder.log.with_seen_only())
        return prepare_examples(
            builder,
            level=self.level,
            contract=self.contract,
            settings=self.training,
            learn_until_us=self.learn_until_us,
            seed=self.seed,
        )

    @property
    def is_stored(self) -> bool:
        """Whether items are read from a store: so many that a number for each is felt, and nothing needs it.

        A full softmax scores all of them, a table of ids and a learned bias hold a row for each.
        """
        needs_all = self.model.id_embedding == "table" or self.model.prior == "learned"
        is_sampled_items = self.level == "item" and self.training.loss.kind == "sampled"
        return is_sampled_items and not needs_all and len(self.sequences.items) > LARGE_CATALOGUE

    def build_trainer(
        self,
        folder: Path,
        *,
        validate: Validate | None = None,
        on_step: Callable[[Progress], None] | None = None,
        on_epoch: Callable[[dict[str, Any]], None] | None = None,
    ) -> Trainer:
        """Returns a trainer of a new model; the arguments are those of `Trainer`."""
        store, model = self._build_model(folder)
        positive = self.examples.labels.candidate
        return Trainer(
            model,
            self.examples,
            Objective.build(self.training.loss, positive, model.num_candidates, is_sparse=self.is_stored),
            self.training,
            folder,
            self.seed,
            validate=validate,
            on_step=on_step,
            on_epoch=on_epoch,
            store=store,
        )

    def _build_model(self, folder: Path) -> tuple[CandidateStore | None, TwoTower]:
        if self.is_stored:
            store = write_features(
                folder / STORE, self.features.item, with_content=self.model.content != "none"
            )
            model = build_stored_model(
                store,
                self.features,
                settings=self.model,
                is_causal=self.builder.is_causal,
                seed=self.seed,
            )
            return store, model
        return None, build_model(
            self.features,
            level=self.level,
            settings=self.model,
            is_causal=self.builder.is_causal,
            seed=self.seed,
            start=read_start(self.logs[self.level], settings=self.model, learn_until_us=self.learn_until_us),
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
        # What is mapped stays readable; the features are saved beside the weights.
        shutil.rmtree(trainer.folder / STORE, ignore_errors=True)
