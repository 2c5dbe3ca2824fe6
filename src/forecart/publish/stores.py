"""Which store there is: the embedded one below the releases, or the one a URL names."""

from pathlib import Path

from forecart.errors import ConfigError
from forecart.object_store import ObjectPath, to_place
from forecart.publish.bucket_store import BucketStore
from forecart.publish.embedded import EmbeddedStore
from forecart.publish.remote import RemoteStore
from forecart.publish.store import Store


def open_store(root: Path, url: str | None, *, timeout_s: float) -> Store:
    """Returns a store.

    Args:
        root: of the releases.
        url: such as `redis://localhost:6379/0` or `s3://bucket/releases`; the embedded store without.
        timeout_s: of each answer of a server.

    Raises:
        ConfigError: the URL is of no store there is.
        ForecartError: the extra `redis` is not installed.
    """
    if url is None:
        return EmbeddedStore(root)
    if not url.startswith(("redis://", "rediss://", "unix://")):
        place = to_place(url)
        if not isinstance(place, ObjectPath) or place.url.startswith(("http://", "https://")):
            raise ConfigError(
                f"a store is a URL such as redis://localhost:6379/0 or s3://bucket/name, {url!r:.80} arrived"
            )
        return RemoteStore(BucketStore(place, root), root)
    from forecart.publish.redis_store import RedisStore  # its client is an extra

    return RemoteStore(RedisStore(url, timeout_s=timeout_s), root)
