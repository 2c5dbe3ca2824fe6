"""What an index costs in Recall@100: `python -m benchmarks.compression [--run runs/demo]`.

The products of Complete Journey at the December cuts, by the demo's trained model. `model` is what scoring
every product in float32 lists. The others retrieve 200 products a user from an index that is built as a
release builds it, read the vectors of a user's own products from it too, and add the same own-history and
successor terms: from the exact index, which tells what it costs that only some are retrieved, from the
inverted file as it is by default (float16), and from one of a byte a coordinate. Differences are paired,
with 95 % intervals by user. Writes `results/scale-compression.json`; `--render` prints the table of what is
stored.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.figures import stored_parser
from benchmarks.retrieval_tables import POOLS, render_compression
from forecart import artifacts
from forecart.baselines.conversions import read_conversions
from forecart.config import to_us, validate_config
from forecart.embedding.users import UserEmbeddings
from forecart.evaluation.protocol import is_relevant_in
from forecart.evaluation.provenance import read_provenance
from forecart.evaluation.tables import name_cut
from forecart.evaluation.targets import TargetData
from forecart.metrics.significance import bootstrap_by_user
from forecart.retrieval.index.build import build_index, open_index
from forecart.retrieval.index.contract import IndexSettings, fold_queries, fold_source
from forecart.retrieval.index.group_max import GroupMaxScan
from forecart.retrieval.index.tuning import index_recall_at_k
from forecart.retrieval.scorer import ModelScorer
from forecart.retrieval.top_k import TopK
from forecart.sequences.split import Labels
from forecart.workflow import Workflow

FILE: Final = "scale-compression.json"
TOP_K: Final = 100
NUM_RETRIEVED: Final = 200
"""For a user, own products among them: these are scored in any case."""
BATCH_USERS: Final = 512
SYSTEMS: Final = {
    "exact": IndexSettings(kind="exact"),
    "inverted_file": IndexSettings(),
    "inverted_file, int8": IndexSettings(codes="int8"),
}
Keys = npt.NDArray[np.int64]
"""Pairs of a row and a candidate, row * N + candidate."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Pairs and their scores, ascending by key."""

    key_M: Keys
    score_M: npt.NDArray[np.float32]

    def cut(self, num_candidates: int, is_kept_M: npt.NDArray[np.bool_]) -> Keys:
        """Returns the best 100 pairs of each row, of equal scores the lower candidate, among those kept."""
        key_M, score_M = self.key_M[is_kept_M], self.score_M[is_kept_M]
        row_M = key_M // num_candidates
        order_M = np.lexsort((key_M, -score_M, row_M))
        row_M = row_M[order_M]
        rank_M = np.arange(len(row_M)) - np.searchsorted(row_M, row_M)
        return key_M[order_M[rank_M < TOP_K]]


def score_listed(users: UserEmbeddings, found: TopK, index: Any, num_candidates: int) -> Scored:
    """Returns the scores of what was retrieved and of the users' own products, all terms added."""
    query_BD = fold_queries(users.vector_BD.numpy())
    own_row_M, own_M = users.own_row_M.numpy(), users.own_candidate_M.numpy()
    own_vector_MD = index.read_vectors(np.searchsorted(index.candidate_N, own_M))
    row_BK = np.broadcast_to(np.arange(len(found.candidate))[:, None], found.candidate.shape)
    is_there_BK = found.candidate > 0
    keys = [own_row_M * num_candidates + own_M, (row_BK * num_candidates + found.candidate)[is_there_BK]]
    scores = [np.einsum("md,md->m", query_BD[own_row_M], own_vector_MD), found.score[is_there_BK]]
    key_M, first_M = np.unique(np.concatenate(keys), return_index=True)
    score_M = np.concatenate(scores)[first_M]
    terms = [(keys[0], users.own_term_M.numpy())]
    if (more := users.successors) is not None:
        flat_P = more.row_P.numpy() * num_candidates + more.candidate_P.numpy()
        terms.append((flat_P, more.term_P.numpy()))
    for flat_P, term_P in terms:
        place_P = np.searchsorted(key_M, flat_P).clip(max=len(key_M) - 1)
        is_listed_P = key_M[place_P] == flat_P
        np.add.at(score_M, place_P[is_listed_P], term_P[is_listed_P])
    return Scored(key_M, score_M)


def recall_by_row(
    listed: Keys, relevant: Keys, num_candidates: int, num_rows: int
) -> npt.NDArray[np.float64]:
    """Returns the share of each row's relevant pairs that are listed; NaN for a row without any."""
    num_relevant = np.bincount(relevant // num_candidates, minlength=num_rows).astype(np.float64)
    hit = relevant[np.isin(relevant, listed)]
    num_relevant[num_relevant == 0] = np.nan
    recalls: npt.NDArray[np.float64] = np.bincount(hit // num_candidates, minlength=num_rows) / num_relevant
    return recalls


@dataclass(frozen=True, eq=False)
class Cut:
    """One cut: whose lists are measured, and the indexes of the products as they were."""

    data: TargetData
    labels: Labels
    cut_us: int
    model: ModelScorer
    folder: Path

    def indexes(self) -> dict[str, Any]:
        """Builds an index of each kind."""
        candidates = self.model.candidates_at(self.cut_us)
        source = fold_source(candidates.vector_ND.numpy(), candidates.prior_N.numpy(), "benchmark")
        opened: dict[str, Any] = {}
        for name, settings in SYSTEMS.items():
            build_index(source, self.folder / f"{name}-{self.cut_us}", settings)
            opened[name] = open_index(self.folder / f"{name}-{self.cut_us}")
        opened["exact"] = replace(opened["exact"], scan=GroupMaxScan())
        return opened

    def measure(self) -> tuple[dict[tuple[str, str], npt.NDArray[np.float64]], dict[str, Any]]:
        """Returns Recall@100 by system, pool and row of this cut, and what each index is."""
        indexes, rows = self.indexes(), np.flatnonzero(self.labels.cut_us == self.cut_us)
        num = self.data.num_candidates
        conversions = read_conversions(
            self.data.sequences.histories,
            cut_us=self.cut_us,
            level="item",
            num_candidates=num,
            conversion_codes=self.data.contract.conversion_codes,
        )
        seen = conversions.user.astype(np.int64) * num + conversions.candidate
        recalls: dict[tuple[str, str], list[Any]] = {}
        found_share: dict[str, list[Any]] = {name: [] for name in SYSTEMS}
        for first in range(0, len(rows), BATCH_USERS):
            at = rows[first : first + BATCH_USERS]
            users = self.model.embed(self.cut_us, self.labels.user_index[at])
            relevant = {pool: self._relevant(at, pool) for pool in POOLS}
            for name, scored, share in self._score(users, indexes):
                found_share.setdefault(name, []).append(share)
                user_M = self.labels.user_index[at][scored.key_M // num].astype(np.int64)
                is_novel = ~np.isin(user_M * num + scored.key_M % num, seen)
                for pool, is_kept in (("all", np.ones_like(is_novel)), ("novel", is_novel)):
                    listed = scored.cut(num, is_kept)
                    recalls.setdefault((name, pool), []).append(
                        recall_by_row(listed, relevant[pool], num, len(at))
                    )
        stats = {
            name: {"disk_mb": one.stats().disk_bytes / 1e6, **one.stats().facts}
            for name, one in indexes.items()
        }
        facts = {
            name: {"index_recall_at_100": float(np.concatenate(found_share[name]).mean()), **stats[name]}
            for name in SYSTEMS
        }
        return {key: np.concatenate(parts) for key, parts in recalls.items()}, facts

    def _score(self, users: UserEmbeddings, indexes: dict[str, Any]) -> Sequence[tuple[str, Scored, Any]]:
        """Returns name, scores and index recall at 100 of every system."""
        query_BD, num = fold_queries(users.vector_BD.numpy()), self.data.num_candidates
        # What is not the user's own has no term but the successors': the best of these are among so many.
        num_terms = 0 if users.successors is None else int(np.bincount(users.successors.row_P.numpy()).max())
        enough = TOP_K + int(np.bincount(users.own_row_M.numpy()).max(initial=0)) + num_terms
        exact = indexes["exact"].search(query_BD, max(enough, NUM_RETRIEVED))
        systems = [("model", score_listed(users, exact, indexes["exact"], num), np.ones(0))]
        best = TopK(exact.candidate[:, :TOP_K], exact.score[:, :TOP_K])
        for name, index in indexes.items():
            found = index.search(query_BD, NUM_RETRIEVED)
            share = index_recall_at_k(index.search(query_BD, TOP_K), best)
            systems.append((name, score_listed(users, found, index, num), share))
        return systems

    def _relevant(self, at: npt.NDArray[np.int64], pool: str) -> Keys:
        row_P = self.labels.rows()
        is_in_P = is_relevant_in(self.labels, pool) & np.isin(row_P, at)
        row = np.searchsorted(at, row_P[is_in_P])
        return row * self.data.num_candidates + self.labels.candidate[is_in_P].astype(np.int64)


def compare(
    recalls: dict[tuple[str, str], npt.NDArray[np.float64]], user_R: npt.NDArray[np.int32]
) -> dict[str, Any]:
    """Returns the means of both pools, and what each system loses of the model's."""
    result: dict[str, Any] = {}
    for pool in POOLS:
        model_R = recalls["model", pool]
        is_in_R = ~np.isnan(model_R)
        model_R, mean = model_R[is_in_R], float(model_R[is_in_R].mean())
        result[pool] = {"num_rows": len(model_R), "model": mean, "systems": {}}
        for name in SYSTEMS:
            lost_R1 = (model_R - recalls[name, pool][is_in_R])[:, None]
            interval = bootstrap_by_user(lost_R1, user_R[is_in_R], num_samples=2000)
            bounds = (interval.mean, interval.ci_low, interval.ci_high)
            result[pool]["systems"][name] = {
                "recall_at_100": float(recalls[name, pool][is_in_R].mean()),
                "lost": {
                    bound: float(value[0]) / mean
                    for bound, value in zip(("mean", "ci_low", "ci_high"), bounds, strict=True)
                },
            }
    return result


def measure(run: Path, folder: Path) -> dict[str, Any]:
    """Measures every system at the test cuts of a run."""
    config = validate_config(artifacts.read_json(run / artifacts.CONFIG), where=str(run))
    workflow = Workflow(config, run)
    data = workflow.target_data("item", [to_us(cut) for cut in config.split.test_cuts])
    model, labels = workflow.scorer("item"), data.labels()
    parts, facts = [], {}
    for cut_us in data.cuts_us:
        recalls, facts[name_cut(cut_us)] = Cut(data, labels, cut_us, model, folder).measure()
        parts.append(recalls)
    together = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    user_R = np.concatenate([labels.user_index[labels.cut_us == cut_us] for cut_us in data.cuts_us])
    return {
        "num_candidates": data.num_candidates,
        "num_retrieved": NUM_RETRIEVED,
        **compare(together, user_R),
        "indexes": facts,
    }


def main() -> None:
    """Runs the command line."""
    parser = stored_parser(__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="a finished run of the demo")
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
