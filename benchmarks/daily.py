"""The daily cycle on Complete Journey: `python -m benchmarks.daily`.

Trains the demo's models on what had arrived before 2017-12-01, lists everyone, and then runs a day after
another as `forecart run --as-of` does. Beside each day stands a full rebuild on the same models: lists of
everyone made anew. Prints and writes, per day, how many users were encoded, seconds of listing and of the
whole day, and Recall@10 and @100 of both lists: next advertisers and products, over users with a conversion
before the day, relevant is what they convert with in the seven days from it. After the first comes a day
on which nothing arrived. Writes `results/daily.json`.
"""

import argparse
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl

from benchmarks.figures import RESULTS
from forecart import artifacts, columns
from forecart.config import RunConfig, load_config, validate_config
from forecart.daily import Day, run_day
from forecart.evaluation.provenance import read_provenance
from forecart.observe import ConsoleReporter, Reporter
from forecart.retrieval.candidate_files import PARTS
from forecart.retrieval.candidates import Listing, write_candidates
from forecart.sequences.split import ID_COLUMN, PLURAL, Level
from forecart.workflow import Workflow

START: Final = datetime(2017, 12, 1, tzinfo=UTC)
WINDOW: Final = timedelta(days=7)
TOP: Final = (10, 100)


def build_config() -> RunConfig:
    """Returns the demo without tests, its lists as of the day it learns up to."""
    tree = load_config("demo").model_dump(mode="json")
    tree["split"]["test_cuts"] = []
    tree["candidates"]["as_of"] = START.isoformat()
    for target in ("next_advertiser", "next_product"):
        tree[target]["ablate_encoder"] = False
    return validate_config(tree, where="the benchmark")


def read_relevant(run: Path, id_column: str, day: datetime) -> pl.DataFrame:
    """Returns user and candidate of the conversions in the week from a day, of users with one before it."""
    bought = pl.scan_parquet(run / "events" / PARTS).filter(pl.col(columns.EVENT_TYPE) == "checkout")
    at = pl.col(columns.OCCURRED_AT)
    before = bought.filter(at < day).select(columns.USER_ID).unique()
    week = bought.filter((at >= day) & (at < day + WINDOW)).select(columns.USER_ID, id_column).unique()
    return week.join(before, on=columns.USER_ID).collect()


def measure_recall(folder: Path, relevant: pl.DataFrame, id_column: str) -> dict[str, float]:
    """Returns Recall@10 and @100 of the lists in a folder: hits / number relevant, the mean over users."""
    lists = pl.read_parquet(folder / PARTS).select(columns.USER_ID, id_column, columns.RANK)
    joined = relevant.join(lists, on=[columns.USER_ID, id_column], how="left")
    by_user = joined.group_by(columns.USER_ID).agg(
        (pl.col(columns.RANK) <= top).fill_null(False).mean().alias(f"recall_at_{top}") for top in TOP
    )
    means = by_user.select(f"recall_at_{top}" for top in TOP).mean()
    return {name: float(means[name][0]) for name in means.columns}


def rebuild(day: Day, level: Level, folder: Path) -> float:
    """Lists everyone anew on the day's sequences; returns the seconds that took."""
    started = time.perf_counter()
    write_candidates(Listing(day.workflow.candidate_task(level)), folder)
    return time.perf_counter() - started


def measure_day(config: RunConfig, run: Path, moment: datetime, *, reporter: Reporter) -> dict[str, Any]:
    """Runs a day and its full rebuild, and measures both."""
    started = time.perf_counter()
    done = run_day(config, run, moment, reporter=reporter)
    result: dict[str, Any] = {"day": moment.isoformat(), "whole_day_s": time.perf_counter() - started}
    day = Day(Workflow(config, run, reporter=reporter), moment)
    for level in config.levels:
        plural, id_column = PLURAL[level], ID_COLUMN[level]
        full = run / "full" / f"{moment:%Y%m%dT%H%M%S}" / plural
        full_s = rebuild(day, level, full)
        relevant = read_relevant(run, id_column, moment)
        facts = done.facts[plural]
        result[plural] = {
            **facts,
            "rebuild_seconds": full_s,
            "cost_ratio": facts["seconds"] / full_s,
            "daily": measure_recall(done.folder / "candidates" / plural, relevant, id_column),
            "rebuilt": measure_recall(full, relevant, id_column),
        }
    return result


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("runs/daily"), help="the run's folder")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures are written")
    asked = parser.parse_args()
    config = build_config()
    with ConsoleReporter() as reporter:
        Workflow(config, asked.output, reporter=reporter).run()
        days = []
        for number in range(asked.days + 1):
            moment = START + timedelta(days=number)
            days.append(measure_day(config, asked.output, moment, reporter=reporter))
            if number == 1:  # before lists get so old that they are made anew
                started = time.perf_counter()
                quiet = run_day(config, asked.output, moment + timedelta(seconds=1), reporter=reporter)
                nothing_new = {"seconds": time.perf_counter() - started, **quiet.facts}
    # The first day has none before it: everyone is listed.
    result = {"provenance": read_provenance(), "days": days[1:], "nothing_new": nothing_new}
    artifacts.write_json(asked.results / "daily.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
