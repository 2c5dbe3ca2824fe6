"""The inverted file: vectors in lists around centroids, and only the lists nearest to a user are read.

faiss reads the lists from the disk, mapped; where they hold a byte a coordinate, the best are scored again
with the vectors in half precision. How many are read is measured when the index is built, without a mask and
for masks of several widths; with those times a search under a mask chooses between reading more lists and
scanning every eligible candidate. What it cannot fill it scans: a mask loses nothing.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final
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
from forecart.retrieval.index.masks import Effort, MaskedLists, choose_effort
from forecart.retrieval.index.scan import fill_short, scan
from forecart.retrieval.top_k import TopK, sort_lists

Found = tuple[Floats, npt.NDArray[np.int64]]
"""Scores and places of what faiss found, sorted, -inf and -1 where there is less."""
_SCORED_AGAIN: Final = 1.5
"""Of the K: codes of a byte a coordinate put hardly any of the best K behind so many."""
_TIMES_MORE: Final = 8
"""So many times the lists that were read are read next, where they are near enough."""
_MAX_SCORED: Final = 1 << 22


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
        effort = choose_effort(self.measured, masked, top_k)
        if effort is None:
            return self._scan(query_BD, top_k, masked)
        found = self.search_lists(query_BD, top_k, effort, masked=masked)
        num = len(self.candidate_N) if masked is None else len(masked.place_M)
        return fill_short(found, num, query_BD, lambda query_BD: self._scan(query_BD, top_k, masked))

    def prepare(self, eligible: Eligible) -> MaskedLists:
        """Returns the mask as the lists take it; made at its first search."""
        masked = self._masked.get(eligible)
        if masked is None:
            is_eligible_N = eligible.among(self.candidate_N)
            masked = MaskedLists.of(is_eligible_N, self.list_of_N, self.lists.nlist)
            self._masked[eligible] = masked
        return masked

    def search_lists(
        self, query_BD: Floats, top_k: int, effort: Effort, *, masked: MaskedLists | None = None
    ) -> TopK:
        """Returns the best of the nearest lists; short where they hold fewer than K.

        Where a mask leaves out whole regions, the nearest of the lists that hold anything eligible are read.
        """
        quantizer = self.lists.quantizer if masked is None or masked.is_even else self._held_by(masked)
        num_probes = min(max(effort.num_first, effort.num_probes), quantizer.ntotal)
        coarse_BP, list_BP = quantizer.search(query_BD, num_probes)
        if masked is not None and not masked.is_even:
            list_BP = masked.list_L[list_BP]
        found = self._read(
            query_BD, top_k, coarse_BP[:, : effort.num_first], list_BP[:, : effort.num_first], masked
        )
        num_read = effort.num_first
        while num_read < num_probes:
            least_B1 = _last(found[0], top_k)[:, None] - effort.margin
            rows = slice(num_read, num_read * _TIMES_MORE)
            # faiss passes over -1
            next_BP = np.where(coarse_BP[:, rows] >= least_B1, list_BP[:, rows], -1)
            if (next_BP < 0).all():
                break
            found = _merge(found, self._read(query_BD, top_k, coarse_BP[:, rows], next_BP, masked))
            num_read *= _TIMES_MORE
        return self._list(query_BD, *found, top_k)

    def _held_by(self, masked: MaskedLists) -> Any:
        """Returns faiss's index of the centroids of the lists that hold anything eligible."""
        if masked.quantizer is None:
            quantizer = faiss.clone_index(self.lists.quantizer)
            quantizer.reset()
            quantizer.add(np.ascontiguousarray(self.centroid_LD[masked.list_L]))
            masked.quantizer = quantizer
        return masked.quantizer

    def _read(
        self,
        query_BD: Floats,
        top_k: int,
        coarse_BP: Floats,
        list_BP: npt.NDArray[np.int64],
        masked: MaskedLists | None,
    ) -> Found:
        """Returns the best eligible of these lists, whose centroids have these scores."""
        coarse_BP, list_BP = np.ascontiguousarray(coarse_BP), np.ascontiguousarray(list_BP)
        num_found = self._num_found(top_k)
        score_BM = np.empty((len(query_BD), num_found), np.float32)
        place_BM = np.empty((len(query_BD), num_found), np.int64)
        lists, selector = self.lists, None
        if masked is not None:
            lists = masked.lists or self._lists_of(masked)
            selector = faiss.IDSelectorBitmap(masked.bits) if lists is self.lists else None
        parameters = faiss.SearchParametersIVF(nprobe=list_BP.shape[1], sel=selector)
        # The wrapper for arrays takes no parameters.
        arrays = [faiss.swig_ptr(array) for array in (list_BP, coarse_BP, score_BM, place_BM)]
        queries = faiss.swig_ptr(query_BD)
        lists.search_preassigned_c(len(query_BD), queries, num_found, *arrays, False, parameters)
        return np.where(place_BM < 0, -np.inf, score_BM).astype(np.float32, copy=False), place_BM

    def _num_found(self, top_k: int) -> int:
        """Returns how many a search of the lists is asked for."""
        longer = _SCORED_AGAIN if self._has_codes else 1.0
        return min(int(np.ceil(top_k * longer)), len(self.candidate_N))

    @cached_property
    def _has_codes(self) -> bool:
        return bool(self.lists.code_size < self.stored.vector_ND.itemsize * self.lists.d)

    def _list(self, query_BD: Floats, score_BM: Floats, place_BM: npt.NDArray[np.int64], top_k: int) -> TopK:
        """Returns lists of what faiss found, scored again where that was by codes."""
        if self._has_codes:
            score_BM = np.empty_like(score_BM)
            rows = max(1, _MAX_SCORED // max(place_BM.shape[1] * self.lists.d, 1))
            for first in range(0, len(query_BD), rows):
                users = slice(first, first + rows)
                place_M = np.maximum(place_BM[users], 0).ravel()
                shape = (*place_BM[users].shape, self.lists.d)
                vector_BMD = self.stored.read_unmapped(place_M).reshape(shape)
                score_BM[users] = np.matmul(vector_BMD, query_BD[users, :, None])[..., 0]
            score_BM[place_BM < 0] = -np.inf
        return sort_lists(np.where(place_BM < 0, 0, self.candidate_N[place_BM]), score_BM, top_k)

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
        return artifacts.read_npy(self.stored.folder / files.CENTROIDS)

    def _scan(self, query_BD: Floats, top_k: int, masked: MaskedLists | None) -> TopK:
        if masked is None:
            return scan(self.stored.vector_ND, self.candidate_N, query_BD, top_k=top_k)
        candidate_M = self.candidate_N[masked.place_M]
        return scan(masked.read(self.stored), candidate_M, query_BD, top_k=top_k)


def _last(score_BM: Floats, top_k: int) -> Floats:
    """Returns the score of the last of K, [B], of sorted ones; -inf where there are fewer."""
    if score_BM.shape[1] < top_k:
        return np.full(len(score_BM), -np.inf, np.float32)
    return score_BM[:, top_k - 1]


def _merge(one: Found, other: Found) -> Found:
    """Returns the best of two, as many as either has, sorted."""
    score_BM = np.concatenate([one[0], other[0]], axis=1)
    place_BM = np.concatenate([one[1], other[1]], axis=1)
    order_BM = np.argsort(-score_BM, axis=1, kind="stable")[:, : one[0].shape[1]]
    return np.take_along_axis(score_BM, order_BM, axis=1), np.take_along_axis(place_BM, order_BM, axis=1)
