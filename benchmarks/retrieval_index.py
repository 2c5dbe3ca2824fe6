"""How well and how fast items are found: `python -m benchmarks.retrieval_index [--rows 1000000]`.

Seeded unit vectors of width 64 in clusters of very different sizes (`index_vectors.py`); CPU time of one
thread. Exact search (`GroupMaxScan`) against the products alone, through oneDNN in the same blocks, in turns;
with `--peer implicit=PYTHON` against implicit's too. Then the inverted file, beside faiss's own with float32
lists, in turns; masks, random ones and ones of whole clusters; changes of a fifth of the items; shards;
sizes. With `--graph` also the graph, which takes minutes to build. `--parts` measures some of it anew. Recall
is that of the exact top 100, on users that no index was tuned with. Writes `results/scale-retrieval.json`;
`--render` prints the tables of what is stored.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.built_indexes import build_once
from benchmarks.figures import stored_parser
from benchmarks.index_vectors import WIDTH, World, make_uniform, make_world
from benchmarks.known_peers import read_python_of
from benchmarks.retrieval_exact import TOP_K, Race, in_turns, measure_exact, seconds
from benchmarks.retrieval_tables import render
from forecart import artifacts
from forecart.evaluation.provenance import read_provenance
from forecart.retrieval.index.build import build_index, open_index
from forecart.retrieval.index.contract import Eligible, Index, IndexSettings, IndexSource
from forecart.retrieval.index.group_max import GroupMaxScan
from forecart.retrieval.index.live import LiveIndex
from forecart.retrieval.index.shards import build_shards, open_shards
from forecart.retrieval.index.tuning import find_effort, index_recall_at_k
from forecart.retrieval.top_k import TopK
from forecart.sequences.vocabulary import FIRST_INDEX

NUM_ADVERTISERS: Final = 5_205
NUM_TESTED: Final = 500
NUM_TUNED: Final = 1_000
NUM_EXACT: Final = 512
PARTS: Final = ("exact", "indexes", "masks", "changes", "shards")
FILE: Final = "scale-retrieval.json"
Search = Callable[[npt.NDArray[np.float32]], TopK]


@dataclass(frozen=True, eq=False)
class Bench:
    """What is searched, and where files go.

    Attributes:
        world: items and users; the first users are tested with, the rest tuned with.
        candidate_N: [N].
        folder: of indexes.
        rounds: of everything that is timed.
    """

    world: World
    candidate_N: npt.NDArray[np.int32]
    folder: Path
    rounds: int

    @property
    def tested_BD(self) -> npt.NDArray[np.float32]:
        return self.world.user_BD[:NUM_TESTED]

    @property
    def source(self) -> IndexSource:
        users = self.world.user_BD[NUM_TESTED:]
        return IndexSource(self.world.vector_ND, self.candidate_N, "benchmark", users)

    def exact(self, is_eligible_N: npt.NDArray[np.bool_] | None = None) -> TopK:
        vector_ND, candidate_N = self.world.vector_ND, self.candidate_N
        if is_eligible_N is not None:
            vector_ND, candidate_N = vector_ND[is_eligible_N], candidate_N[is_eligible_N]
        return GroupMaxScan()(vector_ND, candidate_N, self.tested_BD, top_k=TOP_K)


def measure_search(searches: Mapping[str, Search], exact: TopK, bench: Bench) -> dict[str, dict[str, float]]:
    """Recall, users/s in one batch, and times of single users, everybody in turns."""
    users = bench.tested_BD
    batch = in_turns(
        {name: lambda search=search: seconds(lambda: search(users)) for name, search in searches.items()},
        bench.rounds,
    )
    single: dict[str, list[float]] = {name: [] for name in searches}
    for row in range(len(users)):
        for name, search in searches.items():
            single[name].append(seconds(lambda search=search, row=row: search(users[row : row + 1])))
    first = next(iter(searches))
    figures = {}
    for name, search in searches.items():
        ratios = zip(batch[first], batch[name], strict=True)
        p50, p99 = np.percentile(single[name], [50, 99]) * 1e6
        figures[name] = {
            "recall_at_100": float(index_recall_at_k(search(users), exact).mean()),
            "users_per_s": len(users) / median(batch[name]),
            "speed_of_first": median(a / b for a, b in ratios),
            "p50_us": float(p50),
            "p99_us": float(p99),
        }
    return figures


def build_faiss_flat(bench: Bench) -> tuple[Search, dict[str, float]]:
    """faiss's inverted file with float32 lists as it comes, tuned on the same users to the same recall."""
    source = bench.source
    num_lists = 4 * int(np.sqrt(len(source.candidate_N)))
    index = faiss.index_factory(WIDTH, f"IVF{num_lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid = 64
    build_s = seconds(lambda: (index.train(source.vector_ND), index.add(source.vector_ND)))

    def search_at(users: npt.NDArray[np.float32], effort: int) -> TopK:
        parameters = faiss.SearchParametersIVF(nprobe=effort)
        score_BK, place_BK = index.search(users, TOP_K, params=parameters)
        return TopK(bench.candidate_N[place_BK], score_BK)

    users = source.user_SD
    assert users is not None
    exact = GroupMaxScan()(source.vector_ND, source.candidate_N, users, top_k=TOP_K)
    effort = find_effort(search_at, users, exact, 0.99, limit=num_lists)
    path = bench.folder / "flat.bin"
    faiss.write_index(index, str(path))
    facts = {"build_s": build_s, "num_probes": effort, "disk_mb": path.stat().st_size / 1e6}
    return lambda users: search_at(users, effort), facts


def search_of(index: Index, eligible: Eligible | None = None) -> Search:
    return lambda users: index.search(users, TOP_K, eligible=eligible)


def measure_indexes(bench: Bench, has_graph: bool) -> dict[str, Any]:
    searches: dict[str, Search] = {}
    facts: dict[str, dict[str, Any]] = {}
    searches["faiss IVF, float32"], facts["faiss IVF, float32"] = build_faiss_flat(bench)
    for kind in ["inverted_file", "graph"] if has_graph else ["inverted_file"]:
        settings = IndexSettings.model_validate({"kind": kind})
        folder = bench.folder / kind
        index, built = build_once(bench.source, folder, settings)
        facts[kind] = {**built, **read_memory(folder), "chosen": index.stats().facts}
        searches[kind] = search_of(index)
    exact = bench.exact()
    figures = measure_search(searches, exact, bench)
    for name in figures:
        figures[name] |= facts[name]
        listed = searches[name](bench.tested_BD).candidate
        figures[name]["target_hit_rate"] = hit_rate(bench, listed)
    return {"exact_target_hit_rate": hit_rate(bench, exact.candidate), **figures}


def hit_rate(bench: Bench, candidate_BK: npt.NDArray[np.int32]) -> float:
    """Share of users whose own item is listed: what a search is for, other than recall of the exact list."""
    target_B = bench.candidate_N[bench.world.target_B[:NUM_TESTED]]
    return float((candidate_BK == target_B[:, None]).any(axis=1).mean())


def read_memory(folder: Path) -> dict[str, float]:
    """Memory that opening the index and a thousand searches add to a process of its own, in MB."""
    code = (
        "import sys, numpy as np, faiss; from pathlib import Path\n"
        "from forecart.retrieval.index.build import open_index\n"
        "faiss.omp_set_num_threads(1)\n"
        "def read():\n"
        "    lines = dict(line.split(':', 1) for line in open('/proc/self/status') if ':' in line)\n"
        "    return [int(lines[name].split()[0]) / 1e3 for name in ('RssAnon', 'RssFile')]\n"
        "before = read(); index = open_index(Path(sys.argv[1]))\n"
        f"users = np.random.default_rng(0).standard_normal((1000, {WIDTH})).astype(np.float32)\n"
        "for row in range(1000): index.search(users[row:row + 1], 100)\n"
        "print(*(b - a for a, b in zip(before, read())))"
    )
    command = [sys.executable, "-c", code, str(folder)]
    own, mapped = map(
        float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    )
    return {"own_memory_mb": own, "mapped_memory_mb": mapped}


def measure_masks(bench: Bench, index: Index) -> list[dict[str, Any]]:
    """Recall and times under masks beside those without one, in turns."""
    generator = np.random.default_rng(2)
    num, clusters = len(bench.candidate_N), bench.world.cluster_N
    masks = {("random", share): generator.random(num) < share for share in (0.5, 0.1, 0.01, 0.001)}
    for share in (0.5, 0.1, 0.01):
        chosen = generator.random(clusters.max() + 1) < share
        masks["clusters", share] = chosen[clusters]
    rows = []
    for (kind, share), is_eligible_N in masks.items():
        eligible = Eligible(np.concatenate([np.zeros(FIRST_INDEX, np.bool_), is_eligible_N]))
        first_us = seconds(lambda eligible=eligible: search_of(index, eligible)(bench.tested_BD[:1])) * 1e6
        searches = {"none": search_of(index), "masked": search_of(index, eligible)}
        figures = measure_search(searches, bench.exact(is_eligible_N), bench)
        found = search_of(index, eligible)(bench.tested_BD)
        full = (found.candidate > 0).sum(axis=1) == min(TOP_K, int(is_eligible_N.sum()))
        rows.append(
            {
                "kind": kind,
                "share": share,
                "num_eligible": int(is_eligible_N.sum()),
                "full_lists_share": float(full.mean()),
                "first_us": first_us,
                "p50_of_unmasked": figures["masked"]["p50_us"] / figures["none"]["p50_us"],
                "p99_of_unmasked": figures["masked"]["p99_us"] / figures["none"]["p99_us"],
                **figures["masked"],
            }
        )
    return rows


def measure_changes(bench: Bench, index: Index) -> dict[str, Any]:
    """Removes, replaces and adds a tenth each; recall beside an index that is built of the result."""
    num = len(bench.candidate_N)
    order = np.random.default_rng(3).permutation(num)
    removed, replaced = order[: num // 10], order[num // 10 : num // 5]
    other = make_world(num // 5, 1, seed=0).vector_ND
    live = LiveIndex(index)
    live.remove(bench.candidate_N[removed])
    added = np.arange(num + FIRST_INDEX, num + FIRST_INDEX + num // 10, dtype=np.int32)
    half = len(replaced)
    change_s = seconds(lambda: live.upsert(bench.candidate_N[replaced], other[:half]))
    live.upsert(added, other[half : half + len(added)])
    vector_ND = np.concatenate([bench.world.vector_ND, other[half : half + len(added)]])
    vector_ND[replaced] = other[:half]
    candidate_N = np.concatenate([bench.candidate_N, added])
    is_left = np.ones(len(candidate_N), np.bool_)
    is_left[removed] = False
    vector_ND, candidate_N = vector_ND[is_left], candidate_N[is_left]
    exact = GroupMaxScan()(vector_ND, candidate_N, bench.tested_BD, top_k=TOP_K)
    source = IndexSource(vector_ND, candidate_N, "benchmark", bench.source.user_SD)
    build_index(source, bench.folder / "anew", IndexSettings())
    searches = {
        "unchanged": search_of(index),
        "changed": search_of(live),
        "built anew": search_of(open_index(bench.folder / "anew")),
    }
    figures: dict[str, Any] = measure_search(searches, exact, bench)
    del figures["unchanged"]["recall_at_100"]  # of other items
    return {"replace_s": change_s, "num_replaced": half, **figures}


def measure_shards(bench: Bench) -> dict[str, Any]:
    """Four indexes of a quarter each, searched one after the other."""
    build_s = seconds(
        lambda: build_shards(bench.source, bench.folder / "shards", IndexSettings(), num_shards=4)
    )
    index = open_shards(bench.folder / "shards", embedding_space_id="benchmark")
    figures = measure_search({"shards": search_of(index)}, bench.exact(), bench)["shards"]
    return {"num_shards": 4, "build_s": build_s, **figures}


def open_built(bench: Bench) -> Index:
    """Returns the inverted file; it is built where no part before has."""
    return build_once(bench.source, bench.folder / "inverted_file", IndexSettings())[0]


def measure_sizes(race: Race, world: World) -> dict[str, Any]:
    """Exact search of the items, and of as many candidates as there are advertisers."""
    sizes = {
        "items": (world.vector_ND, world.user_BD[:NUM_EXACT]),
        "advertisers": make_uniform(NUM_ADVERTISERS, 8 * NUM_EXACT),
    }
    return {name: measure_exact(vectors, users, race) for name, (vectors, users) in sizes.items()}


def run(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measures the parts that were asked for; of the others, what is stored stays."""
    world = make_world(asked.rows, NUM_TESTED + NUM_TUNED)
    candidate_N = np.arange(FIRST_INDEX, FIRST_INDEX + asked.rows, dtype=np.int32)
    bench = Bench(world, candidate_N, folder, asked.rounds)
    parts: dict[str, Callable[[], Any]] = {
        "exact": lambda: measure_sizes(Race(folder, asked.rounds, asked.peer), world),
        "indexes": lambda: measure_indexes(bench, asked.graph),
        "masks": lambda: measure_masks(bench, open_built(bench)),
        "changes": lambda: measure_changes(bench, open_built(bench)),
        "shards": lambda: measure_shards(bench),
    }
    path = asked.results / FILE
    result: dict[str, Any] = artifacts.read_json(path) if path.exists() else {}
    result |= {"num_rows": asked.rows, "width": WIDTH}
    result.setdefault("provenance", {})
    for part in asked.parts:
        result[part] = parts[part]()
        provenance = read_provenance()
        provenance["versions"]["faiss-cpu"] = faiss.__version__
        result["provenance"][part] = provenance
        print(json.dumps(result[part], indent=2), flush=True)
    return result


def main() -> None:
    parser = stored_parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="items")
    parser.add_argument("--rounds", type=int, default=3, help="of everything that is timed")
    parser.add_argument("--peer", type=read_python_of("implicit"), help="implicit=PYTHON")
    parser.add_argument("--graph", action="store_true", help="build the graph too")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="all by default")
    parser.add_argument("--folder", type=Path, help="of indexes, to be kept; what is built is taken from it")
    asked = parser.parse_args()
    path = asked.results / FILE
    if not asked.render:
        torch.set_num_threads(1)
        faiss.omp_set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            artifacts.write_json(path, run(asked, asked.folder or Path(folder)))
    print(render(artifacts.read_json(path)))


if __name__ == "__main__":
    main()
