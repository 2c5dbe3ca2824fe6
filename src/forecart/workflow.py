"""The stages of a run as a readable list: each skips what is complete and hands the next a folder.

Takes a configuration and a folder; leaves there everything of the run. Only this module knows the order of
the stages. A stage is complete when its manifest carries the key that `RunPlan` gives for it.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from forecart import artifacts
from forecart.baselines.standard import build_baselines
from forecart.config import RunConfig, to_us
from forecart.errors import ArtifactError
from forecart.evaluation.calibration import RELIABILITY, CalibrationTask, write_calibration
from forecart.evaluation.people import build_examples
from forecart.evaluation.report import render_report
from forecart.evaluation.targets import (
    MODEL,
    TargetData,
    measure_target,
    show_people,
    tabulate_target,
    validation_measures,
    write_target_lists,
)
from forecart.events.adapters import open_adapter
from forecart.events.ingest import CATALOGUE_FILE, ingest_events
from forecart.model.two_tower import TwoTower
from forecart.observe import Reporter, SilentReporter
from forecart.report_head import describe_run
from forecart.retrieval.candidate_files import PARTS, USER_VECTORS
from forecart.retrieval.candidates import CandidateTask, write_candidates
from forecart.retrieval.eligibility import read_eligibility
from forecart.retrieval.scorer import ModelScorer
from forecart.run_mirror import LocalRun
from forecart.run_plan import RunPlan
from forecart.sequences.batches import BatchBuilder
from forecart.sequences.build import Sequences, build_sequences
from forecart.sequences.pair_log import PairLog
from forecart.sequences.split import DAY_US, ID_COLUMN, PLURAL, SECTION, Level
from forecart.sequences.successors import SuccessorTerm
from forecart.training.checkpoint import remove_checkpoints
from forecart.training.curves import CurveWriter
from forecart.training.prepare import read_pair_logs
from forecart.training.task import TrainingTask
from forecart.training.trained_model import load_trained


class Workflow:
    """One run: a configuration, a folder, and the stages between them."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        *,
        reporter: Reporter | None = None,
        day_folder: Path | None = None,
        mirror: LocalRun | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        # Where the sequences are: a day (`daily.py`) has its own, and the models of its run.
        self.day_folder = day_folder or folder
        self.plan = RunPlan(config, folder)
        self.reporter = reporter or SilentReporter()
        self.mirror = mirror or LocalRun()

    def run(self) -> Path:
        """Runs every stage that is not complete and returns the path of the report."""
        self.learn()
        self.evaluate()
        self.calibrate()
        self.list_candidates()
        return self.report()

    def learn(self) -> None:
        """Runs the stages up to the trained models; a baseline that does not exist is told before them."""
        for level in self.config.levels:
            build_baselines(self.config.target(level).baselines)
        self.events()
        self.sequences()
        for level in self.config.levels:
            self.train(level)

    def list_candidates(self) -> None:
        """Lists the candidates of every enabled level."""
        for level in self.config.levels:
            self.candidates(level)

    # --- the stages -----------------------------------------------------------------------------------

    def events(self) -> dict[str, Any]:
        """Reads the log into the event store and notes the configuration of what is there."""
        folder, key = self.folder / "events", self.plan.events_key()
        with self._stage("events", folder, key) as is_needed:
            if is_needed:
                ingest_events(
                    open_adapter(self.config.source),
                    folder,
                    config=self.config.events,
                    key=key,
                    report=lambda rows: self.reporter.progress("reading events", rows, None),
                )
        artifacts.write_json(self.folder / artifacts.CONFIG, self.config.model_dump(mode="json"))
        self.mirror.push_file(artifacts.CONFIG)
        return dict(artifacts.read_json(folder / artifacts.MANIFEST))

    def sequences(self) -> None:
        """Builds vocabularies and histories."""
        events, folder = self.folder / "events", self.folder / "sequences"
        with self._stage("sequences", folder, self.plan.sequences_key()) as is_needed:
            if is_needed:
                build_sequences(events, folder, read_until_us=self.config.read_until_us)

    def train(self, level: Level) -> None:
        """Trains the models of a level: one per seed, and the same without the encoder when asked for."""
        for system, seed_number in self.plan.models(level):
            self._train_one(level, system, seed_number)

    def evaluate(self) -> None:
        """Measures every target at the test cuts and writes report.json and the lists behind it."""
        if not self.config.split.test_cuts:
            return
        folder, key = self.folder / "evaluation", self.plan.evaluation_key()
        with self._stage("evaluation", folder, key) as is_needed:
            if is_needed:
                artifacts.begin_stage(folder, key, resumable="*.*")
                report = describe_run(self.config, self.folder, self.plan)
                people: dict[str, dict[str, Any]] = {}
                for level in self.config.levels:
                    report[SECTION[level]], people[PLURAL[level]] = self._evaluate_level(level, folder)
                report["examples"] = build_examples(
                    self.folder / "events", people, cut=min(self.config.split.test_cuts)
                )
                artifacts.write_json(folder / "report.json", report)
                artifacts.complete_stage(folder, key, {})

    def calibrate(self) -> None:
        """Fits what a score says of a conversion on the window after what is learned; later cuts test it."""
        folder = self.folder / "calibration"
        if self.config.learn_until_us + self.config.labels.span_us > self._candidates_as_of_us():
            shutil.rmtree(folder, ignore_errors=True)  # what an earlier configuration left is of other models
            self.reporter.say("no calibration: the label window after what is learned is not over")
            return
        key = self.plan.calibration_key()
        with self._stage("calibration", folder, key) as is_needed:
            if is_needed:
                artifacts.begin_stage(folder, key, resumable="*.json")
                write_calibration(
                    folder, {level: self._calibration_task(level) for level in self.config.levels}
                )
                models = {PLURAL[level]: self.plan.model_key(level) for level in self.config.levels}
                artifacts.complete_stage(folder, key, {"model_keys": models})

    def candidates(self, level: Level) -> None:
        """Lists the top candidates of every user as of `candidates.as_of`."""
        folder, key = self.folder / "candidates" / PLURAL[level], self.plan.candidates_key(level)
        with self._stage(f"candidates: {PLURAL[level]}", folder, key, has_pieces=True) as is_needed:
            if is_needed:
                artifacts.begin_stage(folder, key, resumable="part-*.parquet")
                facts = write_candidates(
                    self.candidate_task(level),
                    folder,
                    report=lambda done, total: self._report_lists(folder, key, done, total),
                )
                artifacts.complete_stage(folder, key, facts)
                if short := facts["num_users_with_fewer_than_k"]:
                    top_k = self.config.target(level).top_k
                    self.reporter.say(f"{short:,} users have fewer than {top_k}: too few are eligible")

    def report(self) -> Path:
        """Renders the report and returns its path; without test cuts, the candidates folder."""
        if not self.config.split.test_cuts:
            return self.folder / "candidates"
        self.mirror.bring("evaluation", "calibration")
        path, reliability = self.folder / artifacts.REPORT, self.folder / "calibration" / RELIABILITY
        report = artifacts.read_json(self.folder / "evaluation/report.json")
        if reliability.exists():
            report["calibration"] = artifacts.read_json(reliability)
        artifacts.write_text(path, render_report(report))
        self.mirror.push_file(artifacts.REPORT)
        return path

    # --- what the stages share ------------------------------------------------------------------------

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
    def pair_logs(self) -> dict[Level, PairLog]:
        """Events by pair of both levels."""
        return read_pair_logs(self.data, self.config.labels)

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

    # --- training -------------------------------------------------------------------------------------

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

    def _train_one(self, level: Level, system: str, seed_number: int) -> None:
        folder = self.plan.model_folder(level, system, seed_number)
        key = self.plan.trained_key(level, system, seed_number)
        title = f"training: {SECTION[level]}, {system}, seed {seed_number}"
        with self._stage(title, folder, key) as is_needed:
            if not is_needed:
                return
            artifacts.begin_stage(folder, key, resumable="checkpoint-*")
            task = self.training_task(level, system, seed_number)
            with CurveWriter(folder / "tensorboard", self.reporter) as curves:
                trainer = task.build_trainer(
                    folder,
                    validate=self.validation(level),
                    on_step=curves.step,
                    on_epoch=curves.epoch,
                )
                curve = trainer.run()
            task.save(trainer, folder)
            remove_checkpoints(folder)
            num_parameters = sum(value.numel() for value in trainer.model.parameters())
            facts = {"curve": curve, "num_parameters": num_parameters, "num_rows": task.examples.num_rows}
            artifacts.complete_stage(folder, key, facts)

    def validation(self, level: Level) -> Callable[[TwoTower], dict[str, float]] | None:
        """Measures what is served, on the label window between what is learned and `as_of`."""
        if not self.config.split.validate_before:
            return None
        data = self.target_data(level, [self.config.learn_until_us])
        data.check_rows()  # Before the training, not after its first epoch.

        def validate(model: TwoTower) -> dict[str, float]:
            scorers = [ModelScorer(MODEL, model, self.builder(level), self.successors.get(level))]
            return validation_measures(measure_target(data, scorers, baselines=[], index_size=0, seed=0))

        return validate

    # --- evaluation -----------------------------------------------------------------------------------

    def _evaluate_level(self, level: Level, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        target = self.config.target(level)
        data = self.target_data(level, [to_us(cut) for cut in self.config.split.test_cuts])
        scorers = self.scorers(level)
        self.reporter.say(f"{SECTION[level]}: {len(scorers)} models and {len(target.baselines)} baselines")
        measured = measure_target(
            data,
            scorers,
            baselines=target.baselines,
            index_size=self.config.evaluation.index_size,
            seed=self.config.seed,
        )
        write_target_lists(folder / f"{PLURAL[level]}_top100.parquet", data, measured)
        table = tabulate_target(data, measured, num_samples=self.config.evaluation.num_samples)
        people = show_people(
            data, measured, num_users=self.config.evaluation.num_examples, seed=self.config.seed
        )
        return table, people

    def _calibration_task(self, level: Level) -> CalibrationTask:
        return CalibrationTask(
            data=self.target_data(level, [to_us(cut) for cut in self.config.split.test_cuts]),
            scorer=self.scorer(level),
            eligible_at=lambda moment_us: self._eligible_at(level, moment_us),
            top_k=self.config.target(level).top_k,
            known_before_us=self._candidates_as_of_us(),
            seed=self.config.seed,
        )

    # --- candidates -----------------------------------------------------------------------------------

    def candidate_task(self, level: Level) -> CandidateTask:
        """Returns what the lists of a level are made from."""
        as_of_us = self._candidates_as_of_us()
        return CandidateTask(
            scorer=self.scorer(level),
            as_of_us=as_of_us,
            top_k=self.config.target(level).top_k,
            is_eligible=self._eligible_at(level, as_of_us),
            users=self.data.users,
            candidates=self.target_data(level, []).vocabulary,
            id_column=ID_COLUMN[level],
            block_users=self.config.candidates.block_users,
            user_country=self.data.user_country,
            label_window_us=self.config.labels.window_days * DAY_US,
        )

    def _eligible_at(self, level: Level, as_of_us: int) -> npt.NDArray[np.bool_]:
        """Returns which candidates may be listed at a moment, [N]."""
        return read_eligibility(
            self.config.candidates.eligibility,
            sequences=self.data,
            catalogue=self.catalogue,
            advertiser_log=self.pair_logs["advertiser"],
            level=level,
            as_of_us=as_of_us,
        )

    def _candidates_as_of_us(self) -> int:
        as_of = self.config.candidates.as_of
        if as_of != "latest":
            return to_us(as_of)
        # A row of a day to come is a mistake of its log, and must not move everybody's lists there.
        arrived_us, now_us = self.data.histories.arrived_us, to_us(datetime.now(UTC))
        known_us = arrived_us[arrived_us <= now_us]
        return int((known_us if len(known_us) else arrived_us).max()) + 1

    @contextmanager
    def _stage(self, name: str, folder: Path, key: str, *, has_pieces: bool = False) -> Iterator[bool]:
        is_complete = self.mirror.take_over(folder, key)
        self.reporter.stage(name, is_done=is_complete)
        if not is_complete:
            self.mirror.bring()
            if has_pieces:
                self.mirror.bring_pieces(folder, key)
        yield not is_complete
        self.mirror.push(folder, key)

    def _report_lists(self, folder: Path, key: str, done: int, total: int) -> None:
        self.mirror.push_pieces(folder, key, patterns=(artifacts.INPUTS, PARTS, USER_VECTORS))
        self.reporter.progress("listing candidates", done, total)
