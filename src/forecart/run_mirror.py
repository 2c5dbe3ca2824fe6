"""A run that is kept in an object store, and the folder of this machine that it is worked on in.

Stages read and write local files, which they map into memory. Before a stage this module looks at what the
store has of it: what is complete there under the wanted key counts as done, and its files come when something
reads them. What was run here goes there, data first, then `mirror.json` with size and sha256 of every file,
then `manifest.json`: a stage without that one is work to do again. What the store has is what counts: files
here that differ from it are replaced. One process at a time works on a run; the store does not enforce that
between machines, but what two of them mixed is found by its hashes when it comes back.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from forecart import artifacts
from forecart.days import DAY_FILE, DAYS, alone, list_days
from forecart.errors import ArtifactError
from forecart.object_store import ObjectPath, Place, for_each, to_place

MIRROR: Final = "mirror.json"
_TOP: Final = (artifacts.CONFIG, artifacts.REPORT)
_READ_BY_NO_STAGE: Final = ("candidates/", "evaluation", "calibration")
Facts = dict[str, dict[str, Any]]
"""By relative path: `bytes` and `sha256`."""


class LocalRun:
    """A run that is kept where it is worked on: what `RunMirror` does, for which there is nothing to do."""

    def take_over(self, stage: Path, key: str) -> bool:
        """Returns whether a stage is complete under a key."""
        return artifacts.is_stage_complete(stage, key)

    def bring(self, *stages: str) -> None:
        """Brings nothing; see `RunMirror.bring`."""

    def bring_pieces(self, stage: Path, key: str) -> None:
        """Brings nothing; see `RunMirror.bring_pieces`."""

    def push_pieces(self, stage: Path, key: str, *, patterns: Iterable[str]) -> None:
        """Puts nothing anywhere; see `RunMirror.push_pieces`."""

    def push(self, stage: Path, key: str) -> None:
        """Puts nothing anywhere; see `RunMirror.push`."""

    def push_file(self, name: str) -> None:
        """Puts nothing anywhere; see `RunMirror.push_file`."""

    def pull(self) -> None:
        """Brings nothing; see `RunMirror.pull`."""

    def remove_days(self, *, before: str) -> None:
        """Removes nothing; see `RunMirror.remove_days`."""


class RunMirror(LocalRun):
    """The stages of one run, here and in the store.

    Args:
        remote: where the run is kept.
        folder: where it is worked on.
    """

    def __init__(self, remote: ObjectPath, folder: Path) -> None:
        self.remote, self.folder = remote, folder
        self._waiting: dict[str, Facts] = {}
        """Stages that are complete in the store, and here by their manifest only."""
        self._held: dict[str, str] = {}
        """By stage: the key under which the store has it complete."""
        self._pieces: Facts = {}
        self._stamps: dict[str, tuple[int, int]] = {}

    def take_over(self, stage: Path, key: str) -> bool:
        """Returns whether a stage is complete under a key, in the store or here.

        Raises:
            ArtifactError: the store holds what was not pushed.
            StoreError: it does not answer.
        """
        name = self._name(stage)
        listed = self._read_listing(name)
        manifest = (self.remote / name / artifacts.MANIFEST).read_bytes()
        if listed is None or manifest is None or listed["key"] != key:
            return artifacts.is_stage_complete(stage, key)
        files: Facts = listed["files"]
        self._check_bytes(self.remote / name / artifacts.MANIFEST, manifest, files[artifacts.MANIFEST])
        self._held[name] = key
        local = stage / artifacts.MANIFEST
        is_same = local.is_file() and local.read_bytes() == manifest
        if not (is_same and all((stage / one).is_file() for one in files)):
            _keep_only(stage, files)
            artifacts.write_bytes(local, manifest)
            self._waiting[name] = files
        return True

    def bring(self, *stages: str) -> None:
        """Brings the files of stages that were taken over: of these, or of all that later stages read."""
        for name in list(self._waiting):
            if name in stages or (not stages and not name.startswith(_READ_BY_NO_STAGE)):
                self._download(name, self._waiting[name])
                del self._waiting[name]

    def bring_pieces(self, stage: Path, key: str) -> None:
        """Brings what another machine had finished of a stage before it stopped."""
        self._pieces, self._stamps = {}, {}
        name = self._name(stage)
        listed = self._read_listing(name)
        if listed is None or listed["key"] != key:
            return
        inputs = stage / artifacts.INPUTS
        if not (inputs.is_file() and artifacts.read_json(inputs) == key):
            shutil.rmtree(stage, ignore_errors=True)
        # A file that is here already is of the same key, and may be newer than the store's.
        wanted = {one: facts for one, facts in listed["files"].items() if not (stage / one).exists()}
        self._download(name, {one: facts for one, facts in wanted.items() if one != artifacts.MANIFEST})

    def push_pieces(self, stage: Path, key: str, *, patterns: Iterable[str]) -> None:
        """Puts the finished pieces of a stage there that are not yet."""
        found = sorted(path for pattern in patterns for path in stage.glob(pattern))
        new = [path for path in found if self._stamps.get(path.name) != _stamp(path)]
        if not any(path.name != artifacts.INPUTS for path in new):
            return
        name = self._name(stage)
        if not self._pieces:
            self._begin(name, key)
        facts = {path.name: _describe(path) for path in new}
        self._upload(name, facts)
        self._pieces |= facts
        self._stamps |= {path.name: _stamp(path) for path in new}
        self._write_listing(name, key, self._pieces)

    def push(self, stage: Path, key: str) -> None:
        """Puts a complete stage there, its manifest last; one that is there already stays as it is."""
        name = self._name(stage)
        if self._held.get(name) == key or not artifacts.is_stage_complete(stage, key):
            return
        self._begin(name, key)
        known = artifacts.stage_files(stage)
        paths = [
            path for path in sorted(stage.rglob("*")) if path.is_file() and not path.name.startswith(".")
        ]
        files = {
            one: _describe(stage / one, known.get(one))
            for one in (path.relative_to(stage).as_posix() for path in paths)
        }
        listed = self._read_listing(name)
        there = listed["files"] if listed is not None else {}
        sizes = (self.remote / name).sizes()
        self._upload(
            name,
            {
                one: facts
                for one, facts in files.items()
                if one != artifacts.MANIFEST
                and not (there.get(one) == facts and sizes.get(one) == facts["bytes"])
            },
        )
        self._write_listing(name, key, files)
        (self.remote / name / artifacts.MANIFEST).upload(stage / artifacts.MANIFEST)
        self._held[name] = key
        for left in set(sizes) - set(files) - {MIRROR}:
            (self.remote / name / left).remove()

    def push_file(self, name: str) -> None:
        """Puts a file of the run that is of no stage there."""
        (self.remote / name).upload(self.folder / name)

    def pull(self) -> None:
        """Brings every complete stage, those of days too, and the files that are of none.

        A day that the store does not have is no day here either.

        Raises:
            ArtifactError: there is no run, or an object is not what was pushed.
        """
        sizes = self.remote.sizes()
        if artifacts.CONFIG not in sizes:
            raise ArtifactError(f"{self.remote} must be a run, it has no {artifacts.CONFIG}")
        for name in (one for one in sizes if one in _TOP or PurePosixPath(one).name == DAY_FILE):
            artifacts.write_atomically(self.folder / name, (self.remote / name).download)
        for day in list_days(self.folder):
            if self._name(day / DAY_FILE) not in sizes:
                (day / DAY_FILE).unlink()
        for path in (PurePosixPath(one) for one in sizes):
            if path.name == MIRROR and str(path.parent / artifacts.MANIFEST) in sizes:
                listed = self._read_listing(str(path.parent))
                assert listed is not None
                self.take_over(self.folder / path.parent, listed["key"])
        self.bring(*self._waiting)

    def remove_days(self, *, before: str) -> None:
        """Removes what the store has of earlier days, finished or not; `day.json` first."""
        days = self.remote / DAYS
        old = [one for one in days.sizes() if PurePosixPath(one).parts[0] < before]
        for names in ([one for one in old if PurePosixPath(one).name == DAY_FILE], old):
            for_each(lambda one: (days / one).remove(), names)

    # --- one stage ------------------------------------------------------------------------------------

    def _name(self, stage: Path) -> str:
        return stage.relative_to(self.folder).as_posix()

    def _read_listing(self, name: str) -> dict[str, Any] | None:
        place = self.remote / name / MIRROR
        data = place.read_bytes()
        if data is None:
            return None
        try:
            listed: dict[str, Any] = json.loads(data)
            _ = listed["key"], [(facts["bytes"], facts["sha256"]) for facts in listed["files"].values()]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ArtifactError(f"{place} must list what was pushed, it does not: remove the stage") from None
        if any(
            PurePosixPath(one).is_absolute() or ".." in PurePosixPath(one).parts for one in listed["files"]
        ):
            raise ArtifactError(f"{place} must list files of the stage, it names others")
        return listed

    def _write_listing(self, name: str, key: str, files: Mapping[str, Mapping[str, Any]]) -> None:
        text = json.dumps({"key": key, "files": files}, indent=2, sort_keys=True)
        (self.remote / name / MIRROR).write_bytes(text.encode())

    def _begin(self, name: str, key: str) -> None:
        """Takes the marks of another key away before the first of its files is replaced."""
        listed = self._read_listing(name)
        (self.remote / name / artifacts.MANIFEST).remove()
        if listed is not None and listed["key"] != key:
            (self.remote / name / MIRROR).remove()

    def _upload(self, name: str, files: Iterable[str]) -> None:
        for_each(lambda one: (self.remote / name / one).upload(self.folder / name / one), files)

    def _download(self, name: str, files: Facts) -> None:
        # What a stage's own manifest does not list comes first: complete is what has all that it lists.
        nested, plain = [
            [one for one in files if (PurePosixPath(one).name == artifacts.MANIFEST) is is_nested]
            for is_nested in (True, False)
        ]
        for names in (nested, plain):
            for_each(lambda one: self._download_file(name, one, files[one]), names)

    def _download_file(self, name: str, one: str, facts: Mapping[str, Any]) -> None:
        path, place = self.folder / name / one, self.remote / name / one
        if path.is_file():
            return

        def download(temporary: Path) -> None:
            try:
                place.download(temporary)
            except FileNotFoundError:
                raise ArtifactError(f"{place} is listed in {MIRROR}, it is not there") from None
            if _describe(temporary) != facts:
                raise _damaged(place, facts["bytes"], temporary.stat().st_size)

        artifacts.write_atomically(path, download)

    def _check_bytes(self, place: ObjectPath, data: bytes, facts: Mapping[str, Any]) -> None:
        if hashlib.sha256(data).hexdigest() != facts["sha256"]:
            raise _damaged(place, facts["bytes"], len(data))


def _damaged(place: ObjectPath, wanted_bytes: int, found_bytes: int) -> ArtifactError:
    return ArtifactError(
        f"{place} must hold the {wanted_bytes} bytes that were pushed, it holds {found_bytes} and not those: "
        "remove the stage there, and run it again"
    )


def _describe(path: Path, sha256: str | None = None) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256 or artifacts.hash_file(path)}


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _keep_only(stage: Path, files: Facts) -> None:
    """Removes what is not as it is listed, so that no file of another key passes for one of this."""
    for path in sorted(stage.rglob("*")):
        if path.is_file() and files.get(path.relative_to(stage).as_posix()) != _describe(path):
            path.unlink()


def find_work_folder(remote: ObjectPath) -> Path:
    """Returns where this user works on a run of a store: below the cache, by a hash of the URL."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "forecart" / "runs" / f"{remote.name}-{artifacts.hash_value(remote.url.rstrip('/'))}"


def place_run(run: str | Place, work_folder: Path | None = None) -> tuple[Path, RunMirror | None]:
    """Returns the folder in which a run is worked on, and what keeps it where it is kept elsewhere."""
    place = to_place(run)
    if isinstance(place, Path):
        return place, None
    folder = work_folder or find_work_folder(place)
    return folder, RunMirror(place, folder)


def local_run(run: str | Place, work_folder: Path | None = None) -> Path:
    """Returns the folder of a run; one that is kept in a store is brought here, as far as it is complete.

    Raises:
        ArtifactError: there is no run in the store, or it is damaged.
        ConflictError: another process works on the run on this machine.
    """
    folder, mirror = place_run(run, work_folder)
    if mirror is not None:
        with alone(folder):
            mirror.pull()
    return folder
