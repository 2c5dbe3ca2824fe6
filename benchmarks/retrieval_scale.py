"""Indexes that outgrow the memory: `python -m benchmarks.retrieval_scale --rows 10000000 [--codes int8]`.

Unit vectors of width 64 in clusters (`MadeVectors`), made of their numbers when they are read, so that no
memory or disk holds them but the index. A process builds it, another one opens and searches it, and of both
the CPU time of one thread and the memory are told; recall is that of the exact top 100, which a pass over all
vectors finds meanwhile. What has been measured of other sizes stays in `results/scale-retrieval-large.json`;
`--render` prints the tables.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks.figures import stored_parser
from benchmarks.index_vectors import WIDTH, MadeVectors
from benchmarks.retrieval_tables import render_large
from forecart import artifacts
from forecart.evaluation.provenance import read_provenance
from forecart.retrieval.index.group_max import GroupMaxScan
from forecart.retrieval.index.tuning import index_recall_at_k
from forecart.retrieval.top_k import TopK, merge_lists, no_lists
from forecart.sequences.vocabulary import FIRST_INDEX

TOP_K: Final = 100
NUM_SEARCHED: Final = 1_000
BLOCK_ROWS: Final = 1 << 20
CHILD: Final = Path(__file__).with_name("retrieval_scale_child.py")
FILE: Final = "scale-retrieval-large.json"


def run_child(stage: str, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Runs a stage in a process of its own: what it says of itself."""
    options = [stage, str(folder), str(asked.rows), asked.codes, str(asked.tuned), str(asked.lists)]
    command = [sys.executable, "-m", f"benchmarks.{CHILD.stem}", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def run_once(stage: str, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Runs a stage, or takes what it said when it ran for this folder before."""
    noted = folder.with_name(f"{stage}.json")
    asked_for = {name: getattr(asked, name) for name in ("rows", "codes", "tuned", "lists")}
    if not noted.exists():
        artifacts.write_json(noted, {"asked_for": asked_for, "figures": run_child(stage, folder, asked)})
    found = artifacts.read_json(noted)
    if found["asked_for"] != asked_for:
        raise SystemExit(f"{noted} is of {found['asked_for']}, not of {asked_for}: name another folder")
    figures: dict[str, Any] = found["figures"]
    print(json.dumps(figures, indent=2), flush=True)
    return figures


def find_exact(vectors: MadeVectors, num_users: int) -> tuple[TopK, dict[str, float]]:
    """Returns the exact lists of the first users, and what the search took without making the vectors."""
    user_BD = vectors.make_users(NUM_SEARCHED)[:num_users]
    found = no_lists(num_users, TOP_K)
    cpu_s = wall_s = 0.0
    for first in range(0, len(vectors), BLOCK_ROWS):
        block = vectors[first : first + BLOCK_ROWS]
        candidate_M = np.arange(first, first + len(block), dtype=np.int32) + FIRST_INDEX
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        part = GroupMaxScan()(block, candidate_M, user_BD, top_k=TOP_K)
        found = merge_lists([found, part], TOP_K)
        cpu_s += time.process_time() - began_cpu_s
        wall_s += time.perf_counter() - began_s
    return found, {"cpu_seconds": cpu_s / num_users, "wall": wall_s / num_users}


def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Builds, searches and compares with exact search."""
    built = run_once("build", folder / "index", asked)
    searched = run_once("search", folder / "index", asked)
    exact, taken = find_exact(MadeVectors(asked.rows), asked.exact)
    candidate_BK = artifacts.read_npy(folder / "index.found.npy")[: asked.exact]
    found = TopK(np.array(candidate_BK), exact.score)
    recall_B = index_recall_at_k(found, exact)
    return {
        "num_rows": asked.rows,
        "codes": asked.codes,
        "lists": asked.lists,
        "num_recall": asked.exact,
        "recall_at_100": float(recall_B.mean()),
        "recall_error": float(recall_B.std() / np.sqrt(len(recall_B))),
        "build": built,
        "search": searched,
        "exact": taken,
    }


def growth(sizes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns what each stage took at each size: of searches, for one user."""
    rows = []
    for one in sizes:
        if one["lists"]:
            continue  # of another rule than the other sizes
        stages = {
            "exact search": one["exact"],
            **{f"{one['codes']} index: {stage}": taken for stage, taken in one["build"]["stages"].items()},
            **{f"{one['codes']} index: {stage}": taken for stage, taken in one["search"]["stages"].items()},
        }
        rows += [{"stage": stage, "size": one["num_rows"], **taken} for stage, taken in stages.items()]
    return rows


def fit_laws(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Returns for each stage the slope of the logarithm of CPU time over that of the size, least squares."""
    laws = {}
    for stage in sorted({row["stage"] for row in rows}):
        taken = [row for row in rows if row["stage"] == stage]
        sizes = np.log10([row["size"] for row in taken])
        if len(set(sizes)) > 1:
            slope, intercept = np.polyfit(sizes, np.log10([row["cpu_seconds"] for row in taken]), 1)
            laws[stage] = {
                "slope": float(slope),
                "seconds_at_a_million": float(10 ** (intercept + 6 * slope)),
            }
    return laws


def _kind(one: dict[str, Any]) -> tuple[int, str, int]:
    return one["num_rows"], one["codes"], one["lists"]


def store(path: Path, measured: dict[str, Any]) -> None:
    """Puts a measurement in the place of an earlier one of that size."""
    stored = artifacts.read_json(path) if path.exists() else {"width": WIDTH, "sizes": []}
    others = [one for one in stored["sizes"] if _kind(one) != _kind(measured)]
    sizes = sorted([*others, measured], key=_kind)
    rows = growth(sizes)
    artifacts.write_json(path, {"width": WIDTH, "sizes": sizes, "growth": rows, "laws": fit_laws(rows)})


def main() -> None:
    parser = stored_parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="items")
    parser.add_argument("--codes", default="int8", help="float16 or int8: what the lists hold")
    parser.add_argument("--lists", type=int, default=0, help="number of lists; 0 for the default")
    parser.add_argument("--exact", type=int, default=200, help="users that recall is measured on")
    parser.add_argument("--tuned", type=int, default=1_000, help="users that the index is tuned with")
    parser.add_argument("--folder", type=Path, help="of the index, to be kept; what is there is taken")
    asked = parser.parse_args()
    path = asked.results / FILE
    if not asked.render:
        torch.set_num_threads(1)
        provenance = read_provenance()
        with tempfile.TemporaryDirectory() as folder:
            measured = measure(asked, asked.folder or Path(folder))
        store(path, {"provenance": provenance, **measured})
    print(render_large(artifacts.read_json(path)))


if __name__ == "__main__":
    main()
