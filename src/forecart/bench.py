"""Single sequences by leave-one-out, where academic results are compared, through the ordinary workflow.

Takes a table of user, item and order; gives tables by pool and what learning took. The last event of each
user is the test, the one before it the validation; weights, those of the baselines too, learn from what comes
before both. The events get one week each, the last of every user in the same week, so that one global cut
splits all sequences and the stages of every other run serve here too: items are its advertisers, a week is
the label window, and weekday, hour and gap say nothing, as such files hold no times.
"""

import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl

from forecart import artifacts, columns
from forecart.config import RunConfig, to_us, validate_config
from forecart.errors import DataError
from forecart.evaluation.protocol import Scorer
from forecart.evaluation.provenance import read_provenance
from forecart.evaluation.targets import TargetData, measure_target, tabulate_target
from forecart.observe import Reporter
from forecart.workflow import Workflow

LAST: Final = datetime(2090, 1, 1, tzinfo=UTC)
STEP: Final = timedelta(days=7)
BEFORE_LAST: Final = LAST - STEP
NUM_PREDICTED: Final = 2
"""Of each user, the latest events: the validation and the test, hidden from weights and choices."""
MAX_EVENTS: Final = 5000
"""Of a user, the latest: more weeks than that do not fit between 1980 and `LAST`."""
BASELINES: Final = ("popularity_all", "item_knn", "skip_markov")
POOLS: Final = {"seen_kept": "all", "seen_filtered": "novel"}
"""What a table is called here -> the pool of the evaluation: seen candidates ranked too, or left out."""
Settings = Mapping[str, Mapping[str, Any]]
"""Settings of the advertiser's target by section: `model`, `training` and `successors`."""
METRICS: Final = ("hit_rate_at_10", "ndcg_at_10", "recall_at_100")
ORDER: Final = "pos"
# Chosen on the validation events of ml-1m and, for sparse files, of Amazon Beauty (docs/log.md).
MODEL: Final[Mapping[str, Any]] = {
    "width": 128,
    "num_heads": 4,
    "history_length": 200,
    "position_bias": "alibi",
    "dropout": 0.3,
    "event_dropout": 0.1,
    "use_own_history": False,
    "use_summary": False,
    "content": "none",
    "collaborative_width": 0,
    "id_embedding": "table",
    "prior": "learned",
    "temperature": 0.1,
}
TRAINING: Final[Mapping[str, Any]] = {
    "objective": "dense_all_action",
    "cuts_per_history": 200,
    "cut_stride_days": STEP.days,
    "batch_rows": 1536,
    "num_epochs": 12,
    "warmup_steps": 100,
}
SUCCESSORS: Final[Mapping[str, Any]] = {"weight": 0.15, "floor": 0.03}
"""Of the score; chosen on the validation events of ml-1m and Amazon Beauty."""
DEFAULTS: Final[Settings] = {"model": MODEL, "training": TRAINING, "successors": SUCCESSORS}
SPARSE_EVENTS: Final = 50
"""Of an item, on average: with fewer, the next are laid over `DEFAULTS`. A guess: of the two files that
settings were chosen on, one has 13 and the other 289."""
SPARSE: Final[Settings] = {
    "model": {"dropout": 0.5, "event_dropout": 0.3},
    "training": {"num_epochs": 8},
}
# A weighted sum over the whole history in place of the encoder. Its weights come from statistics as of each
# cut, so that a cut is a row of its own: of as many cuts as here, not of all. None of it was tuned, and more
# than the encoder differs from the model: not what `no_encoder` of a run is.
SUMMARY_ONLY: Final = "summary_only"
SUMMARY_ONLY_CHANGES: Final[Settings] = {
    "model": {"num_layers": 0, "use_summary": True, "collaborative_width": 128, "history_length": 20},
    "training": {"objective": "all_action", "batch_rows": 512},
}


@dataclass(frozen=True, eq=False)
class BenchRun:
    """A finished run: what was measured and the tables by pool."""

    workflow: Workflow
    data: TargetData
    tables: dict[str, Any]

    @property
    def train_s(self) -> float:
        """Seconds that the steps of the first model took, whichever process they were in."""
        return read_train_s(self.workflow)


def read_train_s(workflow: Workflow) -> float:
    """Returns the seconds that the steps of the first model of a run that has learned took."""
    folder = workflow.plan.model_folder("advertiser")
    curve: list[dict[str, Any]] = artifacts.read_json(folder / artifacts.MANIFEST)["curve"]
    return sum((float(entry["elapsed_s"]) for entry in curve), 0.0)


def lay_over(settings: Settings, changes: Settings) -> Settings:
    """Returns settings with some of them changed; of every section only what is named."""
    return {section: {**values, **changes.get(section, {})} for section, values in settings.items()}


def choose_settings(learned: pl.DataFrame) -> Settings:
    """Returns the settings by what there is to learn from.

    Where items are rare, more is dropped and the epochs are fewer: what stands near what is known before the
    first step, and the rest is soon learned by heart.

    Args:
        learned: item_id of the events that weights learn from; without those that are predicted
            (`hide_latest`), which nothing may be chosen by.
    """
    events_per_item = learned.height / max(learned[columns.ITEM_ID].n_unique(), 1)
    return lay_over(DEFAULTS, SPARSE if events_per_item < SPARSE_EVENTS else {})


def read_sequences(path: Path) -> pl.DataFrame:
    """Returns user_id, item_id and pos of a Parquet or CSV file.

    Raises:
        DataError: the file is neither or unreadable, lacks a column or a value, or two events share a place.
    """
    wanted = [columns.USER_ID, columns.ITEM_ID, ORDER]
    readers: dict[str, Callable[[Path], pl.DataFrame]] = {
        ".parquet": pl.read_parquet,
        ".csv": pl.read_csv,
    }
    if path.suffix not in readers:
        raise DataError(f"sequences are read from .parquet or .csv, {path.name} arrived: convert it")
    if not path.is_file():
        raise DataError(f"sequences are read from a file, there is none at {path}")
    try:
        frame = readers[path.suffix](path)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path.name} must be readable as {path.suffix}, it is not: {error}") from None
    if missing := [name for name in wanted if name not in frame.columns]:
        raise DataError(
            f"sequences need the columns {', '.join(wanted)}, {path.name} has {', '.join(frame.columns)}: "
            f"rename or add {', '.join(missing)}"
        )
    frame = frame.select(wanted)
    if holes := frame.select(pl.any_horizontal(pl.all().is_null()).sum()).item():
        raise DataError(
            f"every row of {path.name} needs a user, an item and a place, {holes:,} rows lack one: drop them"
        )
    if ties := frame.height - frame.select(pl.struct(columns.USER_ID, ORDER).n_unique()).item():
        raise DataError(
            f"the places of a user's events must differ, {ties:,} rows of {path.name} stand where another "
            f"one does: number them in {ORDER}"
        )
    return frame


def num_after() -> pl.Expr:
    """Returns how many events of the same user come after each; rows stand in any order."""
    place = pl.col(ORDER).rank("ordinal").cast(pl.Int64)
    return (pl.len().cast(pl.Int64) - place).over(columns.USER_ID)


def hide_latest(sequences: pl.DataFrame, num_events: int) -> pl.DataFrame:
    """Returns sequences without the latest events of each user; who has no more than those is left out."""
    return sequences.filter(num_after() >= num_events)


def write_events(sequences: pl.DataFrame, path: Path, *, last: datetime = LAST) -> None:
    """Writes sequences as a log: one event a week, the last of every user at `last`."""
    ordered = sequences.sort(columns.USER_ID, ORDER)
    log = ordered.filter(num_after() < MAX_EVENTS).select(
        pl.col(columns.USER_ID).cast(pl.String),
        pl.col(columns.ITEM_ID).cast(pl.String).alias(columns.ADVERTISER_ID),
        pl.lit("checkout").alias(columns.EVENT_TYPE),
        (pl.lit(last) - pl.duration(days=STEP.days * num_after())).alias(columns.OCCURRED_AT),
    )
    # A file that is written anew counts as changed, and would be read and built again.
    if not (path.exists() and pl.read_parquet(path).equals(log)):
        artifacts.write_parquet(path, log)


def build_config(
    events: Path,
    *,
    name: str,
    cut: datetime,
    settings: Settings = DEFAULTS,
    num_seeds: int = 1,
) -> RunConfig:
    """Returns the configuration of a run: weights stop before `BEFORE_LAST`, whatever the cut.

    Args:
        events: what `write_events` wrote.
        name: of the run.
        cut: what comes at it is predicted from what came before: `LAST`, or `BEFORE_LAST` for validation.
        settings: of model, training and successor term; what is not named is as in every other run.
        num_seeds: models to train.
    """
    tree: dict[str, Any] = {
        "name": name,
        "source": {"adapter": "files", "events": [str(events)]},
        "labels": {
            "positives": {"checkout": 1.0},
            "window_days": STEP.days,
            "cuts_per_user": settings["model"]["history_length"],
        },
        "split": {"as_of": BEFORE_LAST, "test_cuts": [cut], "validate_before": False},
        "next_advertiser": {
            "num_seeds": num_seeds,
            **{section: dict(values) for section, values in settings.items()},
        },
        "next_product": {"is_enabled": False},
    }
    return validate_config(tree, where="the benchmark")


def run_advertisers(
    config: RunConfig,
    folder: Path,
    *,
    baselines: Sequence[str],
    reporter: Reporter,
    more: Callable[[Workflow], list[Scorer]] = lambda workflow: [],
) -> BenchRun:
    """Learns the next advertiser where that is not done yet, and measures at the test cuts.

    Args:
        config: the run.
        folder: of its artifacts.
        baselines: by name.
        reporter: told of progress.
        more: further scorers, built once the workflow has learned.
    """
    workflow = Workflow(config, folder, reporter=reporter)
    workflow.learn()
    data = workflow.target_data("advertiser", [to_us(cut) for cut in config.split.test_cuts])
    scorers = [*workflow.scorers("advertiser"), *more(workflow)]
    measured = measure_target(
        data,
        scorers,
        baselines=baselines,
        index_size=0,
        seed=0,
        # Or they would learn from events that the model may only read.
        freeze_baselines=True,
    )
    tables = tabulate_target(data, measured, num_samples=config.evaluation.num_samples)
    return BenchRun(workflow, data, tables)


@dataclass(frozen=True)
class LeaveOneOut:
    """The protocol of papers on sequences, with the settings that this project reports.

    Attributes:
        is_validation: rank the last event but one in place of the last.
        num_seeds: models to train.
        model: settings of the model, over `choose_settings`.
        training: settings of the training, likewise.
        successors: settings of the successor term, likewise; a weight of 0 leaves it out.
        ablate_encoder: train one system with a summary in place of the encoder too, listed as `summary_only`.
    """

    is_validation: bool = False
    num_seeds: int = 1
    model: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    successors: Mapping[str, Any] = field(default_factory=dict)
    ablate_encoder: bool = False

    def run(
        self,
        path: Path,
        folder: Path,
        *,
        reporter: Reporter,
        more: Callable[[Workflow], list[Scorer]] = lambda workflow: [],
    ) -> dict[str, Any]:
        """Trains on sequences, ranks every item for everyone, and returns plain values.

        `seen_kept` and `seen_filtered` hold the means over users (`model` is the mean of the seeds), the
        differences of the model to each baseline with 95 % intervals, and where there are several seeds,
        their values and standard deviation. `summary_only` holds the settings of that system where it is
        asked for. `num_users` of a table: in `seen_filtered` those whose ranked event is a new item to them;
        without any its means are empty.

        Args:
            path: the sequences (`read_sequences`).
            folder: of the run; what is complete there is not done again.
            reporter: told of progress.
            more: further scorers, built once the model has learned.

        Raises:
            DataError: the file cannot be read.
            ConfigError: a setting is wrong.
        """
        events = folder / "log.parquet"
        settings = self._prepare(path, events)
        summary_only = lay_over(settings, SUMMARY_ONLY_CHANGES)

        def build_scorers(learned: Workflow) -> list[Scorer]:
            if not self.ablate_encoder:
                return more(learned)
            config = self._config(events, summary_only, num_seeds=1)
            workflow = Workflow(config, folder / SUMMARY_ONLY, reporter=reporter)
            workflow.learn()
            return [replace(workflow.scorer("advertiser"), name=SUMMARY_ONLY), *more(learned)]

        run = run_advertisers(
            self._config(events, settings, num_seeds=self.num_seeds),
            folder,
            baselines=BASELINES,
            reporter=reporter,
            more=build_scorers,
        )
        return {
            "provenance": read_provenance(),
            "is_validation": self.is_validation,
            "num_users": run.tables["all"]["num_rows"],
            "num_items": run.data.num_candidates - 2,
            "train_s": run.train_s,
            "settings": settings,
            **({SUMMARY_ONLY: {"num_seeds": 1, "settings": summary_only}} if self.ablate_encoder else {}),
            "peak_memory_gb": peak_memory_gb(),
            **{name: _pick(run.tables[pool]) for name, pool in POOLS.items()},
        }

    def _prepare(self, path: Path, events: Path) -> Settings:
        """Writes the log of a file and returns the settings of the model that learns from it."""
        sequences = read_sequences(path)
        write_events(sequences, events)
        chosen = choose_settings(hide_latest(sequences, NUM_PREDICTED))
        asked = {"model": self.model, "training": self.training, "successors": self.successors}
        return lay_over(chosen, asked)

    def _config(self, events: Path, settings: Settings, *, num_seeds: int) -> RunConfig:
        return build_config(
            events,
            name="bench",
            cut=BEFORE_LAST if self.is_validation else LAST,
            settings=settings,
            num_seeds=num_seeds,
        )


def peak_memory_gb() -> float:
    """Returns the largest memory this process ever had."""
    unit = 1e9 if sys.platform == "darwin" else 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _pick(table: dict[str, Any]) -> dict[str, Any]:
    num_users = table["num_rows"]
    if num_users == 0:
        return {"num_users": 0, "mean": {}, "difference": {}}
    means, seeds = {"model": table["model"], **table["baselines"]}, table.get("seeds")
    picked: dict[str, Any] = {"num_users": num_users}
    if seeds:
        means["model"] = seeds["mean"]["model"]
        picked["seeds"] = {metric: seeds["values"]["model"][metric] for metric in METRICS}
        picked["seed_to_seed"] = {metric: seeds["standard_deviation"]["model"][metric] for metric in METRICS}
    picked["mean"] = {name: {metric: values[metric] for metric in METRICS} for name, values in means.items()}
    picked["difference"] = {metric: (seeds or table)["difference"][metric] for metric in METRICS}
    return picked
