"""What the stages of a run are made from: what earlier ones left in its folder, opened when asked for.

Takes a configuration and a folder; writes nothing. A worker opens the same in a process of its own.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from forecart import artifacts
from forecart.config import RunConfig, to_us
from forecart.errors import ArtifactError
from forecart.evaluation.targets import MODEL, RERANKED, TargetData
from forecart.events.ingest import CATALOGUE_FILE
from forecart.retrieval.candidates import CandidateTask, Listing
from forecart.retrieval.eligibility import read_eligibility
from forecart.retrieval.scorer import ModelScorer
from forecart.run_mirror import LocalRun
from forecart.run_plan import RunPlan
from forecart.sequences.batches import BatchBuilder
from forecart.sequences.build import Sequences
from forecart.sequences.split import DAY_US, ID_COLUMN, Level
from forecart.sequences.successors import SuccessorTerm
from forecart.training.prepare import PairLogs
from forecart.training.task import TrainingTask
from forecart.training.trained_model import load_trained


class RunInputs:
    """What there is of a run.

    Attributes:
        config: of the run.
        folder: of the run.
        day_folder: where the sequences are: a day (`daily.py`) has its own, and the models of its run.
        plan: what each stage follows from.
        mirror: where the run is kept, if that is not where it is worked on.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        *,
        day_folder: Path | None = None,
        mirror: LocalRun | None = None,
    ) -> None:
        self.config = config
        self.mirror = mirror or LocalRun()
        self.folder = folder
        self.day_folder = day_folder or folder
        self.plan = RunPlan(config, folder)

    @cached_property
    def data(self) -> Sequences:
        """The finished sequences."""
        self.mirror.bring("sequences")
        return Sequences.load(self.day_folder / "sequences")

    @cached_property
    def catalogue(self) -> pl.DataFrame:
        """The catalogue of the events stage."""
        self.mirror.bring("events")
        return pl.read_parquet(self.folder / "events" / CATALOGUE_FILE)

    @cached_property
    def pair_logs(self) -> PairLogs:
        """Events by pair of both levels."""
        return PairLogs(self.data, self.config.labels)

    def target_data(self, level: Level, cuts_us: list[int]) -> TargetData:
        """Returns what a level is measured on."""
        return TargetData(
            self.data,
            level,
            self.config.labels,
            cuts_us,
            self.config.learn_until_us,
            self.config.evaluation.with_prior_only,
        )

    def scorer(self, level: Level, system: str = MODEL, seed_number: int = 0) -> ModelScorer:
        """Returns a trained model of this run as a scorer."""
        folder = self.plan.model_folder(level, system, seed_number)
        if not (folder / artifacts.MANIFEST).exists():
            raise ArtifactError(
                f"{folder} must hold a trained model, it does not: run `forecart train` first"
            )
        model = load_trained(folder, self.data)
        return ModelScorer(system, model, self.builder(level), self.successors.get(level))

    @cached_property
    def successors(self) -> dict[Level, SuccessorTerm]:
        """The successor terms of the levels whose score has one; they know what the weights know."""
        successor_settings = {level: self.config.target(level).successors for level in self.config.levels}
        return {
            level: SuccessorTerm.build(
                self.pair_logs[level], learn_until_us=self.config.learn_until_us, settings=settings
            )
            for level, settings in successor_settings.items()
            if settings.weight
        }

    def listing_scorer(self, level: Level) -> ModelScorer:
        """Returns the served model with the lists that are written: by score, or chosen anew by a rule."""
        scorer, rule = self.scorer(level), self.config.target(level).rerank.rule
        return scorer if rule is None else replace(scorer, name=RERANKED, rerank=rule)

    def scorers(self, level: Level) -> list[ModelScorer]:
        """Returns every trained model of a level, by system and seed."""
        return [self.scorer(level, *one) for one in self.plan.models(level)]

    def builder(self, level: Level, *, learns: bool = False) -> BatchBuilder:
        """Returns what builds the batches of a level's models, to learn from or to list by."""
        target = self.config.target(level)
        return BatchBuilder(
            self.data.histories,
            self.pair_logs[level],
            target.model.history_length,
            is_causal=target.training.objective == "dense_all_action",
            own_content=target.own_content(learns=learns),
        )

    def training_task(self, level: Level, system: str = MODEL, seed_number: int = 0) -> TrainingTask:
        """Returns what a model of this run is trained on."""
        target = self.plan.target(level, system)
        return TrainingTask(
            self.data,
            self.catalogue,
            self.pair_logs,
            self.builder(level, learns=True),
            level,
            self.config.labels,
            target.model,
            target.training,
            self.config.learn_until_us,
            seed=self.config.seed + seed_number,
            feature_seed=self.config.seed,
        )

    def candidate_task(self, level: Level) -> CandidateTask:
        """Returns what the lists of a level are made from."""
        as_of_us = self.candidates_as_of_us()
        return CandidateTask(
            scorer=self.listing_scorer(level),
            as_of_us=as_of_us,
            top_k=self.config.target(level).top_k,
            is_eligible=self.eligible_at(level, as_of_us),
            users=self.data.users,
            candidates=self.target_data(level, []).vocabulary,
            id_column=ID_COLUMN[level],
            block_users=self.config.candidates.block_users,
            user_country=self.data.user_country,
            label_window_us=self.config.labels.window_days * DAY_US,
        )

    def eligible_at(self, level: Level, as_of_us: int) -> npt.NDArray[np.bool_]:
        """Returns which candidates may be listed at a moment, [N]."""
        return read_eligibility(
            self.config.candidates.eligibility,
            sequences=self.data,
            catalogue=self.catalogue,
            advertiser_log=self.pair_logs["advertiser"],
            level=level,
            as_of_us=as_of_us,
        )

    def candidates_as_of_us(self) -> int:
        """Returns up to when the histories of the lists are read."""
        if (as_of := self.config.candidates.as_of) != "latest":
            return to_us(as_of)
        return self.data.histories.known_until_us(to_us(datetime.now(UTC)))


@dataclass(frozen=True)
class ReopenedRun:
    """Opens the lists of a level in a worker, from the folder of the run; after another training anew."""

    config: str
    folder: Path
    level: Level
    key: str

    def __call__(self) -> Listing:
        """Returns what is to be listed."""
        config = RunConfig.model_validate_json(self.config)
        return Listing(RunInputs(config, self.folder).candidate_task(self.level))
