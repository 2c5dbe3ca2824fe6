"""What the whole pipeline costs: `python -m benchmarks.pipeline FOLDER [--num-events N]` (row L9).

Generates a synthetic world while it reads it, trains both targets with small models, measures them, lists
candidates for everyone and renders the report. Tells the seconds of each stage on standard error, and as JSON
on standard output with the peak memory and the stages that had work to do. The same command again on the same
folder shows what a run with nothing new costs. The world grows with N: 20 events a user, 2,000 advertisers.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from forecart.config import RunConfig, validate_config
from forecart.observe import SilentReporter
from forecart.workflow import Workflow

MODEL = {"width": 32, "num_layers": 1, "history_length": 20, "id_rows": 4096}
TRAINING = {"num_epochs": 2, "batch_rows": 256, "loss": {"kind": "sampled", "num_negatives": 512}}
TARGET = {"model": MODEL, "training": TRAINING}


class Noting(SilentReporter):
    """Notes the stages that were not complete already."""

    def __init__(self) -> None:
        self.worked: list[str] = []

    def stage(self, name: str, *, is_done: bool = False) -> None:
        if not is_done:
            self.worked.append(name)


def build_config(num_events: int) -> RunConfig:
    tree: dict[str, Any] = {
        "name": "pipeline",
        "source": {
            "adapter": "synthetic",
            "synthetic": {
                "num_events": num_events,
                "events_per_day": 20 / 67.5,
                "num_intents": 20,
                "advertisers_per_intent": 100,
                "items_per_advertiser": 4,
            },
        },
        "labels": {
            "positives": {"checkout": 1.0, "signup": 1.0, "add_to_cart": 0.5},
            "cuts_per_user": 4,
        },
        "split": {"as_of": "2025-03-20", "test_cuts": ["2025-03-20"]},
        "next_advertiser": TARGET,
        "next_product": TARGET,
        "evaluation": {"num_samples": 500},
    }
    return validate_config(tree, where="benchmarks/pipeline.py")


def time_stages(workflow: Workflow) -> dict[str, float]:
    """Runs every stage in order and returns the seconds that each took."""
    steps = {
        "events": workflow.events,
        "sequences": workflow.sequences,
        "train advertisers": lambda: workflow.train("advertiser"),
        "train products": lambda: workflow.train("item"),
        "evaluation": workflow.evaluate,
        "candidates": workflow.list_candidates,
        "report": workflow.report,
    }
    seconds = {}
    for name, step in steps.items():
        start_s = time.perf_counter()
        step()
        seconds[name] = round(time.perf_counter() - start_s, 2)
        print(f"{name:18} {seconds[name]:8.1f} s", file=sys.stderr)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="What the whole pipeline costs.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num-events", type=int, default=100_000)
    asked = parser.parse_args()
    noting = Noting()
    seconds = time_stages(Workflow(build_config(asked.num_events), asked.folder, reporter=noting))
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kilobytes on Linux
    print(json.dumps({"seconds": seconds, "peak_gb": round(peak_gb, 2), "worked": noting.worked}))


if __name__ == "__main__":
    main()
