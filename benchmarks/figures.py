"""What benchmarks share: the sections of an advertiser run, and what is kept of its tables."""

import argparse
import json
from typing import Any

METRICS = ("recall_at_1", "recall_at_10", "recall_at_20", "recall_at_100")


def advertiser_sections(asked: argparse.Namespace, cut: Any) -> dict[str, Any]:
    """Next advertiser alone, with and without the encoder, learned up to the one cut it is measured at."""
    return {
        "split": {"as_of": cut, "test_cuts": [cut], "validate_before": False},
        "next_advertiser": {
            "ablate_encoder": True,
            "num_seeds": asked.seeds,
            "model": json.loads(asked.model),
            "training": json.loads(asked.training),
        },
        "next_product": {"is_enabled": False},
    }


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
