"""Next brand on the Tmall 2014 log: `python -m benchmarks.tmall --data PATH/events.parquet`.

884 users, 9,531 brands, days as times, no items. Test cut 2013-07-16, positives the brands bought in the 31
days that follow; users without an event before the cut are measured too. Settings were chosen at the cut
2013-06-15 (`--validation`). Prints the model against every baseline with intervals and the smallest
difference that this number of users can detect; writes `results/tmall.json`. The data is not part of this
project: without `--data` the benchmark says so and stops.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.figures import advertiser_sections, pick_table
from forecart import artifacts
from forecart.config import RunConfig, to_us, validate_config
from forecart.evaluation.provenance import read_provenance
from forecart.evaluation.targets import measure_target, tabulate_target
from forecart.observe import ConsoleReporter
from forecart.workflow import Workflow

BASELINES = [
    "popularity_7d",
    "popularity_all",
    "frequency_popularity",
    "history_then_popularity",
    "markov",
    "item_knn",
    "basket_ease_popularity",
]
RESULTS = Path(__file__).parent / "results"


def build_config(asked: argparse.Namespace) -> RunConfig:
    cut = "2013-06-15" if asked.validation else "2013-07-16"
    tree: dict[str, Any] = {
        "name": "tmall",
        "source": {"adapter": "tmall_2014", "events": [str(asked.data)]},
        "labels": {
            "positives": {"checkout": 1.0},
            "window_days": 31,
            "cuts_per_user": asked.num_cuts,
        },
        **advertiser_sections(asked, cut),
        "evaluation": {"with_prior_only": False},
    }
    return validate_config(tree, where="the Tmall benchmark")


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    config = build_config(asked)
    workflow = Workflow(config, asked.output, reporter=ConsoleReporter())
    workflow.learn()
    data = workflow.target_data("advertiser", [to_us(cut) for cut in config.split.test_cuts])
    scorers = workflow.scorers("advertiser")
    measured = measure_target(data, scorers, baselines=BASELINES, index_size=0, seed=0)
    return {
        "provenance": read_provenance(),
        "next_advertiser": tabulate_target(data, measured, num_samples=2000),
    }


def show(result: dict[str, Any]) -> None:
    for pool in ("all", "novel"):
        table = result["next_advertiser"][pool]
        print(f"{pool}: {table['num_rows']} users, {table['num_relevant']} pairs")
        for metric in ("recall_at_10", "recall_at_100"):
            seeds = table.get("seeds", {}).get("values", {}).get("model", {}).get(metric)
            print(f"  {metric}: model {table['model'][metric]:.4f}" + (f", seeds {seeds}" if seeds else ""))
            for name, difference in table["difference"][metric].items():
                print(
                    f"    minus {name:26s} {table['baselines'][name][metric]:.4f}: {difference['mean']:+.4f} "
                    f"[{difference['ci_low']:+.4f}, {difference['ci_high']:+.4f}], detectable "
                    f"{difference['minimum_detectable']:.4f}"
                )
    print(json.dumps(result["provenance"]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the Tmall 2014 events as Parquet")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num-cuts", type=int, default=12)
    parser.add_argument("--validation", action="store_true", help="the cut that settings are chosen at")
    parser.add_argument(
        "--model", default='{"id_embedding": "none", "temperature": 1.0}', help="model settings as JSON"
    )
    parser.add_argument(
        "--training",
        default='{"num_epochs": 2, "cut_stride_days": 4, "batch_rows": 64, "learning_rate": 3e-4}',
        help="training settings as JSON",
    )
    parser.add_argument("--output", type=Path, default=Path("runs/tmall"))
    asked = parser.parse_args()
    if asked.data is None or not asked.data.exists():
        print(f"skipped: the Tmall 2014 log is not at {asked.data}; give its path with --data")
        return
    result = measure(asked)
    show(result)
    if not asked.validation:
        tables = result.pop("next_advertiser")
        kept = {pool: pick_table(tables[pool]) for pool in ("all", "novel")}
        artifacts.write_json(RESULTS / "tmall.json", {**result, "next_advertiser": kept})


if __name__ == "__main__":
    main()
