"""Where a result comes from: versions, machine, commit and command, and what the data was.

Takes nothing but the environment and the folders of a run; gives plain values for `report.json`.
"""

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import polars as pl

from forecart import artifacts, columns

_PACKAGES: Final = ("forecart", "torch", "polars", "numpy", "scipy", "scikit-learn", "pyarrow")


def read_provenance() -> dict[str, Any]:
    """Returns versions, machine, commit and command of this process."""
    return {
        "forecart": metadata.version("forecart"),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "machine": f"{_cpu_name()}, {os.cpu_count()} cores, {_memory_gb():.0f} GB, {platform.system()}",
        "commit": _commit(),
        "command": _command(),
    }


def describe_data(events_folder: Path) -> dict[str, Any]:
    """Returns counts of a run's log: what was read and dropped, of whom and when."""
    manifest = artifacts.read_json(events_folder / artifacts.MANIFEST)
    log = pl.scan_parquet(sorted(events_folder.glob("part-*.parquet")))
    week = pl.col(columns.OCCURRED_AT).dt.truncate("1w")
    by_type = log.group_by(columns.EVENT_TYPE).len().sort("len", descending=True).collect()
    by_week = log.group_by(week).len().sort(columns.OCCURRED_AT).collect()
    return {
        "events": manifest["counts"],
        "catalogue": manifest["catalogue"],
        "num_users": manifest["num_users"],
        "num_advertisers": log.select(pl.col(columns.ADVERTISER_ID).n_unique()).collect().item(),
        "num_items": log.select(pl.col(columns.ITEM_ID).drop_nulls().n_unique()).collect().item(),
        "num_events": manifest["counts"]["accepted"],
        "first_event_at": manifest["first_occurred_at"],
        "last_event_at": manifest["last_occurred_at"],
        "events_by_type": dict(by_type.iter_rows()),
        "events_by_week": [[moment.isoformat(), count] for moment, count in by_week.iter_rows()],
    }


def describe_training(folder: Path, seeds: list[int]) -> dict[str, Any]:
    """Returns the facts of a trained model, the first of these seeds."""
    manifest = artifacts.read_json(folder / artifacts.MANIFEST)
    return {**{name: manifest[name] for name in ("curve", "num_parameters", "num_rows")}, "seeds": seeds}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _command() -> str:
    """The command line, without the folders of whoever ran it."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.orig_argv]
    # Of a path within a word too, such as `--option=PATH`.
    return re.sub(r"(?<=[=\s])/(?:[^/\s]*/)*", "", " ".join(words))


def _commit() -> str:
    """The commit of the checkout that this code runs from; for an installed package its version will do."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"
