"""What benchmarks share: the options, sections and tables of an advertiser run, and what is kept of them."""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forecart.config import RunConfig, to_us
from forecart.evaluation.protocol import Scorer
from forecart.evaluation.targets import TargetData, measure_target, tabulate_target
from forecart.observe import ConsoleReporter
from forecart.workflow import Workflow

RESULTS = Path(__file__).parent / "results"
METRICS = ("recall_at_1", "recall_at_10", "recall_at_20", "recall_at_100")


def advertiser_sections(asked: argparse.Namespace, cut: Any) -> dict[str, Any]:
    """Next advertiser alone, with and without the encoder, learned up to the one cut it is measured at."""
    return {
        "split": {"as_of": cut, "test_cuts": [cut], "validate_before": False},
        "next_advertiser": {
            "ablate_encoder": True,
            "num_seeds": asked.seeds,
            "model": asked.model,
            "training": asked.training,
        },
        "next_product": {"is_enabled": False},
    }


def build_parser(
    description: str | None, *, seeds: int, model: dict[str, Any], training: dict[str, Any]
) -> argparse.ArgumentParser:
    """Options of every benchmark that trains; the settings are merged over the ones given here."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--validation", action="store_true", help="measure where settings are chosen")
    for name, chosen in (("--model", model), ("--training", training)):
        parser.add_argument(
            name,
            type=_merge_into(chosen),
            default=chosen,
            help=f"settings as JSON, over the ones chosen: {json.dumps(chosen)}".replace("%", "%%"),
        )
    parser.add_argument("--output", type=Path, help="the run's folder; runs/NAME by default")
    return parser


def _merge_into(chosen: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
    def merge(text: str) -> dict[str, Any]:
        return chosen | json.loads(text)

    return merge


@dataclass(frozen=True, eq=False)
class AdvertiserRun:
    """A finished run: its workflow, what was measured, the tables by pool, and what learning took."""

    workflow: Workflow
    data: TargetData
    tables: dict[str, Any]
    learn_s: float
    learn_cpu_s: float


def run_advertisers(
    config: RunConfig,
    folder: Path,
    *,
    baselines: Sequence[str],
    more: Callable[[Workflow], list[Scorer]] = lambda workflow: [],
) -> AdvertiserRun:
    """Learns what is not learned yet and measures at the test cuts.

    Args:
        config: the run.
        folder: of its artifacts.
        baselines: by name.
        more: further scorers, built once the workflow has learned.
    """
    workflow = Workflow(config, folder, reporter=ConsoleReporter())
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    workflow.learn()
    learn_s, learn_cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    data = workflow.target_data("advertiser", [to_us(cut) for cut in config.split.test_cuts])
    scorers = [*workflow.scorers("advertiser"), *more(workflow)]
    measured = measure_target(data, scorers, baselines=baselines, index_size=0, seed=0)
    tables = tabulate_target(data, measured, num_samples=2000)
    return AdvertiserRun(workflow, data, tables, learn_s, learn_cpu_s)


def pick_table(table: dict[str, Any]) -> dict[str, Any]:
    if not table["model"]:
        return {"num_rows": table["num_rows"]}
    seeds = table.get("seeds")
    means = {"model": table["model"], **table["baselines"]}
    picked: dict[str, Any] = {
        "num_rows": table["num_rows"],
        "num_relevant": table["num_relevant"],
        "recall": {name: {metric: values[metric] for metric in METRICS} for name, values in means.items()},
    }
    differences = table["difference"]
    if seeds:
        differences = seeds["difference"]
        picked["recall"] |= {
            name: {metric: values[metric] for metric in METRICS} for name, values in seeds["mean"].items()
        }
        picked["seed_to_seed"] = {metric: seeds["standard_deviation"]["model"][metric] for metric in METRICS}
    picked["difference"] = {
        metric: {
            name: [interval["mean"], interval["ci_low"], interval["ci_high"]]
            for name, interval in differences[metric].items()
        }
        for metric in METRICS
    }
    return picked
