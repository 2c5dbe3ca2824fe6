"""What an engine costs: `python -m benchmarks.engines [--events 600000] [--rounds 2]`.

Makes a synthetic log of some files and trains small models on it once. Then, in turns, prepares the data and
lists everyone with one worker in this process, with processes and on Ray of this machine: seconds, and
processor seconds of everything that runs for it, workers and Ray's own processes included. What is written
must be the same bytes everywhere. Writes `results/scale-engines.json`.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import polars as pl

from benchmarks.figures import RESULTS
from forecart import artifacts
from forecart.config import RunConfig, load_config, validate_config
from forecart.engine.choice import opened_engine
from forecart.evaluation.provenance import read_provenance
from forecart.events.adapters import open_adapter
from forecart.events.schema import SourceConfig

ENGINES: Final = [("local", 1), ("local", 2), ("ray", 1), ("ray", 2)]
NUM_FILES: Final = 8
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def write_log(folder: Path, num_events: int) -> list[str]:
    """Writes the world of nano, larger, to Parquet files."""
    world = load_config("nano").source.synthetic
    assert world is not None
    world = world.model_copy(update={"num_events": num_events})
    source = open_adapter(SourceConfig(adapter="synthetic", synthetic=world))
    log = pl.concat(source.chunks()).drop("source", "offset")
    names = []
    for number in range(NUM_FILES):
        names.append(str(folder / f"{number}.parquet"))
        log[number::NUM_FILES].write_parquet(names[-1])
    pl.concat(source.catalogue()).drop("source", "offset").write_parquet(folder / "catalogue.parquet")
    return names


def make_config(folder: Path, names: list[str]) -> RunConfig:
    """Nano on these files, hardly trained: what a model knows does not change what listing costs."""
    settings = load_config("nano").model_dump(mode="json")
    settings["source"] = {"adapter": "files", "events": names, "catalogue": str(folder / "catalogue.parquet")}
    settings["events"]["num_partitions"] = NUM_FILES
    settings["split"]["test_cuts"] = []
    settings["labels"]["cuts_per_user"] = 1
    settings["candidates"]["block_users"] = 16
    settings["next_advertiser"]["ablate_encoder"] = False
    for section in ("next_advertiser", "next_product"):
        settings[section]["training"]["num_epochs"] = 1
    return validate_config(settings, where="benchmarks.engines")


def cpu_seconds() -> float:
    """Returns processor time of this process, of all that it started and of all that those started."""
    return _tree_cpu_s(os.getpid())


def _tree_cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return 0.0  # it has just ended: its time is its parent's
    # Own, and of children that have ended.
    return sum(map(int, fields[11:15])) / _TICKS + sum(map(_tree_cpu_s, children))


def measure(work: Callable[[], Any]) -> dict[str, float]:
    """Returns seconds and processor seconds of some work."""
    started_s, before_s = time.perf_counter(), cpu_seconds()
    work()
    return {"seconds": time.perf_counter() - started_s, "core_seconds": cpu_seconds() - before_s}


def run_once(config: RunConfig, trained: Path, folder: Path, engine: tuple[Any, int]) -> dict[str, Any]:
    """Prepares and lists in a new folder, on the models of another; measures both and starting the engine."""
    from forecart.workflow import Workflow

    shutil.copytree(trained / "training", folder / "training")
    name, num_workers = engine
    figures: dict[str, Any] = {}
    started_s, before_s = time.perf_counter(), cpu_seconds()
    with opened_engine(name, num_workers=num_workers) as opened:
        figures["start"] = {
            "seconds": time.perf_counter() - started_s,
            "core_seconds": cpu_seconds() - before_s,
        }
        workflow = Workflow(config, folder, engine=opened)

        def prepare() -> None:
            workflow.events()
            workflow.sequences()

        figures["preparation"] = measure(prepare)
        figures["lists"] = measure(workflow.list_candidates)
    costs = [artifacts.read_json(path)["cost"] for path in (folder / "candidates").glob("*/manifest.json")]
    figures["peak_worker_mb"] = max(cost["peak_worker_bytes"] for cost in costs) / 1e6
    figures["num_users"] = costs[0]["num_users"]
    stages = ("events", "sequences", "candidates")
    figures["hashes"] = {stage: artifacts.hash_folder(folder / stage) for stage in stages}
    return figures


def summarise(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Returns medians over the rounds, and ratios to one worker in this process in the same round."""
    found: dict[str, Any] = {}
    for engine, figures in rounds.items():
        found[engine] = {"peak_worker_mb": max(one["peak_worker_mb"] for one in figures)}
        for step in ("start", "preparation", "lists"):
            for unit in ("seconds", "core_seconds"):
                values = [one[step][unit] for one in figures]
                found[engine][f"{step}_{unit}"] = statistics.median(values)
                if step != "start":
                    alone = [one[step][unit] for one in rounds["local-1"]]
                    ratios = [value / other for value, other in zip(values, alone, strict=True)]
                    found[engine][f"{step}_{unit}_ratio"] = statistics.median(ratios)
    return found


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=600_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures are written")
    asked = parser.parse_args()
    # Not above: new processes import this module, as they import that of the command line, without torch.
    from forecart.workflow import Workflow

    rounds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        config = make_config(root, write_log(root, asked.events))
        Workflow(config, root / "trained").learn()
        for number in range(asked.rounds):
            for engine in ENGINES:
                label = f"{engine[0]}-{engine[1]}"
                figures = run_once(config, root / "trained", root / f"{label}-{number}", engine)
                rounds[label].append(figures)
                assert figures["hashes"] == rounds["local-1"][0]["hashes"]
                print(label, json.dumps({key: figures[key] for key in ("start", "preparation", "lists")}))
            result = {
                "provenance": read_provenance(),
                "num_events": asked.events,
                "num_users": rounds["local-1"][0]["num_users"],
                "rounds": number + 1,
                "engines": summarise(rounds),
            }
            artifacts.write_json(asked.results / "scale-engines.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
