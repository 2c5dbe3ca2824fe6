"""The static features of a large catalogue in mapped files: a training step reads the rows that it needs.

Takes blocks of rows, written once one after the other; gives rows by candidate index. Features are held in
half precision, so that half the pages are touched. What is mapped counts as resident memory although the
system can take it back, so of a file larger than `KEPT_BYTES` a read lets go of each further stretch before
it touches the next: memory does not grow with the catalogue.
"""

import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Final, Self

import numpy as np
import numpy.typing as npt

from forecart import artifacts
from forecart.errors import ArtifactError
from forecart.sequences.candidate_features import CandidateFeatures

LARGE_CATALOGUE: Final = 1 << 21
"""More candidates than these are trained from a store (docs/adr/0016)."""
KEPT_BYTES: Final = 4 << 30
"""Of each file so much may stay mapped: mapping it anew costs ten times what reading its rows does."""
STRETCH_BYTES: Final = 1 << 28
_BLOCK_ROWS: Final = 1 << 16
_ARRAYS: Final = ("static", "advertiser")
_FACTS: Final = "facts.json"


@dataclass(frozen=True, eq=False)
class CandidateStore:
    """N candidates, padding and unknown included, in memory-mapped files.

    Attributes:
        static: [N, F] float16, co-conversion columns first.
        advertiser: [N] int32; zeros where the candidates are advertisers.
        num_collaborative: how many columns of `static` are co-conversion.
    """

    static: npt.NDArray[np.float16]
    advertiser: npt.NDArray[np.int32]
    num_collaborative: int

    @property
    def num_candidates(self) -> int:
        """N."""
        return len(self.static)

    def read(self, index: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        """Returns copies of the features [U, F] and the advertisers [U] of these candidates.

        Args:
            index: [U], ascending.
        """
        return _gather(self.static, index).astype(np.float32), _gather(self.advertiser, index)

    @classmethod
    def write(
        cls,
        folder: Path,
        blocks: Iterable[tuple[npt.NDArray[Any], npt.NDArray[np.int32]]],
        *,
        num_candidates: int,
        num_collaborative: int,
    ) -> Self:
        """Writes a store of the blocks' rows, one block in memory at a time, and maps it.

        Args:
            folder: where the files go.
            blocks: features and advertisers of the next candidates, [n, F] and [n].
            num_candidates: N, of all blocks together.
            num_collaborative: how many columns are co-conversion.

        Raises:
            ValueError: the blocks have another number of rows in all, or a feature is not finite in half
                precision.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _FACTS).unlink(missing_ok=True)
        built, end = [folder / f".{name}.building" for name in _ARRAYS], 0
        with built[0].open("wb") as static, built[1].open("wb") as advertiser:
            for block in blocks:
                halves: list[npt.NDArray[Any]] = [_halve(block[0]), block[1]]
                for file, values in zip((static, advertiser), halves, strict=True):
                    if end == 0:
                        _write_header(file, values, num_candidates)
                    # Written and not mapped: what is mapped while it is written counts as memory.
                    file.write(np.ascontiguousarray(values).data)
                end += len(block[0])
        if end != num_candidates:
            raise ValueError(f"the blocks of a store hold {num_candidates} candidates, {end} arrived")
        for name in _ARRAYS:
            artifacts.publish_built(folder / f".{name}.building", folder / f"{name}.npy")
        artifacts.write_json(folder / _FACTS, {"num_collaborative": num_collaborative})
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Maps a store.

        Raises:
            ArtifactError: a file is missing, or the arrays do not belong together.
        """
        facts = artifacts.read_json(folder / _FACTS)
        static, advertiser = (artifacts.read_npy(folder / f"{name}.npy", is_tensor=True) for name in _ARRAYS)
        if len(static) != len(advertiser):
            raise ArtifactError(f"the arrays of the store in {folder} must be of one size, they are not")
        return cls(static, advertiser, facts["num_collaborative"])


def _halve(static: npt.NDArray[Any]) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = static.astype(np.float16)
    if not np.isfinite(half).all():
        raise ValueError(f"a feature is finite and at most {np.finfo(np.float16).max:,.0f}, another arrived")
    return half


def write_features(folder: Path, features: CandidateFeatures, *, with_content: bool) -> CandidateStore:
    """Writes a store of these features, as `CandidateFeatures.join` puts them together."""
    starts = range(0, features.num_candidates, _BLOCK_ROWS)
    blocks = (
        (features.join(rows, with_content=with_content), np.asarray(features.advertiser[rows]))
        for rows in (slice(start, start + _BLOCK_ROWS) for start in starts)
    )
    return CandidateStore.write(
        folder,
        blocks,
        num_candidates=features.num_candidates,
        num_collaborative=features.collaborative.shape[1],
    )


def _write_header(file: IO[bytes], first: npt.NDArray[Any], num_rows: int) -> None:
    """Begins a `.npy` file of rows such as those of `first`."""
    descr = np.lib.format.dtype_to_descr(first.dtype)
    facts = {"descr": descr, "fortran_order": False, "shape": (num_rows, *first.shape[1:])}
    np.lib.format.write_array_header_1_0(file, facts)


def _gather(array: npt.NDArray[Any], ascending: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Returns these rows of a mapped array.

    Where the system caches a file in large pieces, one row maps megabytes around it, so that the rows of a
    few batches map all of the catalogue. What lies beyond `KEPT_BYTES` is let go of, stretch by stretch.
    """
    # The base of a mapped array is the mapping itself.
    pages: object = array.base
    if array.nbytes <= KEPT_BYTES or not isinstance(pages, mmap.mmap):
        return np.take(array, ascending, axis=0)
    row_bytes = array.nbytes // len(array)
    num_kept, num_rows = KEPT_BYTES // row_bytes, max(1, STRETCH_BYTES // row_bytes)
    places = np.searchsorted(ascending, np.arange(num_kept, len(array) + num_rows, num_rows))
    found = [np.take(array, ascending[: places[0]], axis=0)]
    rest = num_kept * row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
    for first, end in pairwise(places):
        if first < end:
            found.append(np.take(array, ascending[first:end], axis=0))
            # It stays in the system's cache; of what is only read nothing is lost.
            pages.madvise(mmap.MADV_DONTNEED, rest)
    return np.concatenate(found)
