"""The lists of the inverted file, as faiss holds them: codes of the vectors on the disk, list by list.

Nothing here takes more memory than a block of vectors, a sample, some files of 256 MB and four bytes a
vector. Codes first go into files of neighbouring lists, each small enough to be put in order in memory: the
file that faiss reads is then written from its beginning to its end.
"""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from forecart import artifacts
from forecart.retrieval.index import centroids, files
from forecart.retrieval.index.contract import Codes, Floats, IndexSettings, IndexSource

VECTORS_A_LIST: Final = 64
"""That centroids are learned from."""
_VECTORS_A_LIST_OF_MANY: Final = 8
_LIST_LENGTH: Final = 100
"""Of lists by default, where four times the square root of the number of vectors gives longer ones."""
_NUM_RANGED: Final = 1 << 20
_CODES: Final = {"float16": faiss.ScalarQuantizer.QT_fp16, "int8": faiss.ScalarQuantizer.QT_8bit}
_BLOCK_ROWS: Final = 1 << 18
_BLOCK_BYTES: Final = 1 << 28


def train_lists(source: IndexSource, settings: IndexSettings) -> tuple[Any, Floats]:
    """Returns empty lists, and their centroids, of a sample."""
    num = len(source.vector_ND)
    num_lists = min(settings.num_lists or choose_num_lists(num), max(num, 1))
    is_many = num_lists > centroids.MAX_FLAT
    sample = sample_rows(
        source, num_lists * (_VECTORS_A_LIST_OF_MANY if is_many else VECTORS_A_LIST), settings.seed
    )
    if num > num_lists:
        centroid_LD = centroids.learn_centroids(sample, num_lists, settings.seed)
    else:
        centroid_LD = centroids.to_unit(sample)
    lists = empty_lists(centroids.hold_for_users(centroid_LD), num_lists, settings.codes)
    if settings.codes == "int8" and num:
        lists.sq.train(sample[:: -(-len(sample) // _NUM_RANGED)])
    return lists, centroid_LD


def choose_num_lists(num: int) -> int:
    """Returns how many lists so many vectors are put into."""
    return max(1, 4 * int(np.sqrt(num)), num // _LIST_LENGTH)


def sample_rows(source: IndexSource, num: int, seed: int) -> Floats:
    """Returns so many of the vectors, or all, in their order."""
    num = min(num, len(source.vector_ND))
    chosen = np.random.default_rng(seed).choice(len(source.vector_ND), num, replace=False)
    chosen.sort()
    sample_SD = np.empty((num, source.vector_ND.shape[1]), np.float32)
    for first in range(0, num, _BLOCK_ROWS):
        rows = slice(first, first + _BLOCK_ROWS)
        sample_SD[rows] = source.vector_ND[chosen[rows]]
    return sample_SD


def empty_lists(quantizer: Any, num_lists: int, codes: Codes = "float16") -> Any:
    """Returns lists around centroids."""
    lists = faiss.IndexIVFScalarQuantizer(
        quantizer,
        quantizer.d,
        num_lists,
        _CODES[codes],
        faiss.METRIC_INNER_PRODUCT,
        False,  # not the difference to the centroid: half a float holds the vector itself
    )
    lists.is_trained = True
    return lists


@dataclass(frozen=True, eq=False)
class Aside:
    """Files of neighbouring lists, with the code, the place and the list of each vector.

    Attributes:
        lists: that the codes are of.
        files: opened.
    """

    lists: Any
    files: Sequence[IO[bytes]]

    def add(self, vector_MD: Floats, list_M: npt.NDArray[np.int32], first: int) -> None:
        """Puts vectors aside, of which the first is at this place."""
        code_MC = self.lists.sq.compute_codes(vector_MD)
        place_M = np.arange(first, first + len(list_M), dtype=np.int64)
        record_MC = np.concatenate([code_MC, _as_bytes(place_M), _as_bytes(list_M)], axis=1)
        file_M = list_M.astype(np.int64) * len(self.files) // self.lists.nlist
        record_MC = record_MC[np.argsort(file_M, kind="stable")]
        ends = np.cumsum(np.bincount(file_M, minlength=len(self.files)))
        for handle, (begins, end) in zip(self.files, pairwise([0, *ends]), strict=True):
            handle.write(record_MC[begins:end].data)

    def write(self, path: Path) -> None:
        """Writes what was put aside as faiss reads it: the codes of a list, then its places."""
        code_size = self.lists.code_size
        with path.open("wb") as written:
            for handle in self.files:
                handle.seek(0)
                record_MC = np.frombuffer(handle.read(), np.uint8).reshape(-1, code_size + 12)
                list_M = np.ascontiguousarray(record_MC[:, code_size + 8 :]).view(np.int32)[:, 0]
                order_M = np.argsort(list_M, kind="stable")
                code_MC = record_MC[order_M, :code_size]
                place_MC = record_MC[order_M, code_size : code_size + 8]
                begins = np.flatnonzero(np.diff(list_M[order_M], prepend=-1))
                for first, last in pairwise([*begins, len(order_M)]):
                    written.write(code_MC[first:last].data)
                    written.write(place_MC[first:last].data)
            if not written.tell():
                written.write(b"\0")  # nothing cannot be mapped


def _as_bytes(number_M: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return number_M[:, None].view(np.uint8)


def fill_lists(
    lists: Any, centroid_LD: Floats, folder: Path, settings: IndexSettings
) -> npt.NDArray[np.int32]:
    """Writes a folder's vectors into the lists they are nearest to: the list of each, [N]."""
    find = centroids.find_nearest(centroid_LD, settings.seed)
    list_of_N = np.empty(files.count_vectors(folder), np.int32)
    size_L = np.zeros(lists.nlist, np.uint64)
    num_files = 1 + len(list_of_N) * (lists.code_size + 12) // _BLOCK_BYTES
    with ExitStack() as opened:
        aside = Aside(
            lists, [opened.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(num_files)]
        )
        for first, block in files.read_blocks(folder):
            vector_MD = block.astype(np.float32)
            list_M, _ = find(vector_MD)
            aside.add(vector_MD, list_M, first)
            list_of_N[first : first + len(list_M)] = list_M
            size_L += np.bincount(list_M, minlength=lists.nlist).astype(np.uint64)
        artifacts.write_atomically(folder / files.LISTS, aside.write)
    artifacts.write_npy(folder / files.LIST_OF, list_of_N)
    artifacts.write_npy(folder / files.SIZES, size_L)
    artifacts.write_npy(folder / files.CENTROIDS, centroid_LD)
    artifacts.write_atomically(folder / files.LIBRARY, lambda path: faiss.write_index(lists, str(path)))
    return list_of_N


def put_into_lists(
    lists: Any, vector_MD: Floats, place_M: npt.NDArray[np.int64], list_M: npt.NDArray[np.int64]
) -> None:
    """Puts vectors into lists that are known."""
    lists.add_core(len(vector_MD), faiss.swig_ptr(vector_MD), faiss.swig_ptr(place_M), faiss.swig_ptr(list_M))


def map_lists(folder: Path) -> Any:
    """Maps the lists of a folder whose files were verified."""
    lists = faiss.read_index(str(folder / files.LIBRARY))
    size_L = np.array(artifacts.read_npy(folder / files.SIZES))
    num = int(size_L.sum())
    mapped = faiss.OnDiskInvertedLists(lists.nlist, lists.code_size, str(folder / files.LISTS))
    mapped.set_all_lists_sizes(faiss.swig_ptr(size_L))
    mapped.totsize = max(1, num * (int(lists.code_size) + 8))
    mapped.read_only = True
    mapped.do_mmap()
    # By default every search starts threads that read ahead: several times what the search itself takes.
    mapped.prefetch_nthread = 0
    lists.replace_invlists(mapped, True)
    mapped.this.disown()
    lists.ntotal = num
    return lists
