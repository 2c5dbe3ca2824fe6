"""Builds an inverted file and measures what its searches need: lists to read, times, how far to look."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from forecart.retrieval.index import files
from forecart.retrieval.index.centroids import find_nearest
from forecart.retrieval.index.contract import Floats, IndexSettings, IndexSource
from forecart.retrieval.index.inverted_file import InvertedFile
from forecart.retrieval.index.lists import fill_lists, map_lists, train_lists
from forecart.retrieval.index.masks import Effort, MaskedLists
from forecart.retrieval.index.probes import EVERYTHING, find_probes
from forecart.retrieval.index.scan import scan_under_masks
from forecart.retrieval.index.tuning import sample_queries, time_scan_us, time_us
from forecart.retrieval.top_k import TopK

SHARES: Final = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
"""Shares of eligible candidates that lists and times are measured for."""
_UNEVEN_SHARES: Final = (0.5, 0.1)
_LISTS_A_REGION: Final = 20
_MAX_REGIONS: Final = 200
_NUM_MASKED: Final = 250
"""Users that masks are measured with: with all that are sampled it would be most of the work of a build."""


def build_inverted_file(source: IndexSource, folder: Path, settings: IndexSettings) -> None:
    """Writes an inverted file: lists, vectors by candidate, and how many lists are to be read.

    Vectors are read by blocks, once but for a sample; nothing takes memory in proportion to their width.
    """
    files.begin_folder(folder)
    files.write_vectors(folder, source, np.float16)
    lists, centroid_LD = train_lists(source, settings)
    list_of_N = fill_lists(lists, centroid_LD, folder, settings)
    stored = files.read_vectors(folder, {"embedding_space_id": source.embedding_space_id})
    index = InvertedFile(stored, map_lists(folder), list_of_N, {})
    measured = _measure(index, source, settings) if len(list_of_N) else {"levels": []}
    files.finish_folder(folder, source, settings, {"num_lists": lists.nlist, **measured})


def _measure(index: InvertedFile, source: IndexSource, settings: IndexSettings) -> dict[str, Any]:
    """Finds the lists to read, and what that takes, for random masks; narrower ones are scanned."""
    query_SD = sample_queries(source, settings)
    top_k = min(settings.top_k, len(source.candidate_N))
    scan_us, scan_us_each = time_scan_us(source, query_SD, top_k)
    even, uneven = _even_masks(index, settings.seed), _uneven_masks(index, settings.seed)
    place_N = np.arange(len(index.list_of_N), dtype=np.int32)
    blocks = files.read_blocks(index.stored.folder)
    num_users = [len(query_SD), *[min(_NUM_MASKED, len(query_SD))] * (len(even) + len(uneven) - 1)]
    masks = list(zip([*even, *uneven], num_users, strict=True))
    by_place = scan_under_masks(blocks, place_N, query_SD, masks=masks, top_k=top_k)
    find = partial(_find_effort, index, query_SD, top_k, settings.target_recall)
    levels: list[dict[str, float]] = []
    for share, is_eligible_N, exact in zip(SHARES, even, by_place[: len(even)], strict=True):
        if not is_eligible_N.any():
            break
        effort, taken_us = find(is_eligible_N, exact)
        levels.append({"share": share, **asdict(effort), "search_us": taken_us})
        if share < 1 and scan_us + scan_us_each * np.count_nonzero(is_eligible_N) < taken_us:
            break
    far = [
        find(is_eligible_N, exact)
        for is_eligible_N, exact in zip(uneven, by_place[len(even) :], strict=True)
        if is_eligible_N.any()
    ]
    if not far:  # lists of hardly any differing vectors: nothing says how far to look
        far.append((Effort(0, index.lists.nlist, EVERYTHING), levels[0]["search_us"]))
    return {
        "top_k": settings.top_k,
        "scan_us": scan_us,
        "scan_us_each": scan_us_each,
        "levels": levels,
        "uneven": {
            "num_probes": max(effort.num_probes for effort, _ in far),
            "margin": max(effort.margin for effort, _ in far),
            "search_us": max(taken_us for _, taken_us in far),
        },
    }


def _find_effort(
    index: InvertedFile,
    query_SD: Floats,
    top_k: int,
    target: float,
    is_eligible_N: npt.NDArray[np.bool_],
    exact: TopK,
) -> tuple[Effort, float]:
    """Returns the effort that reaches the target under a mask, and the microseconds of a search with it."""
    masked = MaskedLists.of(is_eligible_N, index.list_of_N, index.lists.nlist)
    users_SD = query_SD[: len(exact.score)]
    under = None if is_eligible_N.all() else masked

    def search(query_BD: Floats, effort: Effort) -> TopK:
        return index.search_lists(query_BD, top_k, effort, masked=under)

    effort = find_probes(index, users_SD, exact, search=search, masked=masked, target=target)
    return effort, time_us(partial(search, effort=effort), users_SD)


def _even_masks(index: InvertedFile, seed: int) -> list[npt.NDArray[np.bool_]]:
    draw_N = np.random.default_rng(seed).random(len(index.list_of_N), dtype=np.float32)
    return [draw_N < share for share in SHARES]


def _uneven_masks(index: InvertedFile, seed: int) -> list[npt.NDArray[np.bool_]]:
    """Returns masks of whole regions, so that the nearest lists are far from some users."""
    centroid_LD = index.centroid_LD
    num_regions = min(max(1, len(centroid_LD) // _LISTS_A_REGION), _MAX_REGIONS)
    masks = []
    for share in _UNEVEN_SHARES:
        generator = np.random.default_rng(seed)
        middle_RD = centroid_LD[generator.permutation(len(centroid_LD))[:num_regions]]
        region_L, _ = find_nearest(middle_RD, seed)(centroid_LD)
        is_kept = generator.random(num_regions) < share
        is_kept[0] = True
        masks.append(is_kept[region_L][index.list_of_N])
    return masks
