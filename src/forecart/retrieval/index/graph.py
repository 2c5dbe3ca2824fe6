"""The graph: a walk from neighbour to neighbour (HNSW of faiss), for vectors without clusters.

It takes longer to build and more memory than the inverted file. A walk among eligible candidates only loses
recall without a sign of it, so under a mask everything eligible is scanned: right, and slow for a wide mask.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np

from forecart import artifacts
from forecart.retrieval.index import files
from forecart.retrieval.index.contract import (
    Eligible,
    Floats,
    IndexSettings,
    IndexSource,
    StoredIndex,
    check_queries,
)
from forecart.retrieval.index.scan import fill_short, scan
from forecart.retrieval.index.tuning import find_effort, sample_queries, time_us
from forecart.retrieval.top_k import TopK, sort_lists

_NUM_NEIGHBOURS: Final = 32
_BUILD_EFFORT: Final = 80
_MAX_EFFORT: Final = 4096
_BLOCK_ROWS: Final = 1 << 16


def build_graph(source: IndexSource, folder: Path, settings: IndexSettings) -> None:
    """Writes a graph over vectors in half precision."""
    files.begin_folder(folder)
    files.write_vectors(folder, source, np.float16)
    num, width = source.vector_ND.shape
    graph = faiss.IndexHNSWSQ(
        width, faiss.ScalarQuantizer.QT_fp16, _NUM_NEIGHBOURS, faiss.METRIC_INNER_PRODUCT
    )
    graph.is_trained = True
    graph.hnsw.efConstruction = _BUILD_EFFORT
    for first in range(0, num, _BLOCK_ROWS):
        graph.add(np.ascontiguousarray(source.vector_ND[first : first + _BLOCK_ROWS], np.float32))
    artifacts.write_atomically(folder / files.LIBRARY, lambda path: faiss.write_index(graph, str(path)))
    stored = files.read_vectors(folder, {"embedding_space_id": source.embedding_space_id})
    measured = _measure(GraphIndex(stored, graph, {}), source, settings) if num else {"effort": 1}
    files.finish_folder(folder, source, settings, {"top_k": settings.top_k, **measured})


def open_graph(folder: Path, facts: dict[str, Any]) -> "GraphIndex":
    """Opens a graph whose files were verified."""
    graph = faiss.read_index(str(folder / files.LIBRARY), faiss.IO_FLAG_MMAP_IFC)
    return GraphIndex(files.read_vectors(folder, facts), graph, facts["measured"])


@dataclass(frozen=True, eq=False)
class GraphIndex(StoredIndex):
    """Walks a graph of neighbours.

    Attributes:
        stored: vectors by candidate, half precision.
        graph: faiss's index; its ids are places, 0 to N - 1.
        measured: the effort of a walk.
    """

    graph: Any
    measured: dict[str, Any]

    def search(self, query_BD: Floats, top_k: int, *, eligible: Eligible | None = None) -> TopK:
        """See `Index.search`."""
        query_BD = check_queries(query_BD, self.stored.vector_ND.shape[1])
        vector_ND, candidate_N = self.stored.vector_ND, self.candidate_N
        if eligible is not None:
            place_M = np.flatnonzero(eligible.among(candidate_N))
            return scan(vector_ND[place_M], candidate_N[place_M], query_BD, top_k=top_k)
        longer = max(1.0, top_k / self.measured["top_k"])
        found = self.walk(query_BD, top_k, int(np.ceil(self.measured["effort"] * longer)))
        return fill_short(
            found,
            len(candidate_N),
            query_BD,
            lambda query_BD: scan(vector_ND, candidate_N, query_BD, top_k=top_k),
        )

    def walk(self, query_BD: Floats, top_k: int, effort: int) -> TopK:
        """Returns the best that a walk meets; short where that is fewer than K."""
        kept = min(top_k, len(self.candidate_N))
        if not kept:
            return sort_lists(
                np.zeros((len(query_BD), 0), np.int32), np.zeros((len(query_BD), 0), np.float32), top_k
            )
        parameters = faiss.SearchParametersHNSW(efSearch=max(effort, kept))
        score_BK, place_BK = self.graph.search(query_BD, kept, params=parameters)
        score_BK = np.where(place_BK < 0, -np.inf, score_BK).astype(np.float32, copy=False)
        return sort_lists(np.where(place_BK < 0, 0, self.candidate_N[place_BK]), score_BK, top_k)


def _measure(index: GraphIndex, source: IndexSource, settings: IndexSettings) -> dict[str, Any]:
    query_SD = sample_queries(source, settings)
    top_k = min(settings.top_k, len(source.candidate_N))
    exact = scan(index.stored.vector_ND, source.candidate_N, query_SD, top_k=top_k)

    def search_at(query_BD: Floats, effort: int) -> TopK:
        return index.walk(query_BD, top_k, effort)

    effort = find_effort(search_at, query_SD, exact, settings.target_recall, limit=_MAX_EFFORT)
    return {"effort": effort, "search_us": time_us(partial(search_at, effort=effort), query_SD)}
