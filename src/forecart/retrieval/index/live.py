"""An index that changes: what was added since it was built is scanned, what was removed is left out.

The index on disk stays what it is. A search asks it for a few more than K, drops what is gone, and merges
what a scan of the added candidates finds; where too many of a list are gone it is searched again under a mask
without them. `compact` builds one index of both, which is due when the added ones take too long to scan.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from forecart.retrieval.index.build import build_index
from forecart.retrieval.index.contract import (
    Eligible,
    Floats,
    Index,
    IndexSettings,
    IndexSource,
    IndexStats,
    check_queries,
)
from forecart.retrieval.index.scan import scan
from forecart.retrieval.top_k import TopK, merge_lists, sort_lists
from forecart.sequences.vocabulary import FIRST_INDEX


@dataclass(frozen=True, eq=False)
class _Changes:
    """What has changed; replaced as a whole, so that a search sees all of a change or nothing."""

    candidate_M: npt.NDArray[np.int32]
    vector_MD: Floats
    is_gone_N: npt.NDArray[np.bool_]
    narrowed: WeakKeyDictionary[Eligible, Eligible] = field(default_factory=WeakKeyDictionary)

    @cached_property
    def gone_share(self) -> float:
        return float(self.is_gone_N.mean()) if len(self.is_gone_N) else 0.0


class LiveIndex:
    """An index with candidates added, replaced and removed in memory.

    Searches may go on in other threads while one thread changes it.
    """

    def __init__(self, built: Index) -> None:
        self._built = built
        num, width = built.stats().num_candidates, built.stats().width
        self._width = width
        self._changes = _Changes(
            np.zeros(0, np.int32), np.zeros((0, width), np.float32), np.zeros(num, np.bool_)
        )
        self._everything = Eligible(np.ones(int(self._built.candidate_N.max(initial=0)) + 1, np.bool_))

    @property
    def candidate_N(self) -> npt.NDArray[np.int32]:
        """[N], ascending: what is there now."""
        changes = self._changes
        return np.sort(np.concatenate([self._built.candidate_N[~changes.is_gone_N], changes.candidate_M]))

    @property
    def embedding_space_id(self) -> str:
        """Of the weights that made the vectors."""
        return self._built.embedding_space_id

    def upsert(self, candidate_M: npt.NDArray[np.int32], vector_MD: Floats) -> None:
        """Adds candidates, or replaces their vectors; of one that is named twice the last counts.

        Raises:
            ValueError: a vector is not of the index's width or not finite, or a candidate is not one.
        """
        vector_MD = check_queries(vector_MD, self._width)
        if len(candidate_M) != len(vector_MD) or (candidate_M < FIRST_INDEX).any():
            raise ValueError(f"a vector each of candidates from {FIRST_INDEX} on is needed, others arrived")
        changes = self._changes
        candidate = np.concatenate([changes.candidate_M, candidate_M]).astype(np.int32)
        last_first, position = np.unique(candidate[::-1], return_index=True)
        vector = np.concatenate([changes.vector_MD, vector_MD])[len(candidate) - 1 - position]
        is_gone_N = changes.is_gone_N | np.isin(self._built.candidate_N, candidate_M)
        self._changes = _Changes(last_first, vector, is_gone_N)

    def remove(self, candidate_M: npt.NDArray[np.int32]) -> None:
        """Removes candidates; one that is not there is no error."""
        changes = self._changes
        is_kept_M = ~np.isin(changes.candidate_M, candidate_M)
        is_gone_N = changes.is_gone_N | np.isin(self._built.candidate_N, candidate_M)
        self._changes = _Changes(changes.candidate_M[is_kept_M], changes.vector_MD[is_kept_M], is_gone_N)

    def search(self, query_BD: Floats, top_k: int, *, eligible: Eligible | None = None) -> TopK:
        """See `Index.search`."""
        changes = self._changes
        query_BD = check_queries(query_BD, self._width)
        is_listed_M = np.ones(len(changes.candidate_M), np.bool_)
        if eligible is not None:
            is_listed_M = eligible.among(changes.candidate_M)
        candidate_M = changes.candidate_M[is_listed_M]
        # No copy of all that was added for every search.
        vector_MD = changes.vector_MD if is_listed_M.all() else changes.vector_MD[is_listed_M]
        added = scan(vector_MD, candidate_M, query_BD, top_k=top_k)
        return merge_lists([self._search_built(changes, query_BD, top_k, eligible), added], top_k)

    def _search_built(
        self, changes: _Changes, query_BD: Floats, top_k: int, eligible: Eligible | None
    ) -> TopK:
        if not changes.gone_share:
            return self._built.search(query_BD, top_k, eligible=eligible)
        asked = top_k + int(np.ceil(2 * changes.gone_share * top_k)) + 8
        found = self._built.search(query_BD, asked, eligible=eligible)
        is_there = found.candidate > 0
        place_BK = np.searchsorted(self._built.candidate_N, np.where(is_there, found.candidate, FIRST_INDEX))
        is_left = is_there & ~changes.is_gone_N[np.minimum(place_BK, len(changes.is_gone_N) - 1)]
        left = sort_lists(
            np.where(is_left, found.candidate, 0),
            np.where(is_left, found.score, -np.inf).astype(np.float32),
            top_k,
        )
        is_short = (is_left.sum(axis=1) < top_k) & is_there[:, -1]
        if is_short.any():
            again = self._built.search(query_BD[is_short], top_k, eligible=self._narrow(changes, eligible))
            left.candidate[is_short], left.score[is_short] = again.candidate, again.score
        return left

    def _narrow(self, changes: _Changes, eligible: Eligible | None) -> Eligible:
        """Returns the mask without what is gone."""
        eligible = eligible or self._everything
        narrowed = changes.narrowed.get(eligible)
        if narrowed is None:
            mask = eligible.mask[: len(self._everything.mask)].copy()
            gone = self._built.candidate_N[changes.is_gone_N]
            mask[gone[gone < len(mask)]] = False
            narrowed = changes.narrowed[eligible] = Eligible(mask)
        return narrowed

    def compact(self, folder: Path, settings: IndexSettings, *, user_SD: Floats | None = None) -> None:
        """Writes one index of what is there now.

        Args:
            folder: of the new index, not that of this one.
            settings: of the new index.
            user_SD: see `IndexSource`.
        """
        changes = self._changes
        place_M = np.flatnonzero(~changes.is_gone_N)
        candidate = np.concatenate([self._built.candidate_N[place_M], changes.candidate_M])
        vector = np.concatenate([self._built.read_vectors(place_M), changes.vector_MD])
        order = np.argsort(candidate)
        build_index(
            IndexSource(vector[order], candidate[order], self.embedding_space_id, user_SD), folder, settings
        )

    def stats(self) -> IndexStats:
        """Returns counts and sizes; `num_added` and `num_gone` say when to compact."""
        changes, built = self._changes, self._built.stats()
        num_gone, num_added = int(changes.is_gone_N.sum()), len(changes.candidate_M)
        return IndexStats(
            kind=built.kind,
            num_candidates=built.num_candidates - num_gone + num_added,
            width=built.width,
            disk_bytes=built.disk_bytes,
            facts={**built.facts, "num_added": num_added, "num_gone": num_gone},
        )
