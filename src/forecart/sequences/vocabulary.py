"""External ids to contiguous indices and back: 0 is padding, 1 is unknown, real ids start at 2.

A vocabulary is four flat arrays, mapped from disk: the ids' bytes and offsets in index order, their 64-bit
hashes in ascending order, and the index that each hash belongs to. A lookup is a binary search over the
hashes and a comparison of the id itself, so a foreign id is unknown even where its hash is taken.
It is append-only: an id keeps its index for life.
"""

import hashlib
import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.compute as pc  # type: ignore[import-untyped, unused-ignore]

from forecart import artifacts
from forecart.errors import ArtifactError, DataError

PADDING_INDEX: Final = 0
UNKNOWN_INDEX: Final = 1
FIRST_INDEX: Final = 2

Ids = pl.Series | Sequence[str]

_META: Final = "vocabulary.json"
_FORMAT: Final = "forecart-vocabulary-1"
_ARRAYS: Final = ("id_offsets", "id_bytes", "sorted_hashes", "sorted_indices")
_MAX_WORDS: Final = 64
_HASHED_IDS: Final = 1 << 14
_PRIMES: Final = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
_P1, _P2, _P3, _P4, _P5 = (np.uint64(prime) for prime in _PRIMES)
_MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A table of ids with their indices; `len` counts the two reserved indices too.

    Make one with `Vocabulary.build` or `Vocabulary.load`; `append` returns the next generation.

    Attributes:
        id_offsets: [V - 1], where each id starts in `id_bytes`, in index order.
        id_bytes: the ids in UTF-8, one after the other.
        sorted_hashes: [V - 2], ascending.
        sorted_indices: [V - 2], the index of the id behind each of `sorted_hashes`.
        generation: 1 for a new vocabulary, one more for each `append` that added an id.
        content_hash: sha256 over the ids in index order.
    """

    id_offsets: npt.NDArray[np.int64]
    id_bytes: npt.NDArray[np.uint8]
    sorted_hashes: npt.NDArray[np.uint64]
    sorted_indices: npt.NDArray[np.int32]
    generation: int
    content_hash: str

    @classmethod
    def build(cls, ids: Ids) -> Self:
        """Returns a vocabulary of the distinct `ids`, indexed from 2 in the order they come.

        Raises:
            DataError: an id is null or empty, or two ids share a 64-bit hash.
        """
        distinct = _to_arrow(_distinct(ids))
        return cls._of(distinct, hash_ids(distinct), generation=1)

    @classmethod
    def _of(cls, ids: pa.LargeStringArray, hashes: npt.NDArray[np.uint64], *, generation: int) -> Self:
        if len(ids) > np.iinfo(np.int32).max - FIRST_INDEX:
            raise DataError(f"a vocabulary holds at most 2^31 - 3 ids, {len(ids)} arrived")
        order = np.argsort(hashes, kind="stable")
        sorted_hashes = hashes[order]
        _refuse_collision(ids, sorted_hashes, order)
        offsets, data = _buffers(ids)
        indices = (order + FIRST_INDEX).astype(np.int32)
        return cls(offsets, data, sorted_hashes, indices, generation, _content_hash(offsets, data))

    def __len__(self) -> int:
        return len(self.sorted_hashes) + FIRST_INDEX

    @property
    def num_ids(self) -> int:
        """The number of real ids, without padding and unknown."""
        return len(self.sorted_hashes)

    def index(self, ids: Ids) -> npt.NDArray[np.int32]:
        """Returns the index of each id: 1 for an id that is not here, 0 for a null.

        Args:
            ids: [n] ids; a Series may hold nulls.

        Returns:
            [n], in the order of `ids`.
        """
        wanted = _to_arrow(ids)
        if self.num_ids == 0 or len(wanted) == 0:
            found = np.full(len(wanted), UNKNOWN_INDEX, np.int32)
        else:
            found = self._find(wanted)
        found[pc.is_null(wanted).to_numpy(zero_copy_only=False)] = PADDING_INDEX
        return found

    def _find(self, wanted: pa.LargeStringArray) -> npt.NDArray[np.int32]:
        hashes = hash_ids(wanted)
        place = np.minimum(_search(self.sorted_hashes, hashes), self.num_ids - 1)
        found: npt.NDArray[np.int32] = self.sorted_indices[place]
        there = self._arrow.take(pa.array(found - FIRST_INDEX))
        is_same = pc.equal(there, wanted).fill_null(False).to_numpy(zero_copy_only=False)
        return np.where(is_same, found, np.int32(UNKNOWN_INDEX))

    def find(self, wanted: str) -> int:
        """Returns the index of one id, 1 for one that is not here: `index` for a request, in microseconds."""
        raw = wanted.encode()
        hashes, indices, offsets, id_bytes = self._views
        place = bisect_left(hashes, hash_one(raw))
        if place == len(hashes):
            return UNKNOWN_INDEX
        found: int = indices[place]
        start, end = offsets[found - FIRST_INDEX], offsets[found - FIRST_INDEX + 1]
        return found if id_bytes[start:end] == raw else UNKNOWN_INDEX

    @cached_property
    def _views(self) -> Any:
        """The arrays without numpy, whose single elements take longer than all the rest of a search."""
        arrays = (self.sorted_hashes, self.sorted_indices, self.id_offsets, self.id_bytes)
        contiguous: list[Any] = [np.ascontiguousarray(array) for array in arrays]
        return tuple(memoryview(array) for array in contiguous)

    def ids(self, indices: npt.ArrayLike) -> list[str]:
        """Returns the ids at `indices` as a list; see `id_series`."""
        return self.id_series(indices).to_list()

    def id_series(self, indices: npt.ArrayLike) -> pl.Series:
        """Returns the ids at `indices`, in that order.

        Raises:
            ValueError: an index is reserved (0, 1) or past the end.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and (wanted.min() < FIRST_INDEX or wanted.max() >= len(self)):
            raise ValueError(
                f"an index with an id lies in [{FIRST_INDEX}, {len(self)}), "
                f"[{wanted.min()}, {wanted.max()}] arrived: drop padding and unknown first"
            )
        return pl.Series(self._arrow.take(pa.array(wanted - FIRST_INDEX)), dtype=pl.String)

    def append(self, new_ids: Ids) -> "Vocabulary":
        """Returns a vocabulary with the ids of `new_ids` that are not here yet after those that are.

        Every known id keeps its index. Nothing new: the same vocabulary, the same generation.

        Raises:
            DataError: an id is null or empty, or a new id shares its 64-bit hash with another.
        """
        distinct = _distinct(new_ids)
        fresh = _to_arrow(distinct.filter(pl.Series(self.index(distinct) == UNKNOWN_INDEX, dtype=pl.Boolean)))
        if len(fresh) == 0:
            return self
        hashes = np.empty(self.num_ids, np.uint64)
        hashes[self.sorted_indices - FIRST_INDEX] = self.sorted_hashes
        ids = pa.concat_arrays([self._arrow, fresh])
        return Vocabulary._of(ids, np.concatenate([hashes, hash_ids(fresh)]), generation=self.generation + 1)

    def save(self, folder: Path) -> None:
        """Writes the arrays as `.npy` and then `vocabulary.json` with generation, size and content hash."""
        for name in _ARRAYS:
            artifacts.write_npy(folder / f"{name}.npy", getattr(self, name))
        artifacts.write_json(folder / _META, self.describe() | {"format": _FORMAT})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Maps a saved vocabulary into memory.

        Raises:
            ArtifactError: a file is missing, or the files do not belong together.
        """
        meta = artifacts.read_json(folder / _META)
        if meta.get("format") != _FORMAT:
            raise ArtifactError(
                f"{folder} must hold a {_FORMAT}, it holds {meta.get('format')!r}: build it again"
            )
        arrays = {name: artifacts.read_npy(folder / f"{name}.npy") for name in _ARRAYS}
        size = meta["num_ids"]
        sizes = (len(arrays["id_offsets"]) - 1, len(arrays["sorted_hashes"]), len(arrays["sorted_indices"]))
        if sizes != (size, size, size) or arrays["id_offsets"][-1] != len(arrays["id_bytes"]):
            raise ArtifactError(
                f"the arrays of the vocabulary in {folder} are not of one size: build it again"
            )
        return cls(**arrays, generation=meta["generation"], content_hash=meta["content_hash"])

    def describe(self) -> dict[str, Any]:
        """Returns what a manifest records of a vocabulary: generation, number of ids, content hash."""
        return {
            "generation": self.generation,
            "num_ids": self.num_ids,
            "content_hash": self.content_hash,
        }

    @property
    def _arrow(self) -> pa.LargeStringArray:
        buffers = (pa.py_buffer(self.id_offsets), pa.py_buffer(self.id_bytes))
        return pa.LargeStringArray.from_buffers(self.num_ids, *buffers)


def hash_ids(ids: pa.LargeStringArray) -> npt.NDArray[np.uint64]:
    """Returns a 64-bit hash of each id, the same on every machine and in every run; a null hashes as "".

    The rounds and the final mix are XXH64's, over 8-byte little-endian words with the last one padded with
    zeros. Ids of more than 512 bytes are hashed one by one with BLAKE2b, so that a single monster does not
    make the vectorised loop over words long.
    """
    # Some at a time: what a round leaves for the next one stays in the caches.
    firsts = range(0, len(ids), _HASHED_IDS)
    blocks = [_hash_block(ids.slice(first, _HASHED_IDS)) for first in firsts]
    return np.concatenate([np.empty(0, np.uint64), *blocks])


def _hash_block(ids: pa.LargeStringArray) -> npt.NDArray[np.uint64]:
    offsets, data = _buffers(ids)
    starts, lengths = offsets[:-1], np.diff(offsets)
    words = _words_at_every_byte(data)
    hashes = _P5 + lengths.astype(np.uint64)
    num_words = (lengths + 7) // 8
    is_long = num_words > _MAX_WORDS
    for word in range(int(num_words[~is_long].max(initial=0))):
        rows = np.flatnonzero((num_words > word) & ~is_long)
        value = words[starts[rows] + 8 * word]
        value = _keep_first_bytes(value, lengths[rows] - 8 * word)
        hashes[rows] = _mix_word(hashes[rows], value)
    hashes = _finish(hashes)
    for row in np.flatnonzero(is_long):
        raw = data[starts[row] : starts[row] + lengths[row]].tobytes()
        hashes[row] = int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")
    return hashes


def _search(sorted_hashes: npt.NDArray[np.uint64], hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Returns `searchsorted`, asked in ascending order.

    In any other order nearly every step of a search misses the caches: at four million, eight times the time.
    """
    order = np.argsort(hashes)
    place = np.empty(len(hashes), np.int64)
    place[order] = np.searchsorted(sorted_hashes, hashes[order])
    return place


def hash_one(raw: bytes) -> int:
    """Returns what `hash_ids` does for one id, of its UTF-8 bytes."""
    if len(raw) > 8 * _MAX_WORDS:
        return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")
    p1, p2, p3, p4, p5 = _PRIMES
    value = (p5 + len(raw)) & _MASK
    for start in range(0, len(raw), 8):
        word = int.from_bytes(raw[start : start + 8], "little") * p2 & _MASK
        value ^= ((word << 31 | word >> 33) & _MASK) * p1 & _MASK
        value = (((value << 27 | value >> 37) & _MASK) * p1 + p4) & _MASK
    value = (value ^ value >> 33) * p2 & _MASK
    value = (value ^ value >> 29) * p3 & _MASK
    return value ^ value >> 32


def _words_at_every_byte(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    padded = np.concatenate([data, np.zeros(8, np.uint8)])
    return np.ndarray((len(data) + 1,), "<u8", padded, 0, (1,))


def _keep_first_bytes(
    words: npt.NDArray[np.uint64], num_bytes: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    dropped_bits = (8 * (8 - np.minimum(num_bytes, 8))).astype(np.uint64)
    return (words << dropped_bits) >> dropped_bits


def _rotate(values: npt.NDArray[np.uint64], bits: int) -> npt.NDArray[np.uint64]:
    return (values << np.uint64(bits)) | (values >> np.uint64(64 - bits))


def _mix_word(hashes: npt.NDArray[np.uint64], words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return _rotate(hashes ^ (_rotate(words * _P2, 31) * _P1), 27) * _P1 + _P4


def _finish(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    hashes = (hashes ^ (hashes >> np.uint64(33))) * _P2
    hashes = (hashes ^ (hashes >> np.uint64(29))) * _P3
    return hashes ^ (hashes >> np.uint64(32))


def _distinct(ids: Ids) -> pl.Series:
    series = pl.Series(ids, dtype=pl.String).unique(maintain_order=True)
    if series.null_count() or (series == "").any():
        raise DataError(
            "an id is a non-empty string, a null or an empty one arrived: filter such rows at ingest"
        )
    return series


def _to_arrow(ids: Ids) -> pa.LargeStringArray:
    arrow = pl.Series(ids, dtype=pl.String).to_arrow().cast(pa.large_string())
    return pa.concat_arrays(arrow.chunks) if isinstance(arrow, pa.ChunkedArray) else arrow


def _buffers(ids: pa.LargeStringArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    _, offsets, data = ids.buffers()
    if len(ids) == 0 or data is None:
        return np.zeros(len(ids) + 1, np.int64), np.zeros(0, np.uint8)
    bounds = np.frombuffer(offsets, np.int64)[ids.offset : ids.offset + len(ids) + 1]
    return bounds - bounds[0], np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]


def _refuse_collision(
    ids: pa.LargeStringArray, sorted_hashes: npt.NDArray[np.uint64], order: npt.NDArray[np.intp]
) -> None:
    same = np.flatnonzero(sorted_hashes[1:] == sorted_hashes[:-1])
    if len(same):
        first, second = (ids[int(order[same[0] + step])].as_py() for step in (0, 1))
        raise DataError(
            f"no two ids may share a 64-bit hash, {first!r} and {second!r} do: rename one of them"
        )


def _content_hash(offsets: npt.NDArray[np.int64], data: npt.NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(json.dumps([_FORMAT, len(offsets) - 1]).encode())
    digest.update(np.ascontiguousarray(offsets).data)
    digest.update(np.ascontiguousarray(data).data)
    return digest.hexdigest()
