"""The lists of the inverted file, as faiss holds them: centroids, and codes of the vectors on the disk.

Nothing here takes more memory than a block of vectors, a sample and four bytes a vector. Many centroids
are learned region by region, and to find a vector's list only those of the regions near it are read. A search
reads every centroid: a user is near lists of many regions, a vector in one near its own.
"""

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from forecart import artifacts
from forecart.retrieval.index import files
from forecart.retrieval.index.contract import Codes, Floats, IndexSettings, IndexSource

VECTORS_A_LIST: Final = 64
"""That centroids are learned from."""
_NUM_ROUNDS: Final = 10
_NUM_JOINT_ROUNDS: Final = 4
"""After the regions were learned alone: else a cluster on a border is cut into lists of both."""
_MAX_FLAT: Final = 1 << 12
_REGIONS_FILLED: Final = 8
_CODES: Final = {"float16": faiss.ScalarQuantizer.QT_fp16, "int8": faiss.ScalarQuantizer.QT_8bit}
_BLOCK_BYTES: Final = 1 << 28


def train_lists(source: IndexSource, settings: IndexSettings) -> Any:
    """Returns empty lists around centroids of a sample."""
    num = len(source.vector_ND)
    num_lists = min(settings.num_lists or max(1, 4 * int(np.sqrt(num))), max(num, 1))
    sample = sample_rows(source, num_lists * VECTORS_A_LIST, settings.seed)
    centroid_LD = sample
    if num > num_lists > _MAX_FLAT:
        centroid_LD = _cluster_in_regions(sample, num_lists, settings.seed)
    elif num > num_lists:
        centroid_LD = _cluster(sample, num_lists, settings.seed)
    centroids = faiss.IndexFlatIP(source.vector_ND.shape[1])
    centroids.add(centroid_LD)
    lists = empty_lists(centroids, num_lists, settings.codes)
    if settings.codes == "int8" and num:
        lists.sq.train(sample)
    return lists


def sample_rows(source: IndexSource, num: int, seed: int) -> Floats:
    """Returns so many of the vectors, or all, in their order."""
    if num >= len(source.vector_ND):
        return np.array(source.vector_ND[:], np.float32)
    chosen = np.random.default_rng(seed).choice(len(source.vector_ND), num, replace=False)
    return np.array(source.vector_ND[np.sort(chosen)], np.float32)


def _cluster(sample: Floats, num_lists: int, seed: int) -> Floats:
    # Centroids of one length: lists are by direction, and long vectors, of a high prior, draw no others.
    clustering = faiss.Kmeans(
        sample.shape[1], num_lists, niter=_NUM_ROUNDS, seed=seed, spherical=True, min_points_per_centroid=1
    )
    clustering.train(sample)
    return np.asarray(clustering.centroids)


def _cluster_in_regions(sample: Floats, num_lists: int, seed: int) -> Floats:
    """Returns centroids that were learned region by region, as many in each as it has of the sample."""
    regions = faiss.IndexFlatIP(sample.shape[1])
    regions.add(_cluster(sample, 4 * int(np.sqrt(num_lists)), seed))
    region_S = regions.search(sample, 1)[1][:, 0]
    order_S = np.argsort(region_S, kind="stable")
    ends = np.cumsum(np.bincount(region_S, minlength=regions.ntotal))
    list_ends = np.round(ends / len(sample) * num_lists).astype(int)
    parts = []
    for (first, last), (first_list, last_list) in zip(
        pairwise([0, *ends]), pairwise([0, *list_ends]), strict=True
    ):
        if last_list > first_list:
            parts.append(_cluster(sample[order_S[first:last]], last_list - first_list, seed))
    centroid_LD = np.concatenate(parts)
    for _ in range(_NUM_JOINT_ROUNDS):
        _move(centroid_LD, sample, _hold_in_regions(centroid_LD, seed).search(sample, 1)[1][:, 0])
    return centroid_LD


def _move(centroid_LD: Floats, sample: Floats, list_S: npt.NDArray[np.int64]) -> None:
    """Moves each centroid into the middle of what is nearest to it; one of nothing stays."""
    order_S = np.argsort(list_S, kind="stable")
    filled, first = np.unique(list_S[order_S], return_index=True)
    sum_LD = np.add.reduceat(sample[order_S], first, axis=0)
    centroid_LD[filled] = sum_LD / np.linalg.norm(sum_LD, axis=1, keepdims=True).clip(min=1e-30)


def _hold_in_regions(centroid_LD: Floats, seed: int) -> Any:
    """Returns an index of the centroids that reads only those of the regions nearest to a vector."""
    num_lists, width = centroid_LD.shape
    regions = faiss.IndexFlatIP(width)
    regions.add(_cluster(centroid_LD, 4 * int(np.sqrt(num_lists)), seed))
    held = faiss.IndexIVFFlat(regions, width, regions.ntotal, faiss.METRIC_INNER_PRODUCT)
    held.is_trained = True
    held.add(centroid_LD)
    held.nprobe = min(_REGIONS_FILLED, regions.ntotal)
    return held


def empty_lists(centroids: Any, num_lists: int, codes: Codes = "float16") -> Any:
    """Returns lists around centroids."""
    lists = faiss.IndexIVFScalarQuantizer(
        centroids,
        centroids.d,
        num_lists,
        _CODES[codes],
        faiss.METRIC_INNER_PRODUCT,
        False,  # not the difference to the centroid: half a float holds the vector itself
    )
    lists.is_trained = True
    return lists


def assign_lists(lists: Any, folder: Path, settings: IndexSettings) -> npt.NDArray[np.int32]:
    """Returns the list that each vector of a folder is nearest to, [N], and writes them there."""
    parts = []
    centroids = lists.quantizer
    if lists.nlist > _MAX_FLAT:
        centroids = _hold_in_regions(centroids.reconstruct_n(0, lists.nlist), settings.seed)
    for _, block in files.read_blocks(folder):
        vector_MD = block.astype(np.float32)
        parts.append(centroids.search(vector_MD, 1)[1][:, 0].astype(np.int32))
    list_of_N = np.concatenate([np.zeros(0, np.int32), *parts])
    artifacts.write_npy(folder / files.LIST_OF, list_of_N)
    return list_of_N


def write_lists(lists: Any, folder: Path, list_of_N: npt.NDArray[np.int32]) -> None:
    """Writes the codes of a folder's vectors, by list, and faiss's index of them."""
    size_L = _count(list_of_N, lists.nlist)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as handle:
            handle.truncate(_num_bytes(lists, size_L))
            filled_L = np.zeros(lists.nlist, np.int64)
            for first, code_MC in _encode(lists, folder):
                list_M = list_of_N[first : first + len(code_MC)]
                _place(handle.fileno(), code_MC, list_M, first=first, filled_L=filled_L, size_L=size_L)

    artifacts.write_atomically(folder / files.LISTS, write)
    artifacts.write_atomically(folder / files.LIBRARY, lambda path: faiss.write_index(lists, str(path)))


def _count(list_of_N: npt.NDArray[np.int32], num_lists: int) -> npt.NDArray[np.uint64]:
    size_L = np.zeros(num_lists, np.uint64)
    for first in range(0, len(list_of_N), _BLOCK_BYTES // 64):
        block = list_of_N[first : first + _BLOCK_BYTES // 64]
        size_L += np.bincount(block, minlength=num_lists).astype(np.uint64)
    return size_L


def _num_bytes(lists: Any, size_L: npt.NDArray[np.uint64]) -> int:
    # At least a byte: nothing cannot be mapped.
    return max(1, int(size_L.sum()) * (int(lists.code_size) + 8))


def _encode(lists: Any, folder: Path) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Yields codes in blocks so large that what goes into one list is not written by the row."""
    parts: list[npt.NDArray[np.uint8]] = []
    begins = 0
    for first, block in files.read_blocks(folder):
        parts.append(lists.sq.compute_codes(block.astype(np.float32)))
        if sum(part.nbytes for part in parts) >= _BLOCK_BYTES:
            yield begins, np.concatenate(parts)
            parts, begins = [], first + len(block)
    if parts:
        yield begins, np.concatenate(parts)


def _place(
    descriptor: int,
    code_MC: npt.NDArray[np.uint8],
    list_M: npt.NDArray[np.int32],
    *,
    first: int,
    filled_L: npt.NDArray[np.int64],
    size_L: npt.NDArray[np.uint64],
) -> None:
    """Writes codes and places where faiss reads them: the codes of a list, then its places."""
    code_size = code_MC.shape[1]
    begin_L = (np.cumsum(size_L) - size_L).astype(np.int64) * (code_size + 8)
    order_M = np.argsort(list_M, kind="stable")
    code_MC, place_M = code_MC[order_M], order_M + first
    ends = np.cumsum(np.bincount(list_M, minlength=len(size_L)))
    for number in np.flatnonzero(np.diff(ends, prepend=0)):
        begins = ends[number - 1] if number else 0
        rows = slice(begins, ends[number])
        codes_at = begin_L[number] + filled_L[number] * code_size
        places_at = begin_L[number] + int(size_L[number]) * code_size + filled_L[number] * 8
        os.pwrite(descriptor, code_MC[rows].tobytes(), codes_at)
        os.pwrite(descriptor, place_M[rows].tobytes(), places_at)
        filled_L[number] += ends[number] - begins


def put_into_lists(
    lists: Any, vector_MD: Floats, place_M: npt.NDArray[np.int64], list_M: npt.NDArray[np.int64]
) -> None:
    """Puts vectors into lists that are known."""
    lists.add_core(len(vector_MD), faiss.swig_ptr(vector_MD), faiss.swig_ptr(place_M), faiss.swig_ptr(list_M))


def map_lists(folder: Path, list_of_N: npt.NDArray[np.int32]) -> Any:
    """Maps the lists of a folder whose files were verified."""
    lists = faiss.read_index(str(folder / files.LIBRARY))
    size_L = _count(list_of_N, lists.nlist)
    mapped = faiss.OnDiskInvertedLists(lists.nlist, lists.code_size, str(folder / files.LISTS))
    mapped.set_all_lists_sizes(faiss.swig_ptr(size_L))
    mapped.totsize = _num_bytes(lists, size_L)
    mapped.read_only = True
    mapped.do_mmap()
    # By default every search starts threads that read ahead: several times what the search itself takes.
    mapped.prefetch_nthread = 0
    lists.replace_invlists(mapped, True)
    mapped.this.disown()
    lists.ntotal = len(list_of_N)
    return lists
