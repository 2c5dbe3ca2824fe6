"""What an index is: vectors on disk, searched by inner product, under a mask that fails closed.

An index is built once into a folder and opened from it, mapped into memory; `search` returns exactly K where
K candidates are eligible. Changes go into a `LiveIndex` around it. Only inner products are searched: a prior
of each candidate is one more coordinate, and a user's vector has a 1 there (`fold_prior`, `fold_queries`).
"""

import os
import weakref
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from forecart.retrieval.top_k import TopK
from forecart.sequences.vocabulary import FIRST_INDEX

Floats = npt.NDArray[np.float32]
Kind = Literal["exact", "inverted_file", "graph"]
Codes = Literal["float16", "int8"]
VECTORS: Final = "vectors.npy"
_NUM_STAND_INS: Final = 10_000


class Rows(Protocol):
    """Vectors in rows: an array, a memory-map, or what makes rows where they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, D]."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, rows: Any, /) -> npt.NDArray[Any]:
        """Returns rows by a slice or by their places."""


class IndexSettings(BaseModel):
    """How an index is built. Closed: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Kind = "inverted_file"
    """`exact` reads every vector; `inverted_file` the lists nearest to the user; `graph` walks a graph."""
    target_recall: float = Field(default=0.99, gt=0, le=1)
    """Share of the exact top K that is found, measured while building on a sample."""
    top_k: int = Field(default=100, ge=1)
    """The K that recall is measured at; longer lists are searched for in proportion."""
    num_lists: int | None = Field(default=None, ge=1)
    """Of the inverted file; by default one for a hundred vectors, or four times the square root of their
    number where that is more."""
    codes: Codes = "float16"
    """What the lists of an inverted file hold: `float16` the vectors; `int8` a byte a coordinate, so that
    half as much is read and kept in memory, and the best are scored again with the float16 vectors."""
    num_sampled: int = Field(default=1000, ge=1)
    """Users (or, without any, vectors of the index) that recall and time are measured with."""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class IndexSource:
    """What an index is built of.

    Attributes:
        vector_ND: float32, read by blocks; any length of the vectors is allowed.
        candidate_N: [N] int32, ascending, from `FIRST_INDEX` on: padding and unknown are not searched for.
        embedding_space_id: of the weights that made the vectors.
        user_SD: vectors of some users, to measure recall with; without them the index's own are taken.
    """

    vector_ND: Rows
    candidate_N: npt.NDArray[np.int32]
    embedding_space_id: str
    user_SD: Floats | None = None

    def __post_init__(self) -> None:
        if len(self.vector_ND.shape) != 2 or len(self.vector_ND) != len(self.candidate_N):
            shapes = f"{self.vector_ND.shape} and {self.candidate_N.shape}"
            raise ValueError(f"an index takes vectors [N, D] and candidates [N], {shapes} arrived")
        if (np.diff(self.candidate_N) <= 0).any() or (self.candidate_N[:1] < FIRST_INDEX).any():
            raise ValueError(f"candidates of an index ascend from {FIRST_INDEX} on, these do not")


@dataclass(frozen=True, eq=False)
class Eligible:
    """Which candidates may be listed; made once for many searches, since an index prepares itself for it.

    Attributes:
        mask: bool by candidate index; what is beyond its end is not eligible. It must not change afterwards.
    """

    mask: npt.NDArray[np.bool_]

    def among(self, candidate_N: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Returns which of some candidates are eligible."""
        if len(candidate_N) and candidate_N[-1] < len(self.mask):
            first, last = int(candidate_N[0]), int(candidate_N[-1])
            if last - first + 1 == len(candidate_N):
                return self.mask[first : last + 1]
        known = candidate_N < len(self.mask)
        return np.where(known, self.mask[np.where(known, candidate_N, 0)], False) if len(self.mask) else known


@dataclass(frozen=True)
class IndexStats:
    """What an index is and what it takes.

    Attributes:
        kind: of the index.
        num_candidates: N.
        width: D.
        disk_bytes: of its files.
        facts: what was chosen and measured when it was built.
    """

    kind: str
    num_candidates: int
    width: int
    disk_bytes: int
    facts: dict[str, Any]


class Index(Protocol):
    """Finds the best candidates of users."""

    @property
    def candidate_N(self) -> npt.NDArray[np.int32]:
        """[N], ascending."""

    @property
    def embedding_space_id(self) -> str:
        """Of the weights that made the vectors; users' vectors must come from the same."""

    def search(self, query_BD: Floats, top_k: int, *, eligible: Eligible | None = None) -> TopK:
        """Returns the best `top_k` candidates of each user: exactly so many where so many are eligible.

        Args:
            query_BD: [B, D] float32.
            top_k: K.
            eligible: None where everything in the index is.

        Raises:
            ValueError: the queries are not [B, D] finite numbers.
        """

    def read_vectors(self, place_M: npt.NDArray[np.int64]) -> Floats:
        """Returns the stored vectors at some places, 0 to N - 1: [M, D]."""

    def stats(self) -> IndexStats:
        """Returns counts and sizes."""


@dataclass(frozen=True, eq=False)
class StoredVectors:
    """The vectors of an index in the order of its candidates, mapped from its folder.

    Attributes:
        folder: of the index.
        vector_ND: float32 or float16.
        candidate_N: [N].
        facts: of the manifest.
    """

    folder: Path
    vector_ND: npt.NDArray[Any]
    candidate_N: npt.NDArray[np.int32]
    facts: dict[str, Any]

    @cached_property
    def disk_bytes(self) -> int:
        """Of all files of the folder."""
        return sum(path.stat().st_size for path in self.folder.iterdir())

    def read(self, place_M: npt.NDArray[np.int64]) -> Floats:
        """Returns the vectors at some places as float32."""
        return self.vector_ND[place_M].astype(np.float32)

    def read_unmapped(self, place_M: npt.NDArray[np.int64]) -> Floats:
        """Returns the vectors at some places, by reads: a map keeps every page it ever touched."""
        row_bytes, begins = self.vector_ND[:1].nbytes, getattr(self.vector_ND, "offset", 0)
        rows = [
            os.pread(self._descriptor, row_bytes, begins + place * row_bytes) for place in place_M.tolist()
        ]
        vector_MD = np.frombuffer(b"".join(rows), self.vector_ND.dtype)
        return vector_MD.reshape(len(place_M), -1).astype(np.float32)

    @cached_property
    def _descriptor(self) -> int:
        descriptor = os.open(self.folder / VECTORS, os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    def stats(self) -> IndexStats:
        """Returns counts and sizes."""
        num, width = self.vector_ND.shape
        return IndexStats(self.facts["kind"], num, width, self.disk_bytes, self.facts["measured"])


@dataclass(frozen=True, eq=False)
class StoredIndex:
    """What every index of a folder says of its vectors.

    Attributes:
        stored: vectors by candidate.
    """

    stored: StoredVectors

    @property
    def candidate_N(self) -> npt.NDArray[np.int32]:
        """[N], ascending."""
        return self.stored.candidate_N

    @property
    def embedding_space_id(self) -> str:
        """Of the weights that made the vectors."""
        return str(self.stored.facts["embedding_space_id"])

    def read_vectors(self, place_M: npt.NDArray[np.int64]) -> Floats:
        """Returns the stored vectors at some places."""
        return self.stored.read(place_M)

    def stats(self) -> IndexStats:
        """Returns counts and sizes."""
        return self.stored.stats()


def check_queries(query_BD: Floats, width: int) -> Floats:
    """Returns the queries as the libraries take them.

    Raises:
        ValueError: they are not [B, D] finite numbers.
    """
    if query_BD.ndim != 2 or query_BD.shape[1] != width:
        raise ValueError(f"queries are [B, {width}], {query_BD.shape} arrived")
    query_BD = np.ascontiguousarray(query_BD, np.float32)
    if not np.isfinite(query_BD).all():
        raise ValueError("queries are finite numbers, others arrived")
    return query_BD


def fold_prior(vector_ND: Floats, prior_N: Floats) -> Floats:
    """Returns vectors with the prior as one more coordinate, [N, D + 1]: score = user . vector + prior."""
    return np.concatenate([vector_ND, prior_N[:, None]], axis=1, dtype=np.float32)


def fold_source(vector_ND: npt.NDArray[Any], prior_N: Floats, space: str) -> IndexSource:
    """Returns what an index of everything with a finite prior is built of.

    It is tuned on vectors of candidates as if they were users': their own last coordinate would be a prior
    where a user's is 1.

    Args:
        vector_ND: by candidate index, of any float type.
        prior_N: -inf for what is not to be searched for.
        space: of the weights that made the vectors.
    """
    candidate_N = FIRST_INDEX + np.flatnonzero(np.isfinite(prior_N[FIRST_INDEX:])).astype(np.int32)
    folded_ND = fold_prior(vector_ND[candidate_N].astype(np.float32), prior_N[candidate_N])
    step = max(1, len(candidate_N) // _NUM_STAND_INS)
    return IndexSource(folded_ND, candidate_N, space, fold_queries(folded_ND[::step, :-1]))


def fold_queries(query_BD: Floats) -> Floats:
    """Returns users' vectors for an index whose vectors have a prior: with a 1 as one more coordinate."""
    return np.concatenate([query_BD, np.ones((len(query_BD), 1), np.float32)], axis=1, dtype=np.float32)
