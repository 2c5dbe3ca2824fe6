"""One user's record for a request: read, found whole, of the release that is served, and not too old."""

from typing import Final, Literal, NamedTuple

from forecart.errors import SkewError, StoreError
from forecart.publish.records import UserRecord, hash_user, open_record
from forecart.publish.release import Release
from forecart.publish.store import RecordReader

Absence = Literal["unknown_user", "suppressed", "record_expired"]
_US: Final = 1_000_000


class Lookup(NamedTuple):
    """What is known of a user.

    Attributes:
        record: of the user; None where there is none to serve.
        absence: why there is none.
    """

    record: UserRecord | None
    absence: Absence | None


def look_up(store: RecordReader, release: Release, user_id: str, *, now_us: int) -> Lookup:
    """Returns a user's record.

    Args:
        store: where it is.
        release: that is served.
        user_id: whose.
        now_us: the moment of the request; a record lives `ttl_s` from its `as_of`.

    Raises:
        StoreError: the store does not answer, or answers what is no record of this user.
        SkewError: it answers the record of another release or embedding space.
    """
    stored = store.read(release.release_id, user_id)
    if stored.is_suppressed:
        return Lookup(None, "suppressed")
    if stored.payload is None:
        return Lookup(None, "unknown_user")
    try:
        record = open_record(
            stored.payload,
            release.layout,
            user=hash_user(user_id),
            release=release.number,
            space=release.space,
        )
    except (StoreError, SkewError):
        store.distrust()
        raise
    if now_us - record.as_of_us > release.manifest.ttl_s * _US:
        return Lookup(None, "record_expired")
    return Lookup(record, None)
