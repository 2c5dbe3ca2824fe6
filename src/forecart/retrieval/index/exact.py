"""The index that reads every vector: the oracle of the others, and the one for thousands of candidates.

What scans is given from outside: `scan`, which loads no torch, or a `GroupMaxScan` for whole populations.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from forecart.retrieval.index import files
from forecart.retrieval.index.contract import (
    Eligible,
    Floats,
    IndexSettings,
    IndexSource,
    StoredIndex,
    check_queries,
)
from forecart.retrieval.index.scan import Scan, scan
from forecart.retrieval.top_k import TopK


def build_exact(source: IndexSource, folder: Path, settings: IndexSettings) -> None:
    """Writes an exact index: the vectors as they are."""
    files.begin_folder(folder)
    files.write_vectors(folder, source, np.float32)
    files.finish_folder(folder, source, settings, {})


@dataclass(frozen=True, eq=False)
class ExactIndex(StoredIndex):
    """Scores every candidate.

    Attributes:
        stored: vectors.
        scan: what scores them.
    """

    scan: Scan = scan

    def search(self, query_BD: Floats, top_k: int, *, eligible: Eligible | None = None) -> TopK:
        """See `Index.search`."""
        vector_ND, candidate_N = self.stored.vector_ND, self.candidate_N
        query_BD = check_queries(query_BD, vector_ND.shape[1])
        if eligible is not None:
            place_M = np.flatnonzero(eligible.among(candidate_N))
            vector_ND, candidate_N = vector_ND[place_M], candidate_N[place_M]
        return self.scan(vector_ND, candidate_N, query_BD, top_k=top_k)
