"""Checkpoints that resume bitwise: every tensor of a run in safetensors, its payload hashed.

Takes tensors and facts; gives folders `checkpoint-<step>` of which the newest two are kept. Reading goes
from the newest to the oldest and skips a damaged one, so a run that died while writing loses some steps and
nothing else. No random state is stored: each step derives its own generator from the seed and its number.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from forecart import artifacts
from forecart.errors import ArtifactError

_TENSORS: Final = "state.safetensors"
# Beside the manifest and not in it: what the manifest says of itself is not hashed.
_FACTS: Final = "facts.json"
_PREFIX: Final = "checkpoint-"
_NUM_KEPT: Final = 2


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on.

    Attributes:
        step: finished steps.
        tensors: weights, averaged weights and optimiser state by name.
        facts: the curve so far and the like, JSON.
    """

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint; of the others only the newest one before it stays.

    One of a later step is damaged, or the run would have gone on from there.
    """
    target = _folder_of(folder, checkpoint.step)
    shutil.rmtree(target, ignore_errors=True)
    write_tensors(target / _TENSORS, checkpoint.tensors)
    artifacts.write_json(target / _FACTS, {"step": checkpoint.step, "facts": checkpoint.facts})
    artifacts.complete_stage(target, "checkpoint", {})
    earlier = [path for path in _folders(folder) if path.name < target.name]
    for path in _folders(folder):
        if path != target and path not in earlier[: _NUM_KEPT - 1]:
            shutil.rmtree(path)


def load_newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Returns the newest checkpoint that is whole; None when there is none."""
    for path in _folders(folder):
        try:
            return _load(path)
        except ArtifactError:
            continue
    return None


def remove_checkpoints(folder: Path) -> None:
    """Removes every checkpoint of a run whose weights are saved elsewhere."""
    for path in _folders(folder):
        shutil.rmtree(path)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes named tensors as safetensors, whole or not at all."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    artifacts.write_atomically(path, lambda temporary: save_file(on_cpu, temporary))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        ArtifactError: the file is missing or no safetensors.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} must hold safetensors, it does not: {error}") from None
    return tensors


def _folder_of(folder: Path, step: int) -> Path:
    return folder / f"{_PREFIX}{step:08d}"


def _folders(folder: Path) -> list[Path]:
    """Returns all checkpoints, whole or not, newest first."""
    return sorted(folder.glob(f"{_PREFIX}*"), reverse=True)


def _load(path: Path) -> Checkpoint:
    manifest = artifacts.read_json(path / artifacts.MANIFEST)
    if manifest.get("files") != artifacts.hash_folder(path):
        raise ArtifactError(
            f"the files of {path} must be what its manifest says, they are not: it is damaged"
        )
    facts = artifacts.read_json(path / _FACTS)
    return Checkpoint(facts["step"], read_tensors(path / _TENSORS), facts["facts"])
