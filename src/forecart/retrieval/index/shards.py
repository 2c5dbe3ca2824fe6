"""An index in parts: each over a block of candidates, built alone; a search merges their lists."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from forecart import artifacts
from forecart.errors import ArtifactError, SkewError
from forecart.retrieval.index.build import build_index, open_index
from forecart.retrieval.index.contract import (
    Eligible,
    Floats,
    Index,
    IndexSettings,
    IndexSource,
    IndexStats,
)
from forecart.retrieval.top_k import TopK, merge_lists

_SHARDS: Final = "shards.json"


def build_shards(source: IndexSource, folder: Path, settings: IndexSettings, *, num_shards: int) -> None:
    """Writes an index of each block of candidates, and then a list of them."""
    bounds = np.linspace(0, len(source.candidate_N), num_shards + 1).astype(int)
    for number, (first, last) in enumerate(pairwise(bounds)):
        block = IndexSource(
            source.vector_ND[first:last],
            source.candidate_N[first:last],
            source.embedding_space_id,
            source.user_SD,
        )
        build_index(block, folder / shard_name(number), settings)
    seal_shards(folder, num_shards)


def seal_shards(folder: Path, num_shards: int) -> None:
    """Writes the list of the shards of a folder: from here on they are one index.

    Shards that were built elsewhere are brought here first, in the order of their candidates.
    """
    names = [shard_name(number) for number in range(num_shards)]
    artifacts.write_json(folder / _SHARDS, {name: _hash_manifest(folder / name) for name in names})


def open_shards(folder: Path, *, embedding_space_id: str | None = None) -> "ShardedIndex":
    """Verifies and maps all shards of a folder.

    Raises:
        ArtifactError: a shard is missing, damaged or another than was listed.
        SkewError: the vectors are of another embedding space.
    """
    listed = artifacts.read_json(folder / _SHARDS)
    if not isinstance(listed, dict) or any(_hash_manifest(folder / name) != listed[name] for name in listed):
        raise ArtifactError(f"the shards of {folder} must be those that were listed, they are not")
    return ShardedIndex(
        [open_index(folder / name, embedding_space_id=embedding_space_id) for name in sorted(listed)]
    )


def shard_name(number: int) -> str:
    """Returns the name of a shard's folder."""
    return f"shard-{number:04d}"


@dataclass(frozen=True, eq=False)
class ShardedIndex:
    """Searches every shard and merges the lists.

    Attributes:
        shards: in the order of their candidates.
    """

    shards: Sequence[Index]

    def __post_init__(self) -> None:
        spaces = {shard.embedding_space_id for shard in self.shards}
        if len(spaces) != 1:
            raise SkewError(f"shards of one index are of one embedding space, of {sorted(spaces)} arrived")
        if (np.diff(self.candidate_N) <= 0).any():
            raise ValueError("candidates ascend from shard to shard, these do not")

    @cached_property
    def candidate_N(self) -> npt.NDArray[np.int32]:
        """[N], ascending."""
        return np.concatenate([shard.candidate_N for shard in self.shards])

    @property
    def embedding_space_id(self) -> str:
        """Of the weights that made the vectors."""
        return self.shards[0].embedding_space_id

    def search(self, query_BD: Floats, top_k: int, *, eligible: Eligible | None = None) -> TopK:
        """See `Index.search`."""
        return merge_lists([shard.search(query_BD, top_k, eligible=eligible) for shard in self.shards], top_k)

    def read_vectors(self, place_M: npt.NDArray[np.int64]) -> Floats:
        """Returns the stored vectors at some places."""
        ends = np.cumsum([len(shard.candidate_N) for shard in self.shards])
        shard_M = np.searchsorted(ends, place_M, side="right")
        found = np.empty((len(place_M), self.stats().width), np.float32)
        for number, shard in enumerate(self.shards):
            is_here = shard_M == number
            first = ends[number] - len(shard.candidate_N)
            found[is_here] = shard.read_vectors(place_M[is_here] - first)
        return found

    def stats(self) -> IndexStats:
        """Returns counts and sizes of all shards together."""
        stats = [shard.stats() for shard in self.shards]
        return IndexStats(
            kind=stats[0].kind,
            num_candidates=sum(one.num_candidates for one in stats),
            width=stats[0].width,
            disk_bytes=sum(one.disk_bytes for one in stats),
            facts={"num_shards": len(stats)},
        )


def _hash_manifest(folder: Path) -> str:
    path = folder / artifacts.MANIFEST
    if not path.is_file():
        raise ArtifactError(f"a shard was expected at {folder}, none is there")
    return artifacts.hash_file(path)
