"""The stages of a run as a readable list: each skips what is complete and hands the next a folder.

Takes a configuration and a folder; leaves there everything of the run. Only this module knows the order of
the stages. A stage is complete when its manifest carries the key that `RunPlan` gives for it.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from forecart import artifacts
from forecart.baselines.standard import build_baselines
from forecart.config import RunConfig, to_us
from forecart.engine.contract import Engine
from forecart.engine.cost import show_cost
from forecart.engine.local import LocalEngine
from forecart.evaluation.calibration import RELIABILITY, CalibrationTask, write_calibration
from forecart.evaluation.frontier import measure_frontier
from forecart.evaluation.people import build_examples, to_moment
from forecart.evaluation.report import render_report
from forecart.evaluation.targets import (
    MODEL,
    measure_target,
    record_target,
    validation_measures,
)
from forecart.events.adapters import ReopenedSource, open_adapter
from forecart.events.ingest import ingest_events
from forecart.model.two_tower import TwoTower
from forecart.observe import Reporter, SilentReporter
from forecart.retrieval.candidate_files import PARTS, PIECES, USER_VECTORS
from forecart.retrieval.candidates import LISTING, Listing, write_candidates
from forecart.retrieval.scorer import ModelScorer
from forecart.run_facts import describe_run
from forecart.run_inputs import ReopenedRun, RunInputs
from forecart.run_mirror import LocalRun
from forecart.sequences.build import build_sequences
from forecart.sequences.split import PLURAL, SECTION, Level
from forecart.training.checkpoint import remove_checkpoints
from forecart.training.curves import CurveWriter


class Workflow(RunInputs):
    """One run: a configuration, a folder, and the stages between them."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        *,
        reporter: Reporter | None = None,
        day_folder: Path | None = None,
        engine: Engine | None = None,
        mirror: LocalRun | None = None,
    ) -> None:
        super().__init__(config, folder, day_folder=day_folder, mirror=mirror)
        self.reporter = reporter or SilentReporter()
        self.engine = engine or LocalEngine()

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
                    engine=self.engine,
                    reopen=ReopenedSource(self.config.source.model_dump_json()),
                )
        artifacts.write_json(self.folder / artifacts.CONFIG, self.config.model_dump(mode="json"))
        self.mirror.push_file(artifacts.CONFIG)
        return dict(artifacts.read_json(folder / artifacts.MANIFEST))

    def sequences(self) -> None:
        """Builds vocabularies and histories."""
        events, folder = self.folder / "events", self.folder / "sequences"
        with self._stage("sequences", folder, self.plan.sequences_key()) as is_needed:
            if is_needed:
                until_us = self.config.read_until_us
                build_sequences(events, folder, read_until_us=until_us, engine=self.engine)

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
                report: dict[str, Any] = describe_run(self.plan)
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
        if self.config.learn_until_us + self.config.labels.span_us > self.candidates_as_of_us():
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
                artifacts.begin_stage(folder, key, resumable=PIECES)
                task = self.candidate_task(level)
                fixed = self.config.listing_at(to_moment(task.as_of_us)).model_dump_json()
                reopen = ReopenedRun(fixed, self.folder.absolute(), level, key)
                listing = Listing(task, report=partial(self._report_lists, folder, key))
                facts = write_candidates(listing, folder, engine=self.engine, reopen=reopen)
                self.reporter.say(show_cost(facts["cost"]))
                artifacts.complete_stage(folder, key, facts)
                if short := facts["num_users_with_fewer_than_k"]:
                    self.reporter.say(f"{short:,} users have fewer than {task.top_k}: too few are eligible")

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

    # --- training -------------------------------------------------------------------------------------

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
        target, settings = self.config.target(level), self.config.evaluation
        data = self.target_data(level, [to_us(cut) for cut in self.config.split.test_cuts])
        scorers, listing = self.scorers(level), self.listing_scorer(level)
        self.reporter.say(f"{SECTION[level]}: {len(scorers)} models and {len(target.baselines)} baselines")
        measured = measure_target(
            data,
            scorers if listing.rerank is None else [*scorers, listing],
            baselines=target.baselines,
            index_size=settings.index_size,
            seed=self.config.seed,
        )
        table, people = record_target(
            folder / f"{PLURAL[level]}_top100.parquet",
            data,
            measured,
            num_samples=settings.num_samples,
            num_examples=settings.num_examples,
            seed=self.config.seed,
        )
        if settings.frontier:
            table["frontier"] = measure_frontier(
                data,
                scorers[0],
                settings.frontier,
                listed=target.rerank.rule,
                num_samples=settings.num_samples,
            )
        return table, people

    def _calibration_task(self, level: Level) -> CalibrationTask:
        return CalibrationTask(
            data=self.target_data(level, [to_us(cut) for cut in self.config.split.test_cuts]),
            scorer=self.listing_scorer(level),
            eligible_at=lambda moment_us: self.eligible_at(level, moment_us),
            top_k=self.config.target(level).top_k,
            known_before_us=self.candidates_as_of_us(),
            seed=self.config.seed,
        )

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
        self.reporter.progress(LISTING, done, total)
