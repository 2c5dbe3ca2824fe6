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

from benchmarks.figures import (
    RESULTS,
    advertiser_sections,
    build_parser,
    pick_table,
)
from forecart import artifacts
from forecart.bench import run_advertisers
from forecart.config import RunConfig, validate_config
from forecart.evaluation.provenance import read_provenance
from forecart.observe import ConsoleReporter

BASELINES = [
    "popularity_7d",
    "popularity_all",
    "frequency_popularity",
    "history_then_popularity",
    "markov",
    "item_knn",
    "basket_ease_popularity",
]
MODEL = {"id_embedding": "none", "temperature": 1.0}
TRAINING = {"num_epochs": 2, "cut_stride_days": 4, "batch_rows": 64, "learning_rate": 3e-4}


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
    run = run_advertisers(build_config(asked), asked.output, baselines=BASELINES, reporter=ConsoleReporter())
    return {"provenance": read_provenance(), "next_advertiser": run.tables}


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
    parser = build_parser(__doc__, seeds=3, model=MODEL, training=TRAINING)
    parser.add_argument("--data", type=Path, help="the Tmall 2014 events as Parquet")
    parser.add_argument("--num-cuts", type=int, default=12)
    parser.set_defaults(output=Path("runs/tmall"))
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
