"""The daily cycle: another day of events, lists made anew for whom something arrived, all others carried.

Takes a finished run and a moment; leaves `days/MOMENT/` in the run's folder: sequences that continue the ids
of the day before, and candidate tables as the run's own. The models are the run's, which only `forecart run`
without a moment trains. A day that is complete is not done again, and one that was killed is gone on with.
"""

import shutil
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from forecart import artifacts
from forecart.config import RunConfig, to_us
from forecart.days import DAY_FILE, DAYS, alone, list_days
from forecart.engine.contract import Engine
from forecart.engine.cost import show_cost
from forecart.errors import ArtifactError, ConfigError
from forecart.object_store import Place
from forecart.observe import Reporter
from forecart.retrieval.candidate_files import PIECES
from forecart.retrieval.candidates import (
    BLOCKS_PER_PART,
    LISTING,
    CandidateTask,
    Listing,
    write_candidates,
)
from forecart.retrieval.carry import Carry, find_news
from forecart.run_mirror import place_run
from forecart.sequences.build import build_sequences, sequences_key
from forecart.sequences.split import DAY_US, PLURAL, Level
from forecart.workflow import Workflow

KEEP_DAYS: Final = 3
_FORMAT: Final = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class DayRun:
    """A finished day.

    Attributes:
        run_folder: of the run, on this machine.
        folder: of the day.
        as_of: up to when events were read.
        facts: by level: users, users of whom the list was made anew, of whom it was carried, seconds.
    """

    run_folder: Path
    folder: Path
    as_of: datetime
    facts: dict[str, dict[str, Any]]


def run_day(
    config: RunConfig,
    run: str | Place,
    as_of: datetime,
    *,
    reporter: Reporter,
    engine: Engine | None = None,
    work_folder: Path | None = None,
) -> DayRun:
    """Runs a day on the models of a finished run.

    Args:
        config: of the run.
        run: its folder, or where it is kept in an object store; the day is then kept there too.
        as_of: events that arrived before this moment are read; later than the day before.
        reporter: told of the stages.
        engine: whose workers do them; this process does when not given.
        work_folder: where a run that is kept in an object store is worked on; below the cache when not given.

    Raises:
        ConfigError: a later day is there, or the moment is before what the models learned from.
        ArtifactError: the run has no trained models, or its log changed since they were trained.
        ConflictError: another process of this machine works on the run.
        StoreError: the object store does not answer.
    """
    folder, mirror = place_run(run, work_folder)
    if mirror is None and not (folder / artifacts.CONFIG).is_file():
        raise ArtifactError(f"a day continues a finished run, {folder} is none: run it without --as-of first")
    with alone(folder):
        base = Workflow(config, folder, reporter=reporter, engine=engine, mirror=mirror)
        base.mirror.pull()
        _check_moment(config, folder, as_of, kept=folder if mirror is None else mirror.remote)
        base.events()
        day = Day(base, as_of)
        done = day.run()
        oldest = list_days(folder)[-KEEP_DAYS:][0].name
        for old in (folder / DAYS).iterdir():
            if old.name < oldest:
                shutil.rmtree(old)
        base.mirror.remove_days(before=oldest)
        return done


class Day:
    """One day of a run.

    Args:
        base: the run, whose events are read.
        as_of: up to when.
    """

    def __init__(self, base: Workflow, as_of: datetime) -> None:
        self.base, self.as_of = base, as_of
        self.folder = base.folder / DAYS / as_of.astimezone(UTC).strftime(_FORMAT)
        earlier = [path for path in list_days(base.folder) if path.name < self.folder.name]
        self.before = earlier[-1] if earlier else None
        self.workflow = Workflow(
            base.config.listing_at(as_of),
            base.folder,
            reporter=base.reporter,
            day_folder=self.folder,
            engine=base.engine,
        )

    def run(self) -> DayRun:
        """Builds the sequences and lists every level."""
        self._sequences()
        facts = {PLURAL[level]: self._candidates(level) for level in self.workflow.config.levels}
        day_file = self.folder / DAY_FILE
        artifacts.write_json(day_file, {"as_of": self.as_of.isoformat(), **facts})
        self.base.mirror.push_file(day_file.relative_to(self.base.folder).as_posix())
        return DayRun(self.base.folder, self.folder, self.as_of, facts)

    def _sequences(self) -> None:
        events, folder = self.base.folder / "events", self.folder / "sequences"
        # Ids go on from the day before, so that an index means the same for good.
        previous = (self.before or self.base.folder) / "sequences"
        if not (previous / artifacts.MANIFEST).is_file():
            raise ArtifactError(f"a day continues a finished run, {self.base.folder} is none: run it first")
        until_us = to_us(self.as_of)
        key = sequences_key(events, read_until_us=until_us, previous=previous)
        is_done = artifacts.is_stage_complete(folder, key)
        self.base.reporter.stage("sequences of the day", is_done=is_done)
        if not is_done:
            build_sequences(
                events, folder, read_until_us=until_us, previous=previous, engine=self.base.engine
            )
        self.base.mirror.push(folder, key)

    def _candidates(self, level: Level) -> dict[str, Any]:
        folder, before = self.folder / "candidates" / PLURAL[level], self._table_before(level)
        model_key = self.workflow.plan.model_key(level)
        key = artifacts.hash_value(
            [
                self.workflow.plan.candidates_key(level),
                artifacts.read_json(self.folder / "sequences" / artifacts.MANIFEST)["key"],
                before and artifacts.read_json(before / artifacts.MANIFEST)["key"],
            ]
        )
        is_done = artifacts.is_stage_complete(folder, key)
        self.base.reporter.stage(f"candidates of the day: {PLURAL[level]}", is_done=is_done)
        if not is_done:
            artifacts.begin_stage(folder, key, resumable=PIECES)
            started_s = time.monotonic()
            listing = replace(self.listing(level), report=partial(self.base.reporter.progress, LISTING))
            reopen = ReopenedDay(
                self.workflow.config.model_dump_json(), self.base.folder.absolute(), self.as_of, level, key
            )
            facts = write_candidates(listing, folder, engine=self.base.engine, reopen=reopen)
            self.base.reporter.say(show_cost(facts["cost"]))
            spent = {"seconds": time.monotonic() - started_s, "model_key": model_key}
            artifacts.complete_stage(folder, key, {**facts, **spent})
        self.base.mirror.push(folder, key)
        facts = artifacts.read_json(folder / artifacts.MANIFEST)
        encoded = facts["num_users"] - facts["num_carried"]
        return {
            "num_users": facts["num_users"],
            "num_encoded": encoded,
            "num_carried": facts["num_carried"],
            "seconds": facts["seconds"],
        }

    def listing(self, level: Level) -> Listing:
        """Returns what is listed of a level, with what is carried from the day before."""
        task, before = self.workflow.candidate_task(level), self._table_before(level)
        return Listing(task, self._carry(level, task, before) if before else None)

    def _table_before(self, level: Level) -> Path | None:
        """Returns the table that lists may be carried from: of the same model, rule, moment and parts."""
        if self.before is None:
            return None
        folder = self.before / "candidates" / PLURAL[level]
        facts = artifacts.read_json(folder / artifacts.MANIFEST)
        rule = self.workflow.config.target(level).rerank.rule
        same = {
            "rerank": rule and rule.model_dump(mode="json"),
            "model_key": self.workflow.plan.model_key(level),
            "top_k": self.workflow.config.target(level).top_k,
            "users_per_part": self.workflow.config.candidates.block_users * BLOCKS_PER_PART,
        }
        return folder if all(facts.get(name) == value for name, value in same.items()) else None

    def _carry(self, level: Level, task: CandidateTask, before: Path) -> Carry:
        read_until_us = artifacts.read_json(before / artifacts.MANIFEST)["as_of_us"]
        return Carry(
            folder=before,
            made_after_us=to_us(self.as_of) - self.workflow.config.candidates.max_carry_days * DAY_US,
            has_news_U=find_news(self.workflow.data.histories, since_us=read_until_us),
            is_eligible_N=task.is_eligible,
            users=task.users,
            candidates=task.candidates,
            id_column=task.id_column,
        )


@dataclass(frozen=True)
class ReopenedDay:
    """Opens the lists of a level of a day in a worker: see `ReopenedRun`."""

    config: str
    folder: Path
    as_of: datetime
    level: Level
    key: str

    def __call__(self) -> Listing:
        """Returns what is to be listed."""
        base = Workflow(RunConfig.model_validate_json(self.config), self.folder)
        return Day(base, self.as_of).listing(self.level)


def _check_moment(config: RunConfig, folder: Path, as_of: datetime, *, kept: Place) -> None:
    if to_us(as_of) < config.learn_until_us:
        raise ConfigError(
            f"a day is not before what the models learned from ({config.split.as_of}), {as_of} arrived"
        )
    if as_of > datetime.now(UTC):
        raise ConfigError(f"a day is over when it is run, {as_of} is to come")
    later = [path.name for path in list_days(folder) if path.name > as_of.astimezone(UTC).strftime(_FORMAT)]
    if later:
        raise ConfigError(
            f"days are run in their order, {later[-1]} is there and {as_of} was asked for: "
            f"if that one is a mistake, remove {kept / DAYS / later[-1]}"
        )
