"""What benchmarks share: the options, sections and tables of an advertiser run, and what is kept of them."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

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
    description: str | None, *, seeds: int, model: Mapping[str, Any], training: Mapping[str, Any]
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
            type=merge_into(chosen),
            default=dict(chosen),
            help=f"settings as JSON, over the ones chosen: {json.dumps(dict(chosen))}".replace("%", "%%"),
        )
    parser.add_argument("--output", type=Path, help="the run's folder; runs/NAME by default")
    return parser


def stored_parser(description: str | None) -> argparse.ArgumentParser:
    """Options of a benchmark whose table is rendered from what is stored."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures are written")
    parser.add_argument("--render", action="store_true", help="print the tables of what is stored")
    return parser


def merge_into(chosen: Mapping[str, Any]) -> Callable[[str], dict[str, Any]]:
    """Returns a reader of JSON that lays what it read over the chosen settings."""

    def merge(text: str) -> dict[str, Any]:
        return {**chosen, **json.loads(text)}

    return merge


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
