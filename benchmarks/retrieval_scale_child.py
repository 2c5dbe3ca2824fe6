"""A stage of `benchmarks.retrieval_scale` in its own process: `build` or `search` FOLDER ROWS CODES TUNED
LISTS.

Prints what it took as JSON. Memory is read from the kernel twenty times a second: all that is resident,
mapped pages counted, and what is the process's own.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np

from benchmarks.index_vectors import MadeVectors
from benchmarks.process_memory import MemoryWatch, read_memory_kb
from forecart import artifacts
from forecart.retrieval.index import inverted_file_build
from forecart.retrieval.index.build import build_index, open_index
from forecart.retrieval.index.contract import IndexSettings, IndexSource
from forecart.sequences.vocabulary import FIRST_INDEX

TOP_K: Final = 100
NUM_SEARCHED: Final = 1_000
STAGES: Final = {
    "train": (inverted_file_build, "train_lists"),
    "fill lists": (inverted_file_build, "fill_lists"),
    "measure": (inverted_file_build, "_measure"),
}
Taken = dict[str, dict[str, float]]


@contextmanager
def timed(taken: Taken, stage: str) -> Iterator[None]:
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    yield
    taken[stage] = {
        "cpu_seconds": time.process_time() - began_cpu_s,
        "wall": time.perf_counter() - began_s,
    }


def time_stages(taken: Taken) -> None:
    """Lets the parts of a build be timed one by one."""

    def time_part(stage: str, part: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(part)
        def run(*arguments: Any) -> Any:
            with timed(taken, stage):
                return part(*arguments)

        return run

    for stage, (module, name) in STAGES.items():
        setattr(module, name, time_part(stage, getattr(module, name)))


def build(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    vectors = MadeVectors(asked.rows)
    candidate_N = np.arange(FIRST_INDEX, FIRST_INDEX + asked.rows, dtype=np.int32)
    users = vectors.make_users(asked.tuned, seed=2)
    taken: Taken = {}
    time_stages(taken)
    with MemoryWatch() as memory, timed(taken, "build"):
        build_index(
            IndexSource(vectors, candidate_N, "benchmark", users),
            folder,
            IndexSettings(codes=asked.codes, num_sampled=asked.tuned, num_lists=asked.lists or None),
        )
    return {
        "stages": taken,
        "peak_mb": memory.peak_kb["VmRSS"] / 1e3,
        "peak_own_mb": memory.peak_kb["RssAnon"] / 1e3,
        "disk_mb": sum(path.stat().st_size for path in folder.iterdir()) / 1e6,
    }


def search(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    users = MadeVectors(asked.rows).make_users(NUM_SEARCHED)
    before_kb = read_memory_kb("RssAnon")
    taken: Taken = {}
    with timed(taken, "open"):
        index = open_index(folder, embedding_space_id="benchmark")
    single, single_wall, found = [], [], []
    for row in range(len(users)):
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        found.append(index.search(users[row : row + 1], TOP_K).candidate)
        single.append(time.process_time() - began_cpu_s)
        single_wall.append(time.perf_counter() - began_s)
    faiss.cvar.indexIVF_stats.reset()
    with timed(taken, "search"):
        index.search(users, TOP_K)
    num_read = faiss.cvar.indexIVF_stats.nlist, faiss.cvar.indexIVF_stats.ndis
    taken["search"] = {name: value / len(users) for name, value in taken["search"].items()}
    after_kb = read_memory_kb("RssAnon", "VmRSS")
    artifacts.write_npy(folder.with_name(f"{folder.name}.found.npy"), np.concatenate(found))
    facts = index.stats().facts
    return {
        "stages": taken,
        "users_per_s": 1 / taken["search"]["cpu_seconds"],
        "p50_us": float(np.percentile(single, 50)) * 1e6,
        "p99_us": float(np.percentile(single, 99)) * 1e6,
        "p50_wall_us": float(np.percentile(single_wall, 50)) * 1e6,
        "p99_wall_us": float(np.percentile(single_wall, 99)) * 1e6,
        "resident_mb": after_kb["VmRSS"] / 1e3,
        "own_mb": (after_kb["RssAnon"] - before_kb["RssAnon"]) / 1e3,
        "num_lists": facts["num_lists"],
        "lists_read": num_read[0] / len(users),
        "vectors_read": num_read[1] / len(users),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["build", "search"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows", type=int)
    parser.add_argument("codes")
    parser.add_argument("tuned", type=int)
    parser.add_argument("lists", type=int)
    asked = parser.parse_args()
    faiss.omp_set_num_threads(1)
    stages = {"build": build, "search": search}
    print(json.dumps(stages[asked.stage](asked.folder, asked)))


if __name__ == "__main__":
    main()
