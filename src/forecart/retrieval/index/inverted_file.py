"""The inverted file: vectors in lists around centroids, and only the lists nearest to a user are read.

faiss holds the lists in half precision, mapped from the disk. How many are read is measured when the index is
built, without a mask and for masks of several widths; with those times a search under a mask chooses between
reading more lists and scanning every eligible candidate. What it cannot fill it scans: a mask loses nothing.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import faiss
import numpy as np
import numpy.typing as npt

from forecart import artifacts
from forecart.retrieval.index import files
from forecart.retrieval.index.contract import (
    Eligible,
    Floats,
    StoredIndex,
    check_queries,
)
from forecart.retrieval.index.lists import empty_lists, map_lists, put_into_lists
from forecart.retrieval.index.masks import MaskedLists, choose_num_probes
from forecart.retrieval.index.scan import scan
from forecart.retrieval.top_k import TopK, sort_lists


def open_inverted_file(folder: Path, facts: dict[str, Any]) -> "InvertedFile":
    """Maps an inverted file whose files were verified."""
    list_of_N = artifacts.read_npy(folder / files.LIST_OF)
    return InvertedFile(files.read_vectors(folder, facts), map_lists(folder), list_of_N, facts["measured"])


@dataclass(frozen=True, eq=False)
class InvertedFile(StoredIndex):
    """Reads the lists nearest to a user.

    Attributes:
        stored: vectors by candidate, half precision.
        lists: faiss's index; its ids are places, 0 to N - 1.
        list_of_N: the list that each candidate is in.
        measured: lists to read, and times.
    """

    lists: Any
    list_of_N: npt.NDArray[np.int32]
    measured: dict[str, Any]
    _masked: WeakKeyDictionary[Eligible, MaskedLists] = field(default_factory=WeakKeyDictionary, repr=False)

    def search(self, query_BD: Floats, top_k: int, *, eligible: Eligible | None = None) -> TopK:
        """See `Index.search`."""
        query_BD = check_queries(query_BD, self.stored.vector_ND.shape[1])
        masked = None if eligible is None else self.prepare(eligible)
        num_probes = choose_num_probes(self.measured, masked, top_k)
        if num_probes == 0:
            return self._scan(query_BD, top_k, masked)
        found = self.search_lists(query_BD, top_k, num_probes, masked=masked)
        if masked is not None and not masked.is_even:
            self._read_on(found, query_BD, num_probes, masked)
        num = len(self.candidate_N) if masked is None else len(masked.place_M)
        is_short = (found.candidate > 0).sum(axis=1) < min(top_k, num)
        if is_short.any():
            exact = self._scan(query_BD[is_short], top_k, masked)
            found.candidate[is_short], found.score[is_short] = exact.candidate, exact.score
        return found

    def prepare(self, eligible: Eligible) -> MaskedLists:
        """Returns the mask as the lists take it; made at its first search."""
        masked = self._masked.get(eligible)
        if masked is None:
            is_eligible_N = eligible.among(self.candidate_N)
            masked = MaskedLists.of(is_eligible_N, self.list_of_N, self.lists.nlist)
            self._masked[eligible] = masked
        return masked

    def search_lists(
        self, query_BD: Floats, top_k: int, num_probes: int, *, masked: MaskedLists | None = None
    ) -> TopK:
        """Returns the best of so many lists; short where they hold fewer than K."""
        kept = min(top_k, len(self.candidate_N))
        if masked is None:
            parameters = faiss.SearchParametersIVF(nprobe=min(num_probes, self.lists.nlist))
            score_BK, place_BK = self.lists.search(query_BD, kept, params=parameters)
        else:
            score_BK, place_BK = self._search_masked(query_BD, kept, num_probes, masked)
        score_BK = np.where(place_BK < 0, -np.inf, score_BK).astype(np.float32, copy=False)
        return sort_lists(np.where(place_BK < 0, 0, self.candidate_N[place_BK]), score_BK, top_k)

    def _search_masked(
        self, query_BD: Floats, top_k: int, num_probes: int, masked: MaskedLists
    ) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Reads the nearest of the lists that hold anything eligible, since the others give nothing."""
        score_BL = query_BD @ self.centroid_LD[masked.list_L].T
        num = min(num_probes, len(masked.list_L))
        nearest_BP = np.argpartition(-score_BL, num - 1, axis=1)[:, :num]
        list_BP = np.ascontiguousarray(masked.list_L[nearest_BP])
        coarse_BP = np.ascontiguousarray(np.take_along_axis(score_BL, nearest_BP, axis=1))
        score_BK = np.empty((len(query_BD), top_k), np.float32)
        place_BK = np.empty((len(query_BD), top_k), np.int64)
        lists = masked.lists or self._lists_of(masked)
        selector = None if lists is not self.lists else faiss.IDSelectorBitmap(masked.bits)
        parameters = faiss.SearchParametersIVF(nprobe=num, sel=selector)
        # The wrapper for arrays takes no parameters.
        arrays = [faiss.swig_ptr(array) for array in (list_BP, coarse_BP, score_BK, place_BK)]
        lists.search_preassigned_c(len(query_BD), faiss.swig_ptr(query_BD), top_k, *arrays, False, parameters)
        return score_BK, place_BK

    def _read_on(self, found: TopK, query_BD: Floats, num_probes: int, masked: MaskedLists) -> None:
        """Searches again for users to whom more lists are near than were read, for how good their lists are.

        A user around whom nothing is eligible needs many lists more than others.
        """
        top_k = found.score.shape[1]
        score_BL = query_BD @ self.centroid_LD[masked.list_L].T
        is_near_BL = score_BL >= found.score[:, -1:] - self.measured["margin"]
        for row, num in enumerate(is_near_BL.sum(axis=1)):
            if num > num_probes and found.candidate[row, -1]:
                again = self.search_lists(query_BD[row : row + 1], top_k, int(num), masked=masked)
                found.candidate[row], found.score[row] = again.candidate[0], again.score[0]

    def _lists_of(self, masked: MaskedLists) -> Any:
        """Returns lists of the eligible candidates alone, where they are not too many to be kept twice."""
        lists = self.lists
        if masked.has_own_lists(lists.d):
            lists = empty_lists(self.lists.quantizer, self.lists.nlist)
            list_M = self.list_of_N[masked.place_M].astype(np.int64)
            put_into_lists(lists, self.stored.read(masked.place_M), masked.place_M, list_M)
        masked.lists = lists  # when it is filled: others may be searching
        return lists

    @cached_property
    def centroid_LD(self) -> Floats:
        """[L, D], of the lists."""
        centroids: Floats = self.lists.quantizer.reconstruct_n(0, self.lists.nlist)
        return centroids

    def _scan(self, query_BD: Floats, top_k: int, masked: MaskedLists | None) -> TopK:
        if masked is None:
            return scan(self.stored.vector_ND, self.candidate_N, query_BD, top_k=top_k)
        candidate_M = self.candidate_N[masked.place_M]
        return scan(masked.read(self.stored), candidate_M, query_BD, top_k=top_k)
