"""What an index costs in Recall@100: `python -m benchmarks.compression [--run runs/demo]`.

The products of Complete Journey at the December cuts, by the demo's trained model. `model` scores every
product in float32. The others retrieve products from an index that is built as a release builds it, read the
vectors of a user's own products from it too, and add the same own-history and successor terms: from the exact
index, which tells what it costs that only some are retrieved, from the inverted file as it is by default
(float16), and from one of a byte a coordinate. Differences are paired, with 95 % intervals by user. Writes
`results/scale-compression.json`; `--render` prints the table of what is stored.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.figures import RESULTS
from benchmarks.retrieval_tables import render_compression
from forecart import artifacts
from forecart.config import to_us, validate_config
from forecart.embedding.users import UserEmbeddings
from forecart.evaluation.provenance import read_provenance
from forecart.evaluation.tables import name_cut
from forecart.evaluation.targets import measure_target, tabulate_target
from forecart.retrieval.exact import add_terms
from forecart.retrieval.index.build import build_index, open_index
from forecart.retrieval.index.contract import Index, IndexSettings, fold_queries, fold_source
from forecart.retrieval.index.tuning import index_recall_at_k
from forecart.retrieval.scorer import ModelScorer
from forecart.workflow import Workflow

FILE: Final = "scale-compression.json"
TOP_K: Final = 100
NUM_RETRIEVED: Final = 200
"""For a user, own products among them: these are scored in any case."""
NUM_COMPARED: Final = 500
SYSTEMS: Final = {
    "exact": IndexSettings(kind="exact"),
    "inverted_file": IndexSettings(),
    "inverted_file, int8": IndexSettings(codes="int8"),
}
METRIC: Final = "recall_at_100"
Embed = Callable[[int, bytes], UserEmbeddings]


@dataclass(frozen=True, eq=False)
class IndexScorer:
    """Scores of what an index retrieves and of a user's own products; -inf for everything else.

    Attributes:
        name: of the system.
        model: whose vectors are indexed.
        embed: of users, by cut; one for all systems.
        folder: of its indexes.
        opened: by cut.
    """

    name: str
    model: ModelScorer
    embed: Embed
    folder: Path
    opened: dict[int, Index] = field(default_factory=dict)

    def index_at(self, cut_us: int) -> Index:
        """Returns the index of the products as they were at a cut."""
        if cut_us not in self.opened:
            candidates = self.model.candidates_at(cut_us)
            source = fold_source(candidates.vector_ND.numpy(), candidates.prior_N.numpy(), "benchmark")
            folder = self.folder / f"{self.name}-{cut_us}"
            build_index(source, folder, SYSTEMS[self.name])
            self.opened[cut_us] = open_index(folder)
        return self.opened[cut_us]

    def score_at(self, cut_us: int, user_index: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Returns [B, N]."""
        users, index = self.embed(cut_us, user_index.tobytes()), self.index_at(cut_us)
        query_BD = fold_queries(users.vector_BD.numpy())
        found = index.search(query_BD, NUM_RETRIEVED)
        num_candidates = len(self.model.candidates_at(cut_us).prior_N)
        score_BN = np.full((len(user_index), num_candidates), -np.inf, np.float32)
        np.put_along_axis(score_BN, found.candidate, found.score, axis=1)
        row_M, candidate_M = users.own_row_M.numpy(), users.own_candidate_M.numpy()
        place_M = np.searchsorted(index.candidate_N, candidate_M)
        own_MD = index.read_vectors(place_M)
        score_BN[row_M, candidate_M] = np.einsum("md,md->m", query_BD[row_M], own_MD)
        scores: npt.NDArray[np.float32] = add_terms(torch.from_numpy(score_BN), users).numpy()
        return scores


def index_recall(scorer: IndexScorer, exact: IndexScorer, cut_us: int, embed: Embed) -> float:
    """Returns the share of the exact index's best 100 that are found, over some users."""
    users = np.arange(2, 2 + NUM_COMPARED, dtype=np.int32)
    query_BD = fold_queries(embed(cut_us, users.tobytes()).vector_BD.numpy())
    lists = [one.index_at(cut_us).search(query_BD, TOP_K) for one in (scorer, exact)]
    return float(index_recall_at_k(*lists).mean())


def measure(run: Path, folder: Path) -> dict[str, Any]:
    """Measures every system at the test cuts of a run."""
    config = validate_config(artifacts.read_json(run / artifacts.CONFIG), where=str(run))
    workflow = Workflow(config, run)
    data = workflow.target_data("item", [to_us(cut) for cut in config.split.test_cuts])
    model = workflow.scorer("item")

    @lru_cache(maxsize=64)
    def embed(cut_us: int, users: bytes) -> UserEmbeddings:
        return model.embed(cut_us, np.frombuffer(users, np.int32))

    systems = [IndexScorer(name, model, embed, folder) for name in SYSTEMS]
    evaluation = measure_target(data, [model, *systems], baselines=(), index_size=0, seed=0)
    tables = tabulate_target(data, evaluation, num_samples=2000)
    result: dict[str, Any] = {"num_candidates": data.num_candidates, "num_retrieved": NUM_RETRIEVED}
    for pool in ("all", "novel"):
        table = tables[pool]
        exact = table["model"][METRIC]
        result[pool] = {"num_rows": table["num_rows"], "model": exact, "systems": {}}
        for name in SYSTEMS:
            lost = table["difference"][METRIC][name]
            result[pool]["systems"][name] = {
                "recall_at_100": table["baselines"][name][METRIC],
                "lost": {bound: lost[bound] / exact for bound in ("mean", "ci_low", "ci_high")},
            }
    result["index_recall_at_100"] = {
        one.name: {name_cut(cut): index_recall(one, systems[0], cut, embed) for cut in data.cuts_us}
        for one in systems
    }
    result["stats"] = {
        one.name: {
            "disk_mb": one.index_at(data.cuts_us[0]).stats().disk_bytes / 1e6,
            **one.index_at(data.cuts_us[0]).stats().facts,
        }
        for one in systems
    }
    return result


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="a finished run of the demo")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures are written")
    parser.add_argument("--render", action="store_true", help="print the table of what is stored")
    asked = parser.parse_args()
    path = asked.results / FILE
    if not asked.render:
        faiss.omp_set_num_threads(1)
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            measured = measure(asked.run, Path(folder))
        artifacts.write_json(path, {"provenance": read_provenance(), **measured})
    print(render_compression(artifacts.read_json(path)))


if __name__ == "__main__":
    main()
