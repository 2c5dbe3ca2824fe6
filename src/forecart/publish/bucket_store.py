"""The store in an object store: releases, pointer and who is suppressed are objects there, records are local.

Below its URL: `releases/ID/HASH/...` the files of a release and `releases/ID/manifest.json`, created last and
never replaced; HASH is of that manifest, so that what two publishers put under one id does not mix. Each move
of the pointer is an object of its own, `pointers/000000000007`, and so is each addition to the list of who is
suppressed (`numbered.py`): of two who move at once one is refused, where the store can refuse to create what
is there. A release is brought below the root folder, verified there block by block, and only then appears.
"""

import fcntl
import hashlib
import json
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from forecart import artifacts
from forecart.errors import ArtifactError, ConflictError, NotFoundError
from forecart.object_store import ObjectPath, for_each
from forecart.publish.embedded import EmbeddedStore
from forecart.publish.integrity import read_listed, verify
from forecart.publish.numbered import NumberedLog
from forecart.publish.pointer import Pointer
from forecart.publish.release import Release
from forecart.publish.releases import Releases, moment_of
from forecart.publish.store import Report, StoredUser
from forecart.publish.suppression import Reason, suppression_key

LOOK_S: Final = 2.0
"""A reader asks the object store for a new pointer, and for who opted out, at most so often."""
_INCOMING: Final = "incoming"


class BucketStore:
    """Releases in an object store, and their copies below a root folder.

    Args:
        place: where in the object store.
        root: of the releases on this machine.
        look_s: how often the object store is asked for what is new.
    """

    def __init__(self, place: ObjectPath, root: Path, *, look_s: float = LOOK_S) -> None:
        self.place, self.root = place, root
        self._releases, self._local = Releases(root), EmbeddedStore(root)
        self._moves, self._listed = NumberedLog(place / "pointers"), NumberedLog(place / "suppressed")
        self._pointer: Pointer | None = None
        self._keys: frozenset[str] = frozenset()
        self._look_s, self._look_at = look_s, 0.0
        self._lock = threading.Lock()

    def load(self, release: Release, *, report: Report | None = None) -> None:
        """Puts the files of a release there, and opens its records where they are; see `Store.load`.

        Raises:
            ConflictError: another publisher has put other files under its id.
        """
        manifest = (release.folder / artifacts.MANIFEST).read_bytes()
        folder, mark = self._folder(release.release_id), self._folder(release.release_id) / artifacts.MANIFEST
        names, there = release.manifest.files, folder.sizes()
        data = folder / _hash(manifest)
        missing = [one for one, facts in names.items() if there.get(f"{data.name}/{one}") != facts["bytes"]]
        for_each(lambda one: (data / one).upload(release.folder / one), missing)
        if not mark.create(manifest) and mark.read_bytes() != manifest:
            raise ConflictError(
                f"another publisher has put other files under {release.release_id}: remove "
                f"{release.folder}, and publish again"
            )
        self._local.load(release, report=report)

    def bring(self, release_id: str) -> None:
        """Brings a release below the root folder where it is not there; see `Store.bring`.

        Raises:
            NotFoundError: it is in neither place.
        """
        goal = self._releases.path(release_id)
        if goal.is_dir():
            return
        with self._bringing():
            if not goal.is_dir():
                self._download(release_id)
                self._remove_old(release_id)

    def read(self, release_id: str, user_id: str) -> StoredUser:
        """Returns what there is of a user; see `Store.read`."""
        stored = self._local.read(release_id, user_id)
        return StoredUser(stored.payload, stored.is_suppressed or suppression_key(user_id) in self._known())

    def distrust(self) -> None:
        """Does nothing: records are read from local files; see `RecordReader.distrust`."""

    def holds(self, release_id: str) -> bool:
        """Returns whether a release is on the disk; see `Store.holds`."""
        return self._local.holds(release_id)

    def drop(self, release_id: str) -> None:
        """Removes the objects of a release, its manifest first; see `Store.drop`."""
        folder = self._folder(release_id)
        (folder / artifacts.MANIFEST).remove()
        for_each(lambda one: (folder / one).remove(), folder.sizes())
        self._local.drop(release_id)

    def pointer(self) -> Pointer | None:
        """Returns which release is served, looking at most every `look_s`; see `Store.pointer`."""
        with self._lock:
            if time.monotonic() >= self._look_at:
                self._look()
            return self._pointer

    def move(self, to: Pointer, *, expected: Pointer | None) -> None:
        """Adds the next move, if nobody has; see `Store.move`."""
        with self._lock:
            self._look()
            if self._pointer != expected or not self._moves.add(to.sequence, to.to_json().encode()):
                raise ConflictError("the pointer must be where it was read, another publisher moved it")
            self._look()

    def suppress(self, user_id: str, reason: Reason) -> None:
        """Never answers a user personally again; see `Store.suppress`."""
        self._add_keys([suppression_key(user_id)], reason)

    def suppress_keys(self, keys: Set[str]) -> None:
        """Takes over another list; see `Store.suppress_keys`."""
        if new := sorted(keys - self.suppressed_keys()):
            self._add_keys(new, "carried")

    def suppressed_keys(self) -> frozenset[str]:
        """Returns who is suppressed; see `Store.suppressed_keys`."""
        with self._lock:
            self._look()
            return self._keys

    def close(self) -> None:
        """Forgets the releases; see `Store.close`."""
        self._local.close()

    # --- what is in the object store ------------------------------------------------------------------

    def _folder(self, release_id: str) -> ObjectPath:
        return self.place / "releases" / self._releases.path(release_id).name

    def _known(self) -> frozenset[str]:
        if not self._look_at:  # before the first look nobody may be shown anything
            return self.suppressed_keys()
        return self._keys

    def _look(self) -> None:
        if not self._moves.last:
            self._moves.skip_to_last()
        self._keys |= {key for data in self._listed.read_new() for key in json.loads(data)["keys"]}
        for data in self._moves.read_new():
            self._pointer = Pointer.from_json(data)
        self._look_at = time.monotonic() + self._look_s

    def _add_keys(self, keys: Iterable[str], reason: str) -> None:
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        line = {"keys": list(keys), "reason": reason, "at": moment}
        with self._lock:
            self._look()
            self._listed.append(json.dumps(line).encode())
            self._look()

    def _download(self, release_id: str) -> None:
        folder, building = self._folder(release_id), self.root / _INCOMING / release_id
        manifest = (folder / artifacts.MANIFEST).read_bytes()
        if manifest is None:
            raise NotFoundError(f"{self.place} has no release {release_id}")
        shutil.rmtree(building.parent, ignore_errors=True)
        building.mkdir(parents=True)
        path = building / artifacts.MANIFEST
        artifacts.write_bytes(path, manifest)
        data = folder / _hash(manifest)

        def download(one: str) -> None:
            try:
                artifacts.write_atomically(building / one, (data / one).download)
            except FileNotFoundError:
                raise ArtifactError(f"{data / one} is listed in the manifest, it is not there") from None

        for_each(download, read_listed(path))
        verify(building, self._releases.stamp(release_id))
        self._releases.take_in(building)

    def _remove_old(self, brought_id: str) -> None:
        """Removes from the disk what was brought for an earlier pointer, and is gone from the store too."""
        there = {name.partition("/")[0] for name in (self.place / "releases").sizes()}
        for old in self._releases.ids():
            if old not in there and moment_of(old) < moment_of(brought_id):
                self._releases.remove(old)

    @contextmanager
    def _bringing(self) -> Iterator[None]:
        """One process brings at a time, and those that waited find it there."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".bring.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _hash(manifest: bytes) -> str:
    return hashlib.sha256(manifest).hexdigest()[:16]
