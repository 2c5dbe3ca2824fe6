"""The figures of record on Complete Journey: `python -m benchmarks.complete_journey [--seeds 3]`.

Runs the demo configuration with several seeds (what is complete is only read), prints the means over seeds of
both targets with intervals of the differences, the encoder's own gain and the candidates without a training
event, and writes `results/complete_journey.json`. `--content none` is the ablation without content.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import METRICS, RESULTS, pick_table
from forecart import artifacts
from forecart.config import RunConfig, load_config, validate_config
from forecart.observe import ConsoleReporter
from forecart.workflow import Workflow

NOVEMBER: Final = [datetime(2017, 11, day, tzinfo=UTC) for day in (1, 8, 15, 22)]
"""The cuts of validation."""


def build_config(seeds: int, content: str) -> RunConfig:
    tree = load_config("demo").model_dump(mode="json")
    for section in ("next_advertiser", "next_product"):
        tree[section]["num_seeds"] = seeds
        tree[section]["model"]["content"] = content
    return validate_config(tree, where="the Complete Journey benchmark")


def pick_figures(report: dict[str, Any]) -> dict[str, Any]:
    """Pools of both targets: means over seeds where there are several, their spread, and the unseen slice."""
    figures: dict[str, Any] = {"provenance": report["provenance"]}
    for target in ("next_advertiser", "next_product"):
        tables = report[target]
        figures[target] = {pool: pick_table(tables[pool]) for pool in ("all", "novel", "repeat")}
        figures[target]["unseen"] = pick_table(tables["slices"]["unseen"])
    return figures


def show(figures: dict[str, Any]) -> None:
    for target in ("next_advertiser", "next_product"):
        for pool, table in figures[target].items():
            print(f"{target}, {pool}: {table['num_rows']} rows")
            for name, values in table.get("recall", {}).items():
                line = f"  {name:26s}" + " ".join(f"{values[metric]:.4f}" for metric in METRICS)
                if name != "model":
                    cells = [table["difference"][metric][name] for metric in METRICS]
                    line += "  " + " ".join(f"{m:+.4f} [{low:+.4f}, {high:+.4f}]" for m, low, high in cells)
                print(line)
            if "seed_to_seed" in table:
                print("  seed to seed", {m: round(v, 5) for m, v in table["seed_to_seed"].items()})
    print(json.dumps(figures["provenance"]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--content", choices=["auto", "none"], default="auto")
    parser.add_argument("--output", type=Path, default=Path("runs/demo"))
    asked = parser.parse_args()
    with ConsoleReporter() as reporter:
        Workflow(build_config(asked.seeds, asked.content), asked.output, reporter=reporter).run()
    figures = pick_figures(artifacts.read_json(asked.output / "evaluation" / "report.json"))
    show(figures)
    suffix = "" if asked.content == "auto" else "-without-content"
    artifacts.write_json(RESULTS / f"complete_journey{suffix}.json", figures)


if __name__ == "__main__":
    main()
