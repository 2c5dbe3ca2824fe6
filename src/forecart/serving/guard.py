"""The store as a request sees it: reads only, through a breaker, and every failure with its reason."""

from typing import Literal

from forecart.errors import StoreError, StoreTimeoutError
from forecart.publish.store import RecordReader, StoredUser
from forecart.serving.breaker import Breaker

Outage = Literal["store_timeout", "store_down"]


class StoreRefusalError(StoreError):
    """The store was not asked, or did not answer; `reason` is the word for it."""

    def __init__(self, reason: Outage) -> None:
        super().__init__(f"the store must answer within its budget, it did not: {reason}")
        self.reason: Outage = reason


class GuardedStore:
    """Reads of a store through a breaker.

    Args:
        store: that is read.
        breaker: that is told how it went.
    """

    def __init__(self, store: RecordReader, breaker: Breaker) -> None:
        self.breaker = breaker
        self._store = store

    def read(self, release_id: str, user_id: str) -> StoredUser:
        """Returns what there is of a user in a release.

        Raises:
            StoreRefusalError: there was no answer.
        """
        if not self.breaker.allows():
            raise StoreRefusalError("store_down")
        try:
            stored = self._store.read(release_id, user_id)
        except StoreTimeoutError:
            self.breaker.fail()
            raise StoreRefusalError("store_timeout") from None
        except Exception:  # whatever a client of the store gets wrong is an outage, and no error of ours
            self.breaker.fail()
            raise StoreRefusalError("store_down") from None
        self.breaker.succeed()
        return stored

    def distrust(self) -> None:
        """Passes it on; see `RecordReader.distrust`."""
        self._store.distrust()
