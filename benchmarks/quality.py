"""Quality on single sequences, leave-one-out: `python -m benchmarks.quality FILE --name ml-1m`.

FILE is Parquet with user_id, item_id and pos (the order). The last event of each user is the test, the one
before it the validation (`--validation`); weights learn from what comes before both. Full ranking over all
items; every figure stands twice, with seen items left out (`seen_filtered`) and kept. The events get one week
each, the last of every user in the same week, so that one global cut splits all sequences and the workflow of
every other run serves here too: items are its advertisers, a week is the label window, and weekday, hour and
gap say nothing, as there are no times in such files. Of a user the latest 5,000 events are read.
"""

import argparse
import json
import resource
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl

from benchmarks.figures import RESULTS, build_parser, run_advertisers
from forecart import artifacts
from forecart.config import RunConfig, validate_config
from forecart.evaluation.provenance import read_provenance

BASELINES: Final = ["popularity_all", "item_knn", "skip_markov"]
METRICS: Final = ("hit_rate_at_10", "ndcg_at_10", "recall_at_100")
POOLS: Final = {"all": "seen_kept", "novel": "seen_filtered"}
LAST: Final = datetime(2090, 1, 1, tzinfo=UTC)
STEP: Final = timedelta(days=7)
BEFORE_LAST: Final = LAST - STEP
_MAX_EVENTS: Final = 5000
# Chosen on the validation events of ml-1m (docs/log.md).
MODEL: Final = {
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
TRAINING: Final = {
    "objective": "dense_all_action",
    "cuts_per_history": 200,
    "cut_stride_days": STEP.days,
    "batch_rows": 2048,
    "num_epochs": 12,
    "warmup_steps": 100,
}


def write_events(sequences: pl.DataFrame, path: Path, *, last: datetime = LAST) -> None:
    """Writes sequences as a log: one event a week, the last of every user at `last`."""
    ordered = sequences.sort("user_id", "pos")
    num_after = pl.len().over("user_id") - 1 - pl.int_range(pl.len()).over("user_id")
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered.filter(num_after < _MAX_EVENTS).select(
        pl.col("user_id").cast(pl.String),
        pl.col("item_id").cast(pl.String).alias("advertiser_id"),
        pl.lit("checkout").alias("event_type"),
        (pl.lit(last) - pl.duration(days=STEP.days * num_after)).alias("occurred_at"),
    ).write_parquet(path)


def build_config(
    events: Path, *, name: str, model: dict[str, Any], training: dict[str, Any], cut: datetime, seeds: int = 1
) -> RunConfig:
    """One label window of a step; weights stop before the validation event, whichever cut is ranked at."""
    tree: dict[str, Any] = {
        "name": name,
        "source": {"adapter": "files", "events": [str(events)]},
        "labels": {
            "positives": {"checkout": 1.0},
            "window_days": STEP.days,
            "cuts_per_user": model["history_length"],
        },
        "split": {
            "as_of": BEFORE_LAST,
            "test_cuts": [cut],
            "validate_before": False,
        },
        "next_advertiser": {
            "num_seeds": seeds,
            "model": model,
            "training": training,
        },
        "next_product": {"is_enabled": False},
    }
    return validate_config(tree, where="the quality benchmark")


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Trains, ranks everything for everyone, and returns the tables with what they cost."""
    events = asked.output / "log.parquet"
    write_events(pl.read_parquet(asked.file), events)
    config = build_config(
        events,
        name=asked.name,
        model=asked.model,
        training=asked.training,
        cut=BEFORE_LAST if asked.validation else LAST,
        seeds=asked.seeds,
    )
    run = run_advertisers(config, asked.output, baselines=BASELINES)
    return {
        "provenance": read_provenance(),
        "is_validation": asked.validation,
        "num_users": run.tables["all"]["num_rows"],
        "num_items": run.data.num_candidates - 2,
        "learn_cpu_s": run.learn_cpu_s,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        **{name: _pick(run.tables[pool]) for pool, name in POOLS.items()},
    }


def _pick(table: dict[str, Any]) -> dict[str, Any]:
    values = {"model": table["model"], **table["baselines"]}
    picked: dict[str, Any] = {
        name: {metric: one[metric] for metric in METRICS} for name, one in values.items()
    }
    if "seeds" in table:
        picked["seeds"] = {metric: table["seeds"]["values"]["model"][metric] for metric in METRICS}
    return picked


def show(result: dict[str, Any]) -> None:
    """Prints both tables."""
    print(f"{result['num_users']:,} users, {result['num_items']:,} items, one event each")
    for name in POOLS.values():
        print(f"{name}: {' '.join(METRICS)}")
        for system, values in result[name].items():
            if system != "seeds":
                print(f"  {system:16s} " + " ".join(f"{values[metric]:.4f}" for metric in METRICS))
        for metric, values in result[name].get("seeds", {}).items():
            print(f"  seeds, {metric}: {values}")
    print(f"CPU-seconds to learn: {result['learn_cpu_s']:.0f}; peak memory {result['peak_memory_gb']:.1f} GB")
    print(json.dumps(result["provenance"]))


def main() -> None:
    """Runs the command line."""
    parser = build_parser(__doc__, seeds=1, model=MODEL, training=TRAINING)
    parser.add_argument("file", type=Path, help="sequences as Parquet: user_id, item_id, pos")
    parser.add_argument("--name", required=True, help="of the data set, in results and output")
    asked = parser.parse_args()
    asked.output = asked.output or Path("runs") / f"quality-{asked.name}"
    if not asked.file.exists():
        print(f"skipped: there are no sequences at {asked.file}")
        return
    result = measure(asked)
    show(result)
    if not asked.validation:
        artifacts.write_json(RESULTS / f"quality-{asked.name}.json", result)


if __name__ == "__main__":
    main()
