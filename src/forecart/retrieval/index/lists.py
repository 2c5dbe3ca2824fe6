"""The lists of the inverted file, as faiss holds them: centroids, and vectors in half precision."""

from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from forecart.retrieval.index import files
from forecart.retrieval.index.contract import Floats, IndexSource

_BLOCK_ROWS: Final = 1 << 16
_VECTORS_A_LIST: Final = 64
_NUM_ROUNDS: Final = 10


def train_lists(source: IndexSource, num_lists: int, seed: int) -> Any:
    """Returns empty lists around centroids of a sample."""
    num, width = source.vector_ND.shape
    centroids = faiss.IndexFlatIP(width)
    chosen = np.random.default_rng(seed).permutation(num)[: num_lists * _VECTORS_A_LIST]
    sample = np.array(source.vector_ND[np.sort(chosen)], np.float32)
    if num > num_lists:
        # Centroids of one length: lists are by direction, and long vectors, of a high prior, draw no others.
        clustering = faiss.Kmeans(
            width, num_lists, niter=_NUM_ROUNDS, seed=seed, spherical=True, min_points_per_centroid=1
        )
        clustering.train(sample)
        sample = np.asarray(clustering.centroids)
    centroids.add(sample)
    return empty_lists(centroids, num_lists)


def empty_lists(centroids: Any, num_lists: int) -> Any:
    """Returns lists of vectors in half precision around centroids."""
    lists = faiss.IndexIVFScalarQuantizer(
        centroids,
        centroids.d,
        num_lists,
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
        False,  # not the difference to the centroid: half a float holds the vector itself
    )
    lists.is_trained = True
    return lists


def fill_lists(lists: Any, source: IndexSource) -> npt.NDArray[np.int32]:
    """Puts every vector into the list it is nearest to; returns which that is, [N]."""
    list_of_N = np.empty(len(source.vector_ND), np.int32)
    for first in range(0, len(list_of_N), _BLOCK_ROWS):
        block = np.ascontiguousarray(source.vector_ND[first : first + _BLOCK_ROWS], np.float32)
        list_M = lists.quantizer.search(block, 1)[1][:, 0]
        list_of_N[first : first + len(block)] = list_M
        put_into_lists(lists, block, np.arange(first, first + len(block)), list_M)
    return list_of_N


def put_into_lists(
    lists: Any, vector_MD: Floats, place_M: npt.NDArray[np.int64], list_M: npt.NDArray[np.int64]
) -> None:
    """Puts vectors into lists that are known."""
    lists.add_core(len(vector_MD), faiss.swig_ptr(vector_MD), faiss.swig_ptr(place_M), faiss.swig_ptr(list_M))


def map_lists(folder: Path) -> Any:
    """Maps the lists of a folder whose files were verified."""
    lists = faiss.read_index(str(folder / files.LIBRARY), faiss.IO_FLAG_MMAP)
    # By default every search starts threads that read ahead: several times what the search itself takes.
    faiss.downcast_InvertedLists(lists.invlists).prefetch_nthread = 0
    return lists
