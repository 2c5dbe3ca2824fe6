"""The folder of an index: its files, and a manifest that is written last and says what they hold.

Every byte is held against the manifest before a library maps a file: faiss ends the process on a damaged one.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from forecart import artifacts
from forecart.errors import ArtifactError, SkewError
from forecart.retrieval.index.contract import VECTORS, IndexSettings, IndexSource, StoredVectors

CANDIDATES: Final = "candidates.npy"
LIBRARY: Final = "faiss.bin"
LISTS: Final = "lists.bin"
LIST_OF: Final = "list_of.npy"
SIZES: Final = "list_sizes.npy"
CENTROIDS: Final = "centroids.npy"
_FILES: Final = {VECTORS, CANDIDATES, LIBRARY, LISTS, LIST_OF, SIZES, CENTROIDS, artifacts.MANIFEST}
_FORMAT: Final = 3
_FACTS: Final = {"kind", "embedding_space_id", "settings", "measured"}
_BLOCK_ROWS: Final = 1 << 18


def begin_folder(folder: Path) -> None:
    """Empties the folder of an index that is to be built; it is none until `finish_folder`.

    Raises:
        ArtifactError: there is something in it that is not of an index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {path.name: path for path in folder.iterdir() if path.suffix != ".tmp"}
    if others := sorted(set(files) - _FILES):
        raise ArtifactError(f"an index takes a folder of its own, {folder} has {others[0]} in it")
    for name in sorted(files, key=lambda name: name != artifacts.MANIFEST):
        files[name].unlink()


def write_vectors(folder: Path, source: IndexSource, dtype: type[np.floating[Any]]) -> None:
    """Writes candidates and vectors, some rows at a time."""
    artifacts.write_npy(folder / CANDIDATES, source.candidate_N.astype(np.int32, copy=False))

    def write(temporary: Path) -> None:
        described = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": source.vector_ND.shape}
        with temporary.open("wb") as handle:
            np.lib.format.write_array_header_1_0(handle, described)
            for first in range(0, len(source.vector_ND), _BLOCK_ROWS):
                block = np.asarray(source.vector_ND[first : first + _BLOCK_ROWS])
                if not np.isfinite(block).all():
                    raise ValueError("vectors of an index are finite numbers, others arrived")
                handle.write(block.astype(dtype).tobytes())

    artifacts.write_atomically(folder / VECTORS, write)


def finish_folder(
    folder: Path, source: IndexSource, settings: IndexSettings, measured: Mapping[str, Any]
) -> None:
    """Writes the manifest: from here on the folder is an index."""
    facts = {
        "kind": settings.kind,
        "embedding_space_id": source.embedding_space_id,
        "settings": settings.model_dump(),
        "measured": dict(measured),
    }
    artifacts.complete_stage(folder, _key(facts), facts)


def read_facts(folder: Path, *, embedding_space_id: str | None) -> dict[str, Any]:
    """Returns the facts of an index whose files are what was written.

    Args:
        folder: of the index.
        embedding_space_id: of the tower that is to search it; None takes any.

    Raises:
        ArtifactError: a file is missing, damaged, or one too many.
        SkewError: the vectors are of another embedding space.
    """
    manifest = artifacts.read_json(folder / artifacts.MANIFEST)
    if not isinstance(manifest, dict) or set(manifest) != {*_FACTS, "key", "files"}:
        raise ArtifactError(f"{folder} must hold the manifest of an index, it does not: build it again")
    facts = {name: manifest[name] for name in _FACTS}
    if manifest["key"] != _key(facts) or manifest["files"] != artifacts.hash_folder(folder):
        raise ArtifactError(
            f"the files of {folder} must be those of its manifest: it is damaged, build it again"
        )
    if embedding_space_id not in (None, facts["embedding_space_id"]):
        found = facts["embedding_space_id"]
        raise SkewError(f"{folder} is of the embedding space {found}, the tower of {embedding_space_id}")
    return facts


def read_vectors(folder: Path, facts: dict[str, Any]) -> StoredVectors:
    """Maps candidates and vectors of an index whose files were verified."""
    # Copy on write: torch takes no array that is read-only.
    vector_ND: npt.NDArray[Any] = np.lib.format.open_memmap(folder / VECTORS, mode="c")
    return StoredVectors(folder, vector_ND, np.array(artifacts.read_npy(folder / CANDIDATES)), facts)


def count_vectors(folder: Path) -> int:
    """Returns how many vectors a folder has."""
    return len(np.lib.format.open_memmap(folder / VECTORS, mode="r"))


def read_blocks(folder: Path) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yields the vectors of a folder by blocks, each with its first place; no more than a block is mapped."""
    for first in range(0, count_vectors(folder), _BLOCK_ROWS):
        mapped: npt.NDArray[Any] = np.lib.format.open_memmap(folder / VECTORS, mode="r")
        yield first, np.array(mapped[first : first + _BLOCK_ROWS])


def _key(facts: Mapping[str, Any]) -> str:
    return artifacts.hash_value([_FORMAT, facts])
