"""What one stage of a run costs, measured in a process of its own.

CPU seconds are of the process and its children, so other work on the machine counts only through shared
caches. There are two peaks of memory: `own_gb`, which nobody can take back, and `resident_gb`, which also
counts the pages of mapped files that the stage touched and the system may drop at any time.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from benchmarks.process_memory import MemoryWatch
from forecart import artifacts
from forecart.config import RunConfig, validate_config
from forecart.events.ingest import CATALOGUE_FILE
from forecart.publish.publisher import Publisher
from forecart.publish.run_parts import read_run
from forecart.publish.stores import open_store
from forecart.workflow import Workflow

STAGES: Final = ("events", "sequences", "training", "candidates", "publish")
"""In their order; each is also the name of its folder."""
TTL_S: Final = 8 * 86_400
TIMEOUT_S: Final = 10.0


@dataclass
class Cost:
    """What some work took, filled in when it is done."""

    peaks: dict[str, int]
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def to_facts(self) -> dict[str, float]:
        """Returns plain numbers, gigabytes of 10^9 bytes."""
        own, resident = (self.peaks[name] / 1e6 for name in ("RssAnon", "VmRSS"))
        return {"wall_s": self.wall_s, "cpu_s": self.cpu_s, "own_gb": own, "resident_gb": resident}


@contextmanager
def measured() -> Iterable[Cost]:
    """Measures what is done inside; memory is looked at twenty times a second."""
    with MemoryWatch() as memory:
        cost = Cost(peaks=memory.peak_kb)
        wall_s, cpu_s = time.perf_counter(), _cpu_s()
        try:
            yield cost
        finally:
            cost.wall_s, cost.cpu_s = time.perf_counter() - wall_s, _cpu_s() - cpu_s


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def build_config(logs: list[Path], *, catalogue: Path | None, num_partitions: int, as_of: str) -> RunConfig:
    """A run on a raw log: next advertiser, small towers without co-conversion vectors.

    Training is bounded: one epoch over one cut with a label window of a day.
    """
    tree: dict[str, Any] = {
        "name": "growth",
        "source": {"events": logs, "catalogue": catalogue},
        "events": {"num_partitions": num_partitions},
        "labels": {
            "positives": {"checkout": 1.0, "signup": 1.0, "add_to_cart": 0.5},
            "cuts_per_user": 1,
            "window_days": 1,
        },
        "split": {"as_of": as_of, "validate_before": False},
        "next_advertiser": {
            "model": {
                "width": 32,
                "num_layers": 1,
                "history_length": 20,
                "content": "none",
                "collaborative_width": 0,
            },
            "training": {
                "num_epochs": 1,
                "batch_rows": 2048,
                "loss": {"kind": "sampled", "num_negatives": 512},
            },
        },
        "next_product": {"is_enabled": False},
        "candidates": {"as_of": as_of},
    }
    return validate_config(tree, where="the growth benchmark")


def run_stage(config: RunConfig, folder: Path, stage: str) -> None:
    """Runs one stage; those before it are complete."""
    workflow = Workflow(config, folder)
    work: dict[str, Callable[[], Any]] = {
        "events": workflow.events,
        "sequences": workflow.sequences,
        "training": lambda: workflow.train("advertiser"),
        "candidates": lambda: workflow.candidates("advertiser"),
        "publish": lambda: publish(folder, folder / "publish"),
    }
    work[stage]()


def publish(run: Path, releases: Path) -> None:
    """Makes a release of a run, checks it and points to it."""
    publisher = Publisher(releases, open_store(releases, None, timeout_s=TIMEOUT_S))
    publisher.publish(lambda suppressed: read_run(run, suppressed=suppressed, ttl_s=TTL_S))


def measure_stage(config: RunConfig, folder: Path, stage: str) -> dict[str, Any]:
    """Runs one stage in a process of its own and returns what it cost."""
    command = [sys.executable, "-m", "benchmarks.stage_cost", str(folder), stage]
    done = subprocess.run(
        command, input=config.model_dump_json(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"stage {stage} must end well, it did not: {done.stderr[-2000:]}")
    return {**json.loads(done.stdout), "disk_bytes": count_bytes(folder / stage)}


def count_bytes(folder: Path) -> int:
    """Returns the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def count_sizes(folder: Path) -> dict[str, int]:
    """Returns how much of everything the finished stages of a run hold."""
    sizes = {"num_events": artifacts.read_json(folder / "events/manifest.json")["counts"]["accepted"]}
    sequences = folder / "sequences/manifest.json"
    if sequences.exists():
        found = artifacts.read_json(sequences)["vocabularies"]
        sizes |= {f"num_{name}": found[name]["num_ids"] for name in ("users", "advertisers", "items")}
    sizes["num_catalogue"] = (
        pl.scan_parquet(folder / "events" / CATALOGUE_FILE).select(pl.len()).collect().item()
    )
    return sizes


def main() -> None:
    folder, stage = Path(sys.argv[1]), sys.argv[2]
    config = RunConfig.model_validate_json(sys.stdin.read())
    with measured() as cost:
        run_stage(config, folder, stage)
    print(json.dumps(cost.to_facts()))


if __name__ == "__main__":
    main()
