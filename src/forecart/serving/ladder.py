"""From what is a request answered? The user's record where there may be one, else lists for everybody.

    the user's record in the release that is served
    the user's record in the release before it, unless a rollback withdrew that one
    what is popular in the country of the request
    what is popular everywhere
    nothing

Every step down has a reason, and the answer carries it.
"""

from typing import Final, Literal, NamedTuple

from forecart.errors import SkewError, StoreError
from forecart.publish.lookup import look_up
from forecart.publish.records import UserRecord
from forecart.retrieval.candidate_files import EVERYONE
from forecart.serving.consent import Verdict
from forecart.serving.current import OpenRelease, Served
from forecart.serving.guard import GuardedStore, StoreRefusalError
from forecart.serving.rungs import OWN, Level, Rung, Source

Reason = Literal[
    "consent_denied",
    "consent_unreadable",
    "no_user",
    "suppressed",
    "unknown_user",
    "record_expired",
    "record_damaged",
    "version_skew",
    "store_timeout",
    "store_down",
    "store_empty",
    "release_stale",
    "release_refused",
    "no_release",
    "no_inventory",
    "inventory_empty",
    "inventory_unreadable",
    "l1_failed",
    "uncalibrated",
    "deadline",
]
_CONSENT: Final[dict[Verdict, Reason]] = {"denied": "consent_denied", "unreadable": "consent_unreadable"}
_US: Final = 1_000_000


class Reading(NamedTuple):
    """What a request is answered from.

    Attributes:
        opened: the release; None where there is none at all.
        record: of the user; None where the answer is not personal.
        is_previous: the record is of the release before the one that is served.
        reasons: why it is not the record of the release that is served.
    """

    opened: OpenRelease | None
    record: UserRecord | None = None
    is_previous: bool = False
    reasons: tuple[Reason, ...] = ()

    @property
    def release_id(self) -> str | None:
        """The release of the answer."""
        return None if self.opened is None else self.opened.release.release_id

    @property
    def as_of(self) -> str | None:
        """Up to when its histories were read."""
        return None if self.opened is None else self.opened.as_of


class Ladder:
    """Finds a user's record.

    Args:
        store: of the records.
        max_staleness_s: a release with older histories is not served personally.
    """

    def __init__(self, store: GuardedStore, *, max_staleness_s: int) -> None:
        self._store = store
        self._max_staleness_us = max_staleness_s * _US

    def read(self, served: Served, user_id: str | None, verdict: Verdict, *, now_us: int) -> Reading:
        """Returns what a request is answered from.

        Args:
            served: the releases, taken once for the whole request.
            user_id: of the request, if it has one.
            verdict: may it be answered personally?
            now_us: the moment of the request.
        """
        if (reason := self._find_obstacle(served, user_id, verdict, now_us)) is not None:
            return self.without_record(served, reason)
        assert user_id is not None
        reasons: list[Reason] = [] if served.current is not None else ["release_refused"]
        for opened in (served.current, served.previous):
            if opened is None or self._is_stale(opened, now_us):
                continue
            found = self._look_up(opened, user_id, now_us)
            if isinstance(found, UserRecord):
                return Reading(opened, found, opened is not served.current, tuple(reasons))
            if found not in reasons:
                reasons.append(found)
            if found not in ("unknown_user", "version_skew", "record_damaged"):
                break
        return self.without_record(served, *reasons)

    def without_record(self, served: Served, *reasons: Reason) -> Reading:
        """Returns what a request is answered from where nothing personal may be, or can be."""
        opened = served.current or served.previous
        return Reading(opened, reasons=reasons if opened is not None else (*reasons, "no_release"))

    def _find_obstacle(
        self, served: Served, user_id: str | None, verdict: Verdict, now_us: int
    ) -> Reason | None:
        if verdict != "allowed":
            return _CONSENT[verdict]
        if user_id is None:
            return "no_user"
        if served.is_empty:
            return "store_empty"
        if served.pointer is None and served.current is not None:
            return "store_down"
        newest = served.current or served.previous
        return "release_stale" if newest is not None and self._is_stale(newest, now_us) else None

    def _is_stale(self, opened: OpenRelease, now_us: int) -> bool:
        return now_us - opened.release.manifest.as_of_us > self._max_staleness_us

    def _look_up(self, opened: OpenRelease, user_id: str, now_us: int) -> UserRecord | Reason:
        try:
            found = look_up(self._store, opened.release, user_id, now_us=now_us)
        except StoreRefusalError as error:
            return error.reason
        except SkewError:
            return "version_skew"
        except StoreError:
            return "record_damaged"
        return found.record if found.record is not None else (found.absence or "unknown_user")


def list_rungs(reading: Reading, level: Level, country: str | None) -> tuple[Rung, ...]:
    """Returns the lists of a level from the top of the ladder down."""
    opened, record = reading.opened, reading.record
    if opened is None:
        return ()
    popular = opened.popular[level]
    below = popular[EVERYONE] if country is None else popular.get(country, popular[EVERYONE])
    if record is None:
        return below
    source: Source = "previous_release" if reading.is_previous else level
    return Rung(source, OWN, *record.read("item" if level == "products" else "advertiser")), *below
