"""A store behind a connection, with the folder's list of who is suppressed beside its own.

A server may lose all that it holds, and who opted out must stay so: the list in the folder of the releases is
the one that lasts. Who is on either list is suppressed; a publisher brings each list up to the other.
"""

from collections.abc import Set
from pathlib import Path

from forecart.errors import StoreError
from forecart.publish.embedded import SUPPRESSED
from forecart.publish.pointer import Pointer
from forecart.publish.release import Release
from forecart.publish.store import Report, Store, StoredUser
from forecart.publish.suppression import Reason, SuppressionList


class RemoteStore:
    """Records and pointer of a store behind a connection, and both lists of who is suppressed.

    Args:
        store: behind the connection.
        root: of the releases.
    """

    def __init__(self, store: Store, root: Path) -> None:
        self._store = store
        self._listed = SuppressionList(root / SUPPRESSED)

    def load(self, release: Release, *, report: Report | None = None) -> None:
        """Brings the lists together, and takes the records in; see `Store.load`."""
        self._join_lists()
        self._store.load(release, report=report)

    def read(self, release_id: str, user_id: str) -> StoredUser:
        """Returns what there is of a user; see `Store.read`."""
        stored = self._store.read(release_id, user_id)
        return StoredUser(stored.payload, stored.is_suppressed or user_id in self._listed)

    def distrust(self) -> None:
        """Passes it on; see `RecordReader.distrust`."""
        self._store.distrust()

    def bring(self, release_id: str) -> None:
        """Passes it on; see `Store.bring`."""
        self._store.bring(release_id)

    def holds(self, release_id: str) -> bool:
        """Returns whether a release's records are there; see `Store.holds`."""
        return self._store.holds(release_id)

    def drop(self, release_id: str) -> None:
        """Removes a release's records; see `Store.drop`."""
        self._store.drop(release_id)

    def pointer(self) -> Pointer | None:
        """Returns which release is served; see `Store.pointer`."""
        return self._store.pointer()

    def move(self, to: Pointer, *, expected: Pointer | None) -> None:
        """Brings the lists together, for who opted out meanwhile, and moves the pointer; see `Store.move`."""
        self._join_lists()
        self._store.move(to, expected=expected)

    def suppress(self, user_id: str, reason: Reason) -> None:
        """Puts a user on both lists, first on the one that lasts; see `Store.suppress`.

        Raises:
            StoreError: one of the two could not be written; on the other one the user is.
        """
        problem = None
        try:
            self._listed.add(user_id, reason)
        except OSError as error:  # a machine that only answers may have the folder for reading only
            problem = error
        try:
            self._store.suppress(user_id, reason)
        except StoreError as error:
            where = "nowhere" if problem else f"in {self._listed.path} only"
            raise StoreError(f"who is suppressed is noted in the store too, it is {where}: {error}") from None
        if problem is not None:
            raise StoreError(
                f"who is suppressed is noted in the folder too, it is in the store only: {problem}"
            )

    def suppress_keys(self, keys: Set[str]) -> None:
        """Puts who is on another list on both; see `Store.suppress_keys`."""
        self._listed.add_keys(keys)
        self._store.suppress_keys(keys)

    def suppressed_keys(self) -> frozenset[str]:
        """Returns who is on either list; see `Store.suppressed_keys`."""
        return self._listed.keys() | self._store.suppressed_keys()

    def close(self) -> None:
        """Gives connections back; see `Store.close`."""
        self._store.close()

    def _join_lists(self) -> None:
        stored = self._store.suppressed_keys()
        self._listed.add_keys(stored)
        if missing := self._listed.keys() - stored:
            self._store.suppress_keys(missing)
