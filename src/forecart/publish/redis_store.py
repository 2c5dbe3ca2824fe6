"""The store in Redis or Valkey: a key for every user of every release, the pointer and the list beside them.

Keys begin with a namespace, so that several systems share a server. Records expire there by themselves a day
after no reader would take them any more.
"""

import json
from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Any, Final

from forecart.errors import ConflictError, ForecartError, StoreError, StoreTimeoutError
from forecart.publish.pointer import Pointer
from forecart.publish.records import view_bytes
from forecart.publish.release import Release
from forecart.publish.store import Report, StoredUser
from forecart.publish.suppression import Reason, suppression_key

try:
    import redis
except ModuleNotFoundError:  # pragma: no cover
    raise ForecartError(
        "a store in Redis needs redis, which is not installed; run: pip install 'forecart[redis]'"
    ) from None

_BATCH_USERS: Final = 1000
_GRACE_S: Final = 86_400


class RedisStore:
    """The store behind a connection.

    Args:
        url: such as `redis://localhost:6379/0`.
        namespace: what every key begins with.
        timeout_s: of connecting and of each answer; a publisher wants more than a reader.
    """

    def __init__(self, url: str, *, namespace: str = "forecart", timeout_s: float = 0.02) -> None:
        self.namespace = namespace
        with _as_store_errors():
            # No retries: the caller has a deadline, and a fallback.
            self._client = redis.Redis.from_url(
                url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=None
            )

    def load(self, release: Release, *, report: Report | None = None) -> None:
        """Writes everyone's records; see `Store.load`."""
        num_users, expire_s = release.manifest.num_users, release.manifest.ttl_s + _GRACE_S
        done_key, prefix = self._key("loaded", release.release_id), self._user_key(release.release_id, "")
        size = release.layout.dtype.itemsize
        num_done = 0
        with _as_store_errors():
            if self._client.get(done_key) == str(num_users).encode():
                return
            for ids, records in release.users.blocks():
                raw = view_bytes(records)
                for first in range(0, len(ids), _BATCH_USERS):
                    pipeline = self._client.pipeline(transaction=False)
                    for at, user_id in enumerate(ids[first : first + _BATCH_USERS], first):
                        pipeline.set(prefix + user_id, bytes(raw[at * size : (at + 1) * size]), ex=expire_s)
                    pipeline.execute()
                num_done += len(ids)
                if report is not None:
                    report(num_done, num_users)
            self._client.set(done_key, num_users, ex=expire_s)

    def read(self, release_id: str, user_id: str) -> StoredUser:
        """Returns what there is of a user, in one exchange; see `Store.read`."""
        with _as_store_errors():
            pipeline = self._client.pipeline(transaction=False)
            pipeline.get(self._user_key(release_id, user_id))
            pipeline.sismember(self._key("suppressed"), suppression_key(user_id))
            payload, is_suppressed = pipeline.execute()
        if not (payload is None or isinstance(payload, bytes)) or is_suppressed not in (0, 1):
            # Replies out of step: the next ones would be somebody else's.
            self.distrust()
            raise StoreError(
                "the store in Redis must answer a record and a number, it answers something else"
            )
        return StoredUser(payload, bool(is_suppressed))

    def distrust(self) -> None:
        """Closes the connections; the next read opens new ones. See `RecordReader.distrust`."""
        with _as_store_errors():
            # Not those in use: they are other threads', in the middle of a read.
            self._client.connection_pool.disconnect(inuse_connections=False)

    def bring(self, release_id: str) -> None:
        """Does nothing: a server has records only; see `Store.bring`."""

    def holds(self, release_id: str) -> bool:
        """Returns whether a release was loaded to its end; see `Store.holds`."""
        with _as_store_errors():
            return bool(self._client.exists(self._key("loaded", release_id)))

    def drop(self, release_id: str) -> None:
        """Removes a release's records; see `Store.drop`."""
        with _as_store_errors():
            self._client.delete(self._key("loaded", release_id))
            pattern = self._user_key(_escape(release_id), "*")
            keys = []
            for key in self._client.scan_iter(pattern, count=_BATCH_USERS):
                keys.append(key)
                if len(keys) == _BATCH_USERS:
                    self._client.unlink(*keys)
                    keys = []
            if keys:
                self._client.unlink(*keys)

    def pointer(self) -> Pointer | None:
        """Returns which release is served; see `Store.pointer`."""
        with _as_store_errors():
            text: Any = self._client.get(self._key("current"))
        return None if text is None else Pointer.from_json(text)

    def move(self, to: Pointer, *, expected: Pointer | None) -> None:
        """Moves the pointer; see `Store.move`."""
        key = self._key("current")
        with _as_store_errors(), self._client.pipeline() as pipeline:
            pipeline.watch(key)  # type: ignore[no-untyped-call, unused-ignore]
            text: Any = pipeline.get(key)
            current = None if text is None else Pointer.from_json(text)
            if current != expected:
                raise ConflictError(
                    f"the pointer must be where it was read, {current} arrived: publish again"
                )
            pipeline.multi()
            pipeline.set(key, to.to_json())
            try:
                pipeline.execute()
            except redis.WatchError:
                raise ConflictError("another publisher moved the pointer first: publish again") from None

    def suppress(self, user_id: str, reason: Reason) -> None:
        """Never answers a user personally again; see `Store.suppress`."""
        key = suppression_key(user_id)
        with _as_store_errors():
            self._client.sadd(self._key("suppressed"), key)
            self._client.rpush(self._key("suppressions"), json.dumps([key, reason]))

    def suppress_keys(self, keys: Set[str]) -> None:
        """Takes over another list; see `Store.suppress_keys`."""
        found = sorted(keys)
        with _as_store_errors():
            for first in range(0, len(found), _BATCH_USERS):
                self._client.sadd(self._key("suppressed"), *found[first : first + _BATCH_USERS])

    def suppressed_keys(self) -> frozenset[str]:
        """Returns who is suppressed; see `Store.suppressed_keys`."""
        with _as_store_errors():
            members: Any = self._client.smembers(self._key("suppressed"))
        return frozenset(member.decode() for member in members)

    def close(self) -> None:
        """Closes the connections; see `Store.close`."""
        self._client.close()

    def _key(self, *parts: str) -> str:
        return ":".join((self.namespace, *parts))

    def _user_key(self, release_id: str, user_id: str) -> str:
        return self._key("user", release_id, user_id)


@contextmanager
def _as_store_errors() -> Iterator[None]:
    try:
        yield
    except redis.TimeoutError as error:
        raise StoreTimeoutError(f"the store in Redis must answer in time, it did not: {error}") from None
    except (redis.RedisError, ValueError) as error:
        raise StoreError(f"the store in Redis must answer, it did not: {error}") from None


def _escape(text: str) -> str:
    return "".join(f"\\{character}" if character in "*?[]\\" else character for character in text)
