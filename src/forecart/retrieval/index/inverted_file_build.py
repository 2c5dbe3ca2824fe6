"""Builds an inverted file and measures what its searches need: lists to read, times, how far to look."""

from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np

from forecart import artifacts
from forecart.retrieval.index import files
from forecart.retrieval.index.contract import Floats, IndexSettings, IndexSource
from forecart.retrieval.index.inverted_file import InvertedFile
from forecart.retrieval.index.lists import fill_lists, map_lists, train_lists
from forecart.retrieval.index.masks import MaskedLists
from forecart.retrieval.index.scan import scan
from forecart.retrieval.index.tuning import (
    SearchAt,
    find_effort,
    sample_queries,
    time_scan_us,
    time_us,
)

SHARES: Final = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
"""Shares of eligible candidates that lists and times are measured for."""
_UNEVEN_SHARES: Final = (0.5, 0.1)
_LISTS_A_REGION: Final = 20


def build_inverted_file(source: IndexSource, folder: Path, settings: IndexSettings) -> None:
    """Writes an inverted file: lists, vectors by candidate, and how many lists are to be read."""
    files.begin_folder(folder)
    files.write_vectors(folder, source, np.float16)
    num = len(source.vector_ND)
    num_lists = settings.num_lists or max(1, 4 * int(np.sqrt(num)))
    lists = train_lists(source, min(num_lists, max(num, 1)), settings.seed)
    list_of_N = fill_lists(lists, source)
    artifacts.write_npy(folder / files.LIST_OF, list_of_N)
    artifacts.write_atomically(folder / files.LIBRARY, lambda path: faiss.write_index(lists, str(path)))
    stored = files.read_vectors(folder, {"embedding_space_id": source.embedding_space_id})
    index = InvertedFile(stored, map_lists(folder), list_of_N, {})
    measured = _measure(index, source, settings) if num else {"levels": []}
    files.finish_folder(folder, source, settings, {"num_lists": lists.nlist, **measured})


def _measure(index: InvertedFile, source: IndexSource, settings: IndexSettings) -> dict[str, Any]:
    """Finds the lists to read, and what that takes, for random masks; narrower ones are scanned."""
    query_SD = sample_queries(source, settings)
    top_k = min(settings.top_k, len(source.candidate_N))
    scan_us, scan_us_each = time_scan_us(source, query_SD, top_k)
    generator = np.random.default_rng(settings.seed)
    levels: list[dict[str, float]] = []
    for share in SHARES:
        is_eligible_N = generator.random(len(source.candidate_N)) < share
        masked = MaskedLists.of(is_eligible_N, index.list_of_N, index.lists.nlist)
        if not len(masked.place_M):
            break
        vector_ND = index.stored.vector_ND if share == 1 else index.stored.vector_ND[masked.place_M]
        exact = scan(vector_ND, source.candidate_N[is_eligible_N], query_SD, top_k=top_k)
        search_at = _search_at(index, top_k, None if share == 1 else masked)
        effort = find_effort(search_at, query_SD, exact, settings.target_recall, limit=index.lists.nlist)
        taken_us = time_us(search_at, query_SD, effort)
        levels.append({"share": share, "num_probes": effort, "search_us": taken_us})
        if share < 1 and scan_us + scan_us_each * len(masked.place_M) < taken_us:
            break
    return {
        "top_k": settings.top_k,
        "scan_us": scan_us,
        "scan_us_each": scan_us_each,
        "levels": levels,
        "margin": max(_measure_margin(index, query_SD, settings, share) for share in _UNEVEN_SHARES),
    }


def _measure_margin(index: InvertedFile, query_SD: Floats, settings: IndexSettings, share: float) -> float:
    """Returns how much nearer than its list a candidate may be: the score of the last listed less the list's.

    Measured where whole regions are not eligible, so that the nearest lists are far.
    """
    generator = np.random.default_rng(settings.seed)
    centroid_LD = index.centroid_LD
    num_regions = max(1, len(centroid_LD) // _LISTS_A_REGION)
    middle = centroid_LD[generator.permutation(len(centroid_LD))[:num_regions]]
    is_kept = generator.random(num_regions) < share
    is_kept[0] = True
    is_eligible_N = is_kept[(centroid_LD @ middle.T).argmax(axis=1)][index.list_of_N]
    place_M = np.flatnonzero(is_eligible_N).astype(np.int32)
    top_k = min(settings.top_k, len(place_M))
    if not top_k:
        return 0.0
    # Its places are what it lists: the first is 0, which is nobody to the lists of a search.
    exact = scan(index.stored.vector_ND[place_M], place_M, query_SD, top_k=top_k)
    near_SKD = centroid_LD[index.list_of_N[exact.candidate]]
    gap_SK = exact.score[:, -1:] - np.einsum("sd,skd->sk", query_SD, near_SKD)
    return float(np.quantile(gap_SK, settings.target_recall))


def _search_at(index: InvertedFile, top_k: int, masked: MaskedLists | None) -> SearchAt:
    return lambda query_BD, effort: index.search_lists(query_BD, top_k, effort, masked=masked)
