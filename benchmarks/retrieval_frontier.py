"""Recall against speed, effort by effort: `python -m benchmarks.retrieval_frontier --peer scann=PYTHON`.

The million vectors and users of `benchmarks.retrieval_index`. Each system is built once, then searches all
users in a batch with one effort after the other, in turns with the others: lists that are read at most and
how near they must be (inverted files), how many a walk keeps in mind (graph), leaves and what is scored again
(ScaNN, in a process of its own). CPU time of one thread; recall of the exact top 100. Systems that are not
named by `--systems` keep their stored figures, of another hour of the same machine. Writes
`results/scale-retrieval-frontier.json`; `--render` prints the table.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import faiss
import numpy as np
import torch

from benchmarks.built_indexes import build_once
from benchmarks.figures import stored_parser
from benchmarks.index_vectors import World, make_world
from benchmarks.known_peers import read_python_of
from benchmarks.retrieval_tables import render_frontier
from forecart import artifacts
from forecart.evaluation.provenance import read_provenance
from forecart.retrieval.index.contract import IndexSettings, IndexSource
from forecart.retrieval.index.group_max import GroupMaxScan
from forecart.retrieval.index.masks import Effort
from forecart.retrieval.index.tuning import index_recall_at_k
from forecart.retrieval.top_k import TopK
from forecart.sequences.vocabulary import FIRST_INDEX

FILE: Final = "scale-retrieval-frontier.json"
TOP_K: Final = 100
NUM_TESTED: Final = 500
NUM_TUNED: Final = 1_000
SCANN: Final = Path(__file__).parent / "peers" / "scann_top_k.py"
SETTINGS: Final = {
    "inverted_file": IndexSettings(),
    "inverted_file, int8": IndexSettings(codes="int8", num_sampled=100),
    "graph": IndexSettings(kind="graph", num_sampled=100),
}
"""What is chosen by the sampled users is not used here: every effort is tried."""
PROBES: Final = (16, 32, 64, 128, 192, 256, 384)
MARGINS: Final = (0.1, 0.14, 0.16, 0.18, 0.2)
WALKS: Final = (100, 150, 200, 300, 400, 600, 800, 1200, 1600)
LEAVES: Final = (16, 32, 64, 96, 128, 192, 256, 384)
REORDERED: Final = (200, 400, 800, 1600)
Efforts = dict[str, Any]
Timed = Callable[[], tuple[float, TopK]]
"""Searches all tested users: CPU-seconds and lists."""


def timed(search: Callable[[], TopK]) -> Timed:
    def run() -> tuple[float, TopK]:
        began_s = time.process_time()
        found = search()
        return time.process_time() - began_s, found

    return run


def open_own(name: str, world: World, folder: Path) -> tuple[dict[str, Timed], dict[str, Any]]:
    """Builds one of our indexes: a search for each effort, and facts."""
    users = world.user_BD[:NUM_TESTED]
    candidate_N = np.arange(FIRST_INDEX, FIRST_INDEX + len(world.vector_ND), dtype=np.int32)
    source = IndexSource(world.vector_ND, candidate_N, "benchmark", world.user_BD[NUM_TESTED:])
    index: Any
    index, built = build_once(source, folder / name, SETTINGS[name])
    if name == "graph":
        return {str(walk): timed(lambda walk=walk: index.walk(users, TOP_K, walk)) for walk in WALKS}, built
    num_first = index.measured["levels"][0]["num_first"]
    efforts = [Effort(num_first, most, margin) for most in PROBES for margin in MARGINS]
    searches = {
        f"{effort.num_probes} within {effort.margin}": timed(
            lambda effort=effort: index.search_lists(users, TOP_K, effort)
        )
        for effort in efforts
    }
    return searches, built


@contextmanager
def serve_scann(python: str, world: World, folder: Path) -> Iterator[tuple[dict[str, Timed], dict[str, Any]]]:
    """Starts ScaNN in a process of its own, until the end of the context."""
    paths = [folder / name for name in ("items.npy", "users.npy", "found.npy")]
    artifacts.write_npy(paths[0], world.vector_ND)
    artifacts.write_npy(paths[1], world.user_BD[:NUM_TESTED])
    command = [python, str(SCANN), str(paths[0]), str(paths[1]), str(TOP_K), str(paths[2])]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None and stdout is not None

        def search(leaves: int, reorder: int) -> tuple[float, TopK]:
            stdin.write(json.dumps({"leaves": leaves, "reorder": reorder}) + "\n")
            stdin.flush()
            taken_s = json.loads(stdout.readline())["s"]
            place_BK = np.load(paths[2], allow_pickle=False)
            return taken_s, TopK(
                (place_BK + FIRST_INDEX).astype(np.int32), np.zeros(place_BK.shape, np.float32)
            )

        facts = json.loads(stdout.readline())
        searches = {
            f"{leaves} leaves, {reorder}": lambda leaves=leaves, reorder=reorder: search(leaves, reorder)
            for leaves in LEAVES
            for reorder in REORDERED
        }
        yield searches, {"build_s": facts["build_s"], "version": facts["version"]}
        stdin.close()


def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Returns the points of each system that was asked for."""
    world = make_world(asked.rows, NUM_TESTED + NUM_TUNED)
    candidate_N = np.arange(FIRST_INDEX, FIRST_INDEX + asked.rows, dtype=np.int32)
    exact = GroupMaxScan()(world.vector_ND, candidate_N, world.user_BD[:NUM_TESTED], top_k=TOP_K)
    searches: dict[tuple[str, str], Timed] = {}
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        for name in asked.systems:
            if name == "scann":
                found, facts = stack.enter_context(serve_scann(asked.peer, world, folder))
            else:
                found, facts = open_own(name, world, folder)
            print(name, facts, flush=True)
            searches |= {(name, effort): search for effort, search in found.items()}
            figures[name] = {**facts, "points": []}
        taken: dict[tuple[str, str], list[float]] = {key: [] for key in searches}
        recall = {
            key: float(index_recall_at_k(search()[1], exact).mean()) for key, search in searches.items()
        }
        for _ in range(asked.rounds):
            for key, search in searches.items():
                taken[key].append(search()[0])
    for (name, effort), seconds in taken.items():
        speed = NUM_TESTED / median(seconds)
        point = {"effort": effort, "recall_at_100": recall[name, effort], "users_per_s": speed}
        figures[name]["points"].append(point)
    return figures


def main() -> None:
    """Runs the command line."""
    parser = stored_parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="items")
    parser.add_argument("--rounds", type=int, default=3, help="of every search")
    parser.add_argument("--peer", type=read_python_of("scann"), help="scann=PYTHON")
    parser.add_argument("--systems", nargs="+", choices=[*SETTINGS, "scann"], help="all by default")
    parser.add_argument("--folder", type=Path, help="of indexes, to be kept; what is built is taken from it")
    asked = parser.parse_args()
    asked.systems = asked.systems or [*SETTINGS, *(["scann"] if asked.peer else [])]
    path = asked.results / FILE
    if not asked.render:
        faiss.omp_set_num_threads(1)
        torch.set_num_threads(1)
        provenance = read_provenance()
        with tempfile.TemporaryDirectory() as folder:
            measured = measure(asked, asked.folder or Path(folder))
        stored = artifacts.read_json(path)["systems"] if path.exists() else {}
        systems = stored | {name: {"provenance": provenance, **one} for name, one in measured.items()}
        artifacts.write_json(path, {"num_rows": asked.rows, "systems": systems})
    print(render_frontier(artifacts.read_json(path)))


if __name__ == "__main__":
    main()
