"""Files that a stage hands to the next: written whole or not at all, hashed, and marked when complete.

Every write goes to a temporary name in the same folder, is flushed to the disk and then renamed, so that a
reader sees the old file or the new one. A stage writes `manifest.json` last: a folder with a manifest whose
`key` is the one asked for is complete, anything else is work to do again.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from forecart.errors import ArtifactError

MANIFEST: Final = "manifest.json"
INPUTS: Final = "inputs.json"
CONFIG: Final = "config.json"
REPORT: Final = "report.html"
_BLOCK_BYTES: Final = 1 << 20


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Runs `write` on a temporary file beside `path`, makes it durable and renames it to `path`.

    Raises:
        OSError: the disk refused; `path` is then as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        write(temporary)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes bytes as a file, whole or not at all."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomically(path, write)


def publish_built(built: Path, path: Path) -> None:
    """Makes a file that was built in the same folder durable and gives it its name."""

    def move(temporary: Path) -> None:
        built.replace(temporary)

    write_atomically(path, move)


def append_lines(path: Path, lines: bytes) -> None:
    """Adds whole lines to a file that only grows, durably; readers skip lines that are empty.

    Raises:
        OSError: the disk refused, or took a part only, whose last line is then cut.
    """
    # A newline first ends a line that a crash or a full disk may have cut.
    block = b"\n" + lines
    # One write to a file opened for appending: lines of several processes do not mix.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        num_written = os.write(descriptor, block)
        if num_written < len(block):
            raise OSError(errno.ENOSPC, f"{num_written} of {len(block)} bytes could be written", str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Makes what was created, renamed or removed in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON with sorted keys; NaN is refused."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8."""
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        ArtifactError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"a JSON file was expected at {path}, none is there") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} must hold JSON, it does not: {error}") from None


def write_npy(path: Path, array: npt.NDArray[Any]) -> None:
    """Writes an array as `.npy`; object arrays are refused."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as handle:
            np.save(handle, array, allow_pickle=False)

    write_atomically(path, write)


def read_npy(path: Path, *, is_tensor: bool = False) -> npt.NDArray[Any]:
    """Maps a `.npy` file into memory, read only.

    Args:
        path: of the file.
        is_tensor: whether torch is to look at it, which knows no array that is only read: what is written to
            it then is not written to the file.

    Raises:
        ArtifactError: the file is missing or is not a plain array.
    """
    try:
        # Not np.load: it opens any zip as an archive of arrays.
        array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="c" if is_tensor else "r")
    except FileNotFoundError:
        raise ArtifactError(f"an array was expected at {path}, none is there") from None
    except (ValueError, TypeError, OverflowError, OSError, EOFError, SyntaxError, TokenError) as error:
        raise ArtifactError(f"{path} must hold a plain array, it does not: {error}") from None
    return array


def write_parquet(path: Path, frame: pl.DataFrame) -> None:
    """Writes a table as Parquet (zstd), the same bytes for the same table."""
    write_atomically(path, lambda temporary: frame.write_parquet(temporary, compression="zstd"))


def hash_file(path: Path) -> str:
    """Returns the sha256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def hash_folder(folder: Path) -> dict[str, str]:
    """Returns the sha256 of every file below `folder` but manifests, by relative path, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): hash_file(path) for path in files}


def describe_files(paths: Iterable[Path | None]) -> list[tuple[str, int, int]]:
    """Returns path, size and time of change of the files that exist, so that one that grew is seen."""
    stats = [(str(path), path.stat()) for path in paths if path is not None and path.exists()]
    return [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]


def hash_value(value: Any) -> str:
    """Returns a short sha256 of any JSON value: the same value, the same hash."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def begin_stage(folder: Path, key: str, *, resumable: str) -> None:
    """Marks `folder` as work on inputs that hash to `key`: an interrupted run goes on with its pieces.

    Args:
        folder: of the stage.
        key: of its inputs; pieces that other inputs left are removed.
        resumable: pattern of the pieces, files or folders.
    """
    marker = folder / INPUTS
    if marker.exists() and read_json(marker) == key:
        return
    for path in folder.glob(resumable):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / MANIFEST).unlink(missing_ok=True)
    write_json(marker, key)


def complete_stage(folder: Path, key: str, facts: Mapping[str, Any]) -> None:
    """Marks `folder` as the finished output of a stage whose inputs hash to `key`."""
    for left in folder.rglob(".*.tmp"):  # by a worker that was killed while it wrote
        left.unlink()
    write_json(folder / MANIFEST, {**facts, "key": key, "files": hash_folder(folder)})


def stage_files(folder: Path) -> dict[str, str]:
    """Returns the sha256 of every file of a finished stage, by relative path."""
    files: dict[str, str] = read_json(folder / MANIFEST)["files"]
    return files


def is_stage_complete(folder: Path, key: str) -> bool:
    """Says whether `folder` is finished for exactly these inputs, with every file it lists in place."""
    path = folder / MANIFEST
    if not path.exists():
        return False
    manifest = read_json(path)
    return manifest.get("key") == key and all((folder / name).exists() for name in manifest["files"])
