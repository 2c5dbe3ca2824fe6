"""How the cost of every stage grows: `python -m benchmarks.growth FOLDER --axis events --sizes 1e6 1e7`.

Writes a raw log of each size, runs every stage on it in a process of its own and adds the rows to
`results/scale-growth.json`; the folder of a size is removed when it is measured, and a stage that was
measured before a run was killed is not measured again. Along `events` a user has 64 of them and along `users`
10, along `items` a catalogue grows beside a small log. `--fit` measures nothing: it fits T = a n^b to what is
stored, CPU seconds that are at least two, and writes the laws that `forecart plan` reads; `--render` writes
docs/scaling.md and its plot.
"""

import argparse
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import RESULTS
from benchmarks.growth_page import render
from benchmarks.growth_plot import Series, draw
from benchmarks.raw_log import Shape, write_catalogue, write_raw_log
from benchmarks.stage_cost import STAGES, build_config, count_sizes, measure_stage, measured
from forecart import artifacts
from forecart.evaluation.provenance import read_provenance
from forecart.planning.laws import LAWS_FILE, fit_law, fit_line, load_laws

RESULT: Final = RESULTS / "scale-growth.json"
ROOT: Final = Path(__file__).parent.parent
DOCS: Final = ROOT / "docs"
LAWS: Final = ROOT / "src/forecart/planning" / LAWS_FILE
AS_OF: Final = "2026-03-05"
TOP_K: Final = 100
EVENTS_OF_ITEMS: Final = 20_000
ROWS_A_PARTITION: Final = 1 << 20
LEAST_CPU_S: Final = 2.0


@dataclass(frozen=True)
class Axis:
    """What grows, and which stages are measured along it."""

    size: str
    stages: tuple[str, ...]


AXES: Final = {
    "events": Axis("num_events", STAGES),
    "users": Axis("num_users", STAGES),
    "items": Axis("num_catalogue", ("events", "sequences")),
}

PLANNED: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "events": {stage: (stage,) for stage in STAGES},
    "users": {"training": ("training",), "candidates": ("candidates",)},
    "items": {"items": ("events", "sequences")},
}
"""Along each axis the names of the laws, and the stages that each is the sum of."""
MEMORY: Final = {
    "sequences by users": ("events", ("sequences",), "num_users"),
    "items by items": ("items", ("events", "sequences"), "num_catalogue"),
    "training by events": ("events", ("training",), "num_events"),
    "candidates by events": ("events", ("candidates",), "num_events"),
}
"""By name of a line of memory: axis, stages (the largest peak counts), and what it is a line of."""


def shape_of(axis: str, size: int) -> Shape:
    """Returns the log of one size along an axis."""
    if axis == "events":
        return Shape(size, max(1, size // 64), 1_000_000)
    if axis == "users":
        return Shape(10 * size, size, 100_000)
    return Shape(EVENTS_OF_ITEMS, EVENTS_OF_ITEMS // 64, size)


def measure(axis: str, size: int, folder: Path) -> list[dict[str, Any]]:
    """Returns a row for the log itself and for each stage of one size; what was measured before is kept."""
    shape, raw = shape_of(axis, size), folder / "raw"
    catalogue = raw / "catalogue.parquet" if axis == "items" else None
    costs = [_measure_once(folder, "raw log", lambda: _write_inputs(raw, shape, catalogue))]
    num_partitions = max(2, -(-shape.num_events // ROWS_A_PARTITION))
    logs = sorted(raw.glob("events-*.parquet"))
    config = build_config(logs, catalogue=catalogue, num_partitions=num_partitions, as_of=AS_OF)
    for stage in AXES[axis].stages:
        costs.append(_measure_once(folder, stage, partial(measure_stage, config, folder / "run", stage)))
        print(axis, f"{size:,}", costs[-1], flush=True)
    facts = {"axis": axis, "num_partitions": num_partitions, **count_sizes(folder / "run")}
    return [{**cost, **facts} for cost in costs]


def _measure_once(folder: Path, stage: str, measure_it: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns what a stage cost and of which commit that is, from its file when it is there already."""
    path = folder / "costs" / f"{stage}.json"
    if not path.exists():
        commit = read_provenance()["commit"]
        artifacts.write_json(path, {"stage": stage, "commit": commit, **measure_it()})
    found: dict[str, Any] = artifacts.read_json(path)
    return found


def _write_inputs(raw: Path, shape: Shape, catalogue: Path | None) -> dict[str, Any]:
    with measured() as cost:
        write_raw_log(raw, shape)
        if catalogue:
            write_catalogue(catalogue, shape)
    return cost.to_facts()


def fit(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the laws of time and the lines of memory, by the names that `forecart plan` knows them by."""
    laws, memory = {}, {}
    for axis, stages in PLANNED.items():
        for name, parts in stages.items():
            points = _sum_by_size(rows, axis, parts, AXES[axis].size)
            timed = [(size, cpu_s) for size, cpu_s, _ in points if cpu_s >= LEAST_CPU_S]
            if len(timed) > 1:
                laws[f"{name} by {axis}"] = fit_law(timed).to_facts()
    for name, (axis, parts, size_name) in MEMORY.items():
        held = [(size, gb) for size, _, gb in _sum_by_size(rows, axis, parts, size_name)]
        if len(held) > 1:
            memory[name] = fit_line(held).to_facts()
    return {"laws": laws, "memory": memory}


def _sum_by_size(
    rows: list[dict[str, Any]], axis: str, stages: tuple[str, ...], size_name: str
) -> list[tuple[int, float, float]]:
    """Returns size, CPU seconds of these stages together, and the larger of their own peaks of memory."""
    found = [row for row in rows if row["axis"] == axis and row["stage"] in stages]
    by_size: dict[int, list[dict[str, Any]]] = {}
    for row in found:
        by_size.setdefault(row[size_name], []).append(row)
    whole = {size: some for size, some in sorted(by_size.items()) if len(some) == len(stages)}
    return [
        (size, sum(row["cpu_s"] for row in some), max(row["own_gb"] for row in some))
        for size, some in whole.items()
    ]


def read_bytes(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Returns the sizes that no format fixes, of the largest log that was measured."""
    along = [row for row in rows if row["axis"] == "events"]
    largest = {
        stage: max((row for row in along if row["stage"] == stage), key=lambda row: row["num_events"])
        for stage in ("events", "candidates")
    }
    events, lists = largest["events"], largest["candidates"]
    return {
        "stored_event": events["disk_bytes"] / events["num_events"],
        "candidate_row": lists["disk_bytes"] / lists["num_users"] / TOP_K,
        # The whole peak of the stage, so too much rather than too little.
        "partition_row": events["own_gb"] * 1e9 * events["num_partitions"] / events["num_events"],
    }


def read_rates(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns what was measured at one size, here or by other benchmarks, with where and when."""
    index, serving = (
        artifacts.read_json(RESULTS / f"{name}.json") for name in ("scale-retrieval", "serving")
    )
    published = max((row for row in rows if row["stage"] == "publish"), key=lambda row: row["num_users"])
    machine = artifacts.read_json(RESULT)["provenance"]["machine"]
    at_indexes, at_serving = index["provenance"]["indexes"], serving["provenance"]
    at_publish = {"machine": machine, "commit": published["commit"]}
    file, num_items = index["indexes"]["inverted_file"], index["num_rows"]
    memory_mb = file["own_memory_mb"] + file["mapped_memory_mb"]
    found = {
        "index_build_per_cpu_s": (num_items / file["build_s"], num_items, at_indexes),
        "item_lists_per_cpu_s": (file["users_per_s"], num_items, at_indexes),
        "index_disk_bytes_an_item": (file["disk_mb"] * 1e6 / num_items, num_items, at_indexes),
        "index_memory_bytes_an_item": (memory_mb * 1e6 / num_items, num_items, at_indexes),
        "publish_per_cpu_s": (
            published["num_users"] / published["cpu_s"],
            published["num_users"],
            at_publish,
        ),
        "request_cpu_us": (
            serving["L1"]["cpu_us_a_request"]["advertisers"],
            serving["num_users"],
            at_serving,
        ),
    }
    return {
        name: {"value": value, "size": size, **_where(provenance)}
        for name, (value, size, provenance) in found.items()
    }


def _where(provenance: dict[str, Any]) -> dict[str, str]:
    return {name: provenance[name] for name in ("machine", "commit")}


def write_laws(result: dict[str, Any]) -> None:
    """Writes what `forecart plan` reads: the laws, and what was measured beside them."""
    rows = result["rows"]
    found = {
        **fit(rows),
        "bytes": read_bytes(rows),
        "rates": read_rates(rows),
        "measured": _where(result["provenance"]),
    }
    artifacts.write_json(LAWS, found)


def draw_rows(rows: list[dict[str, Any]], laws: dict[str, Any]) -> str:
    """Returns the plot of every law with its points."""
    series = []
    for axis, stages in PLANNED.items():
        for name, parts in stages.items():
            points = _sum_by_size(rows, axis, parts, AXES[axis].size)
            series.append(Series(f"{name} by {axis}", [(size, cpu_s) for size, cpu_s, _ in points]))
    return draw([one for one in series if one.points], laws, least_cpu_s=LEAST_CPU_S)


def add_rows(rows: list[dict[str, Any]]) -> None:
    """Adds rows to the stored ones; those of the same stage, axis and size give way."""
    result = artifacts.read_json(RESULT) if RESULT.exists() else {"rows": []}
    new = {_row_key(row) for row in rows}
    kept = [row for row in result["rows"] if _row_key(row) not in new]
    result["rows"] = kept + rows
    result["provenance"] = read_provenance()
    artifacts.write_json(RESULT, result)


def _row_key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["axis"], row["stage"], row[AXES[row["axis"]].size]


def main() -> None:
    parser = argparse.ArgumentParser(description="How the cost of every stage grows.")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--axis", choices=sorted(AXES), default="events")
    parser.add_argument("--sizes", type=lambda text: int(float(text)), nargs="+", default=[])
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--render", action="store_true")
    asked = parser.parse_args()
    for size in asked.sizes:
        folder = asked.folder / f"{asked.axis}-{size}"
        rows = measure(asked.axis, size, folder)
        shutil.rmtree(folder)
        add_rows(rows)
    if asked.fit:
        write_laws(artifacts.read_json(RESULT))
    if asked.render:
        result = artifacts.read_json(RESULT)
        found = load_laws()
        artifacts.write_text(DOCS / "scaling.svg", draw_rows(result["rows"], found["laws"]))
        artifacts.write_text(DOCS / "scaling.md", render(result, found))


if __name__ == "__main__":
    main()
