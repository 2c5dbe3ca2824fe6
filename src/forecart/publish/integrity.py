"""Whether a release is what was written: every file's size and the sha256 of each of its blocks.

`describe_files` goes into a manifest when a release is built; `verify` holds a release against it before any
parser opens a file, and leaves a stamp outside of it, so that the next process need not read it all again.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from forecart import artifacts
from forecart.errors import ArtifactError

BLOCK_BYTES: Final = 64 << 20
_READ_BYTES: Final = 4 << 20
_CHECKSUM: Final = "checksum"
FileFacts = dict[str, dict[str, Any]]
"""By relative path: `bytes`, and `sha256` of each block of 64 MB."""


def describe_files(folder: Path) -> FileFacts:
    """Returns the facts of every file below a folder but its manifest, sorted by path."""
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _hash_blocks(path)}
        for path in _list_files(folder)
    }


def verify(folder: Path, stamp: Path) -> None:
    """Checks a release against its manifest, or against the stamp of an earlier check of the same files.

    Args:
        folder: of the release.
        stamp: where it is noted that it was found whole.

    Raises:
        ArtifactError: a file is missing, there are more, one is no plain file, or its bytes are others.
    """
    manifest = folder / artifacts.MANIFEST
    expected = read_listed(manifest)
    seen = _stat_files(folder, [*expected, artifacts.MANIFEST])
    mark = {"manifest": artifacts.hash_file(manifest), "files": seen}
    if stamp.is_file() and _is_same(stamp, mark):
        return
    found = {path.relative_to(folder).as_posix() for path in _list_files(folder)}
    if found != set(expected):
        different = sorted(found ^ set(expected))
        raise ArtifactError(f"{folder} must hold what its manifest lists, {different[0]} differs")
    for name, facts in expected.items():
        _verify_file(folder / name, facts)
    artifacts.write_json(stamp, mark)


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON object with a checksum of its own."""
    artifacts.write_json(path, {**value, _CHECKSUM: _checksum(value)})


def read_sealed(path: Path) -> dict[str, Any]:
    """Reads a JSON object that `write_sealed` wrote.

    Raises:
        ArtifactError: it is missing, no JSON object, or another than was written.
    """
    value = artifacts.read_json(path)
    if not isinstance(value, dict) or value.pop(_CHECKSUM, None) != _checksum(value):
        raise ArtifactError(f"{path} must carry its own checksum, it does not: it is damaged")
    return value


def _checksum(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _verify_file(path: Path, facts: dict[str, Any]) -> None:
    size = path.stat().st_size
    if size != facts["bytes"]:
        raise ArtifactError(f"{path} must hold {facts['bytes']} bytes, it holds {size}: it is damaged")
    if _hash_blocks(path) != facts["sha256"]:
        raise ArtifactError(f"the bytes of {path} must be those of the manifest, they are not: it is damaged")


def _is_same(stamp: Path, mark: dict[str, Any]) -> bool:
    try:
        return bool(artifacts.read_json(stamp) == mark)
    except ArtifactError:
        return False


def read_listed(manifest: Path) -> FileFacts:
    """Returns the files that a manifest lists, after a look at every word of it: nobody vouches for it."""
    files = read_sealed(manifest).get("files")
    if not isinstance(files, dict):
        raise ArtifactError(f"{manifest} must list files, it does not: it is damaged")
    for name, facts in files.items():
        parts = Path(name).parts
        is_inside = bool(parts) and not Path(name).is_absolute() and ".." not in parts and "\0" not in name
        is_whole = isinstance(facts, dict) and set(facts) == {"bytes", "sha256"}
        if not (is_inside and is_whole):
            raise ArtifactError(f"{manifest} must list files of its folder, {name!r:.80} arrived")
    return files


def _stat_files(folder: Path, names: Iterable[str]) -> dict[str, list[int]]:
    stats = {}
    for name in names:
        path = folder / name
        try:
            found = path.lstat()
        except (OSError, ValueError):
            raise ArtifactError(f"{path} is in the manifest, it is not in the folder") from None
        stats[name] = [found.st_size, found.st_mtime_ns, found.st_ino]
    return stats


def _list_files(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ArtifactError(f"a release holds plain files, {path} is none")
        if path.is_file() and path != folder / artifacts.MANIFEST:
            found.append(path)
    return found


def _hash_blocks(path: Path) -> list[str]:
    digests = []
    with path.open("rb") as handle:
        while piece := handle.read(_READ_BYTES):
            digest, left = hashlib.sha256(piece), BLOCK_BYTES - len(piece)
            while left > 0 and (piece := handle.read(min(_READ_BYTES, left))):
                digest.update(piece)
                left -= len(piece)
            digests.append(digest.hexdigest())
    return digests
