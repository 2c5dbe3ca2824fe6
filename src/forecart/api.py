"""A run as an object: start one from a configuration, or open the folder of one, and read what it found.

Takes names, paths and ids as people write them; gives plain dictionaries and polars tables. Opening and
reading a run needs no torch; only `run` does, and says so where it is not installed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from forecart import artifacts, columns
from forecart.config import RunConfig, load_config, validate_config
from forecart.days import alone
from forecart.engine.contract import Engine
from forecart.errors import ArtifactError, ConfigError, ForecartError, NotFoundError
from forecart.evaluation.people import read_titles, recent_events
from forecart.events.ingest import CATALOGUE_FILE
from forecart.observe import Reporter
from forecart.run_mirror import local_run, place_run
from forecart.sequences.split import PLURAL, Level

if TYPE_CHECKING:
    from forecart.workflow import Workflow

_EXTRA: Final = dict.fromkeys(("torch", "safetensors", "scipy", "sklearn", "tensorboard"), "train") | {
    "optuna": "tune"
}
"""Which extra brings a package."""
_NUM_EXAMPLES: Final = 3
_END_OF_TIME: Final = datetime(9999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True)
class Run:
    """The folder of a run and what can be read from it."""

    folder: Path
    """Where everything of the run is (docs/artifacts.md)."""

    @cached_property
    def config(self) -> RunConfig:
        """The configuration the run was started with.

        Raises:
            ArtifactError: the folder holds no run.
        """
        path = self.folder / artifacts.CONFIG
        if not path.is_file():
            raise ArtifactError(
                f"{self.folder} must be the folder of a run, it has no {artifacts.CONFIG}: name another one, "
                "or make one with `forecart demo` or `forecart run CONFIG`"
            )
        return validate_config(artifacts.read_json(path), where=str(path))

    @property
    def report_path(self) -> Path:
        """The path of the HTML report.

        Raises:
            ArtifactError: the run has no report yet, or its configuration names no test cut.
        """
        path = self.folder / artifacts.REPORT
        if path.is_file():
            return path
        if not self.config.split.test_cuts:
            raise ArtifactError(
                f"{self.folder} has no report, as its configuration names no test_cuts to measure at"
            )
        raise ArtifactError(f"{self.folder} has no report yet: finish it with `forecart run CONFIG`")

    @cached_property
    def report(self) -> dict[str, Any]:
        """The figures of the report, `evaluation/report.json`.

        Raises:
            ArtifactError: the run is not evaluated yet.
        """
        path = self.folder / "evaluation" / "report.json"
        if not path.is_file():
            raise ArtifactError(f"{self.folder} is not evaluated: run `forecart evaluate CONFIG` first")
        report: dict[str, Any] = artifacts.read_json(path)
        return report

    def candidates(self, level: Level, *, user_id: str | None = None) -> pl.DataFrame:
        """Returns lists of candidates: user_id, rank, advertiser_id or item_id, score, is_repeat, as_of.

        Args:
            level: `advertiser` or `item`.
            user_id: whose list, best first; everyone's when not given.

        Raises:
            ArtifactError: the run has no candidates of this level.
            NotFoundError: the user has no list.
        """
        lists = self._scan_candidates(level)
        if user_id is None:
            return lists.collect()
        found = lists.filter(pl.col(columns.USER_ID) == user_id).sort(columns.RANK).collect()
        if found.is_empty():
            raise NotFoundError(self._say_unknown(user_id, lists))
        return found

    def events(
        self, user_id: str, *, before: datetime = _END_OF_TIME, limit: int = 20
    ) -> list[dict[str, Any]]:
        """Returns the latest accepted events of a user, the latest first; none for an unknown user.

        Args:
            user_id: whose.
            before: only what had arrived before this moment.
            limit: at most this many.
        """
        folder = self.folder / "events"
        return recent_events(folder, user_id, before=before, titles=self.titles, limit=limit)

    @cached_property
    def titles(self) -> dict[str, str]:
        """The title of every product that has one."""
        return read_titles(self.folder / "events" / CATALOGUE_FILE)

    def _scan_candidates(self, level: Level) -> pl.LazyFrame:
        if level not in PLURAL:
            raise ConfigError(f"a level is advertiser or item, {level!r} arrived")
        folder = self.folder / "candidates" / PLURAL[level]
        if (folder / artifacts.MANIFEST).is_file():
            return pl.scan_parquet(sorted(folder.glob("part-*.parquet")))
        if level not in self.config.levels:
            raise ArtifactError(f"{self.folder} has no {PLURAL[level]}, its configuration leaves them out")
        raise ArtifactError(
            f"{self.folder} has no candidate {PLURAL[level]} yet: run `forecart candidates generate CONFIG`"
        )

    def _say_unknown(self, user_id: str, lists: pl.LazyFrame) -> str:
        users = lists.select(pl.col(columns.USER_ID).unique(maintain_order=True)).collect().to_series()
        known = ", ".join(users.head(_NUM_EXAMPLES))
        return (
            f"{self.folder} has no candidates for user {user_id!r}: name one of its {len(users):,} users, "
            f"such as {known}"
        )


def open_run(folder: str | Path) -> Run:
    """Returns the run in a folder, whatever has been finished of it.

    Args:
        folder: such as `runs/demo`, or a URL: then it is brought here, as far as it is complete.

    Raises:
        ArtifactError: the folder holds no run.
    """
    found = Run(local_run(folder))
    _ = found.config
    return found


def run(
    config: str | Path | RunConfig,
    *,
    folder: str | Path | None = None,
    work_folder: Path | None = None,
    reporter: Reporter | None = None,
    engine: Engine | None = None,
) -> Run:
    """Runs every stage that is not complete yet and returns the run.

    Args:
        config: `nano`, `demo`, the path of a TOML file, or a configuration.
        folder: where everything goes, a URL of an object store too; `runs/NAME` when not given.
        work_folder: where a run that is kept in an object store is worked on; below the user's cache when
            not given.
        reporter: what is told of the progress; nothing is when not given.
        engine: whose workers prepare data and list candidates; this process does when not given.

    Raises:
        ConfigError: the configuration breaks a rule.
        DataError: the log cannot be read.
        ConflictError: another process works on the run.
        ForecartError: the training extra is not installed.
    """
    opened = opened_workflow(config, folder=folder, work_folder=work_folder, reporter=reporter, engine=engine)
    with opened as workflow:
        workflow.run()
    return Run(workflow.folder)


@contextmanager
def opened_workflow(
    config: str | Path | RunConfig,
    *,
    folder: str | Path | None = None,
    work_folder: Path | None = None,
    reporter: Reporter | None = None,
    engine: Engine | None = None,
) -> Iterator["Workflow"]:
    """Gives the stages of a run, none of which has been started, and keeps other processes from the run.

    The arguments and errors are those of `run`.
    """
    read = config if isinstance(config, RunConfig) else load_config(str(config))
    require_training()
    from forecart.workflow import Workflow

    here, mirror = place_run(folder if folder is not None else Path("runs") / read.name, work_folder)
    workflow = Workflow(read, here, reporter=reporter, engine=engine, mirror=mirror)
    with alone(workflow.folder):
        yield workflow


def require_training() -> None:
    """Checks that what training and evaluating need is installed.

    Raises:
        ForecartError: it is not.
    """
    _require("forecart.workflow", "training and evaluating")


def require_tuning() -> None:
    """Checks that what tuning needs is installed.

    Raises:
        ForecartError: it is not.
    """
    _require("forecart.tune", "tuning")


def _require(module: str, work: str) -> None:
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in _EXTRA:
            raise
        extra = f"forecart[{_EXTRA[package]}]"
        raise ForecartError(
            f"{work} needs {error.name}, which is not installed; run: pip install '{extra}'"
        ) from None
