"""What a store of user records does, whichever it is: the contract of the embedded one and of Redis.

A store holds the records of releases side by side, a pointer to the release that is served, and who must not
be answered personally. A reader names the release it serves with every read, so that it never gets a record
of another.
"""

from collections.abc import Callable, Set
from typing import NamedTuple, Protocol

from forecart.publish.pointer import Pointer
from forecart.publish.release import Release
from forecart.publish.suppression import Reason

Report = Callable[[int, int], None]
"""Called with (users done, users in all)."""


class StoredUser(NamedTuple):
    """What a store knows of a user.

    Attributes:
        payload: the bytes of the record; None for a user who is not in the release.
        is_suppressed: the user must not be answered personally, whatever the record holds.
    """

    payload: bytes | None
    is_suppressed: bool


class RecordReader(Protocol):
    """The part of a store that a request needs."""

    def read(self, release_id: str, user_id: str) -> StoredUser:
        """Returns what there is of a user in a release."""
        ...

    def distrust(self) -> None:
        """Uses the connections no more that gave the last answers: one of them made no sense."""
        ...


class Store(RecordReader, Protocol):
    """Records of users by release; every method raises `StoreError` where the store does not answer."""

    def load(self, release: Release, *, report: Report | None = None) -> None:
        """Takes in everyone's records, beside those of other releases; again is harmless."""
        ...

    def bring(self, release_id: str) -> None:
        """Puts a release below the root folder, where the store has its files and the folder has not.

        Raises:
            ArtifactError: what the store has of it is damaged.
        """
        ...

    def holds(self, release_id: str) -> bool:
        """Returns whether a release's records are there; a server that was restarted may have lost them."""
        ...

    def drop(self, release_id: str) -> None:
        """Removes a release's records; one that is not there is nothing to remove."""
        ...

    def pointer(self) -> Pointer | None:
        """Returns which release is served, None before the first."""
        ...

    def move(self, to: Pointer, *, expected: Pointer | None) -> None:
        """Makes `to` the pointer, if `expected` is what it is.

        Raises:
            ConflictError: the pointer is another by now.
        """
        ...

    def suppress(self, user_id: str, reason: Reason) -> None:
        """Never answers a user personally again."""
        ...

    def suppress_keys(self, keys: Set[str]) -> None:
        """Never answers those again who are on another list."""
        ...

    def suppressed_keys(self) -> frozenset[str]:
        """Returns the keys of everyone who is suppressed (`suppression.suppression_key`)."""
        ...

    def close(self) -> None:
        """Gives connections back."""
        ...
