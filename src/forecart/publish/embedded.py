"""The store without a server: the releases' own files, mapped into memory, and a pointer in a file.

Any number of processes read while one publishes: a release is never changed, and the pointer is replaced as
a whole.
"""

import fcntl
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from forecart import artifacts
from forecart.errors import ConflictError
from forecart.publish.pointer import Pointer
from forecart.publish.release import Release
from forecart.publish.releases import Releases
from forecart.publish.store import Report, StoredUser
from forecart.publish.suppression import Reason, SuppressionList
from forecart.publish.users import UserTable

SUPPRESSED: Final = "suppressed.txt"
POINTER: Final = "current.json"
_MAX_OPEN: Final = 4
"""Releases kept open: a process that serves for months must not hold every one that it ever read."""


def read_pointer(root: Path) -> Pointer | None:
    """Returns which release the folder itself serves, whatever a server does; None before the first.

    Raises:
        StoreError: what is there is no pointer.
    """
    try:
        return Pointer.from_json((root / POINTER).read_bytes())
    except FileNotFoundError:
        return None


class EmbeddedStore:
    """The store of the releases below a root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._releases = Releases(root)
        self._tables: dict[str, UserTable] = {}
        self._suppressed = SuppressionList(root / SUPPRESSED)

    def load(self, release: Release, *, report: Report | None = None) -> None:
        """Opens the records where they are; see `Store.load`."""
        self._keep(release)
        if report is not None:
            report(release.manifest.num_users, release.manifest.num_users)

    def read(self, release_id: str, user_id: str) -> StoredUser:
        """Returns what there is of a user; see `Store.read`.

        Raises:
            ArtifactError: the release is damaged.
            NotFoundError: it is not there.
        """
        table = self._tables.get(release_id)
        if table is None:
            table = self._keep(self._releases.open(release_id))
        return StoredUser(table.read(user_id), user_id in self._suppressed)

    def distrust(self) -> None:
        """Does nothing: there is no connection; see `RecordReader.distrust`."""

    def bring(self, release_id: str) -> None:
        """Does nothing: the folder is the store; see `Store.bring`."""

    def holds(self, release_id: str) -> bool:
        """Returns whether a release is open or on the disk; see `Store.holds`."""
        return release_id in self._tables or self._releases.path(release_id).is_dir()

    def drop(self, release_id: str) -> None:
        """Forgets a release, whose files `Releases.remove` removes; see `Store.drop`."""
        self._tables.pop(release_id, None)

    def pointer(self) -> Pointer | None:
        """Returns which release is served; see `Store.pointer`."""
        return read_pointer(self.root)

    def move(self, to: Pointer, *, expected: Pointer | None) -> None:
        """Moves the pointer; see `Store.move`."""
        with self._locked():
            if (current := self.pointer()) != expected:
                raise ConflictError(
                    f"the pointer must be where it was read, {current} arrived: publish again"
                )
            artifacts.write_text(self.root / POINTER, to.to_json() + "\n")

    def suppress(self, user_id: str, reason: Reason) -> None:
        """Never answers a user personally again; see `Store.suppress`."""
        self._suppressed.add(user_id, reason)

    def suppress_keys(self, keys: Set[str]) -> None:
        """Takes over another list; see `Store.suppress_keys`."""
        self._suppressed.add_keys(keys)

    def suppressed_keys(self) -> frozenset[str]:
        """Returns who is suppressed; see `Store.suppressed_keys`."""
        return self._suppressed.keys()

    def close(self) -> None:
        """Forgets the releases; see `Store.close`."""
        self._tables.clear()

    def _keep(self, release: Release) -> UserTable:
        tables = {**self._tables, release.release_id: release.users}
        self._tables = dict(list(tables.items())[-_MAX_OPEN:])
        return release.users

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".pointer.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
