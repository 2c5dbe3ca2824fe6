"""The index that reads every vector: the oracle of the others, and the one for thousands of candidates.

What scans is given from outside: `scan`, which loads no torch, or a `GroupMaxScan` for whole populations.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from forecart.retrieval.index import files
from forecart.retrieval.index.contract import (
    Eligible,
    Floats,
    IndexSettings,
    IndexSource,
    IndexStats,
    StoredVectors,
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
class ExactIndex:
    """Scores every candidate.

    Attributes:
        stored: vectors.
        scan: what scores them.
    """

    stored: StoredVectors
    scan: Scan = scan

    @property
    def candidate_N(self) -> npt.NDArray[np.int32]:
        """[N], ascending."""
        return self.stored.candidate_N

    @property
    def embedding_space_id(self) -> str:
        """Of the weights that made the vectors."""
        return str(self.stored.facts["embedding_space_id"])

    def search(self, query_BD: Floats, top_k: int, *, eligible: Eligible | None = None) -> TopK:
        """See `Index.search`."""
        vector_ND, candidate_N = self.stored.vector_ND, self.candidate_N
        query_BD = check_queries(query_BD, vector_ND.shape[1])
        if eligible is not None:
            place_M = np.flatnonzero(eligible.among(candidate_N))
            vector_ND, candidate_N = vector_ND[place_M], candidate_N[place_M]
        return self.scan(vector_ND, candidate_N, query_BD, top_k=top_k)

    def read_vectors(self, place_M: npt.NDArray[np.int64]) -> Floats:
        """Returns the stored vectors at some places."""
        return self.stored.read(place_M)

    def stats(self) -> IndexStats:
        """Returns counts and sizes."""
        return self.stored.stats()
