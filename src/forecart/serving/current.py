"""Which releases are open: the one that the store's pointer names, and the one before it unless withdrawn.

A thread looks at the pointer every `poll_s`, opens what is new beside what is served, and swaps one
reference. Whoever answers a request takes that reference once and keeps it to the end, so that no answer
mixes two releases. What cannot be opened changes nothing but the reason that is kept for `/readyz`.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from forecart.ads.eligibility import Eligibility
from forecart.errors import ArtifactError, ForecartError, NotFoundError, StoreError
from forecart.publish.pointer import Pointer
from forecart.publish.release import Release
from forecart.publish.releases import Releases
from forecart.publish.store import Store
from forecart.sequences.vocabulary import FIRST_INDEX
from forecart.serving.rungs import LEVELS, Level, Rung, list_popular

POLL_S: Final = 0.5
_RETRY_S: Final = 30.0
"""A release that was found damaged is looked at again after so long; verifying takes time."""
_NOBODY: Final = "\x00"
"""A user id that no log has."""
Tell = Callable[[str, str], None]
"""Called with what happened (`release_opened`, `release_refused`), and which release or why."""


@dataclass(eq=False)
class OpenRelease:
    """A release with what answering needs at hand.

    Attributes:
        release: verified and open.
        ads: what may be shown of its candidates, swapped with every change; None without an inventory.
    """

    release: Release
    ads: Eligibility | None = None

    @cached_property
    def advertiser_ids(self) -> npt.NDArray[np.object_]:
        """[V], ids of the advertisers as text; the reserved ones are empty."""
        vocabulary = self.release.advertisers
        ids = vocabulary.ids(np.arange(FIRST_INDEX, len(vocabulary)))
        return np.array([""] * FIRST_INDEX + ids, np.object_)

    def name_advertisers(self, index: npt.NDArray[np.int32]) -> list[str]:
        """Returns the ids of advertisers."""
        named: list[str] = self.advertiser_ids.take(index).tolist()
        return named

    @cached_property
    def popular(self) -> dict[Level, dict[str, tuple[Rung, ...]]]:
        """The lists for everybody by level and country; see `list_popular`."""
        return {level: list_popular(self.release.fallback, level) for level in LEVELS}

    @cached_property
    def numbering(self) -> tuple[str, str]:
        """What the indices of its candidates mean: the contents of its vocabularies."""
        return self.release.advertisers.content_hash, self.release.items.content_hash

    @cached_property
    def everything(self) -> npt.NDArray[np.bool_]:
        """[V], true for every advertiser and false for the reserved indices; to be copied."""
        mask = np.ones(len(self.release.advertisers), np.bool_)
        mask[:FIRST_INDEX] = False
        return mask

    @cached_property
    def as_of(self) -> str:
        """Up to when its histories were read, ISO 8601 in UTC."""
        moment = datetime.fromtimestamp(self.release.manifest.as_of_us / 1e6, UTC)
        return moment.isoformat(timespec="seconds")


@dataclass(frozen=True)
class Served:
    """What a request is answered from.

    Attributes:
        current: the release that the pointer names; None before the first, and where it is damaged.
        previous: the one before it, where it is still there; None after a rollback, which withdrew it.
        pointer: what the store said; None while it has not answered since this process began, and then
            `current` is the latest release on the disk, whose records nobody may be shown.
        is_empty: the store has lost the pointer, or the records of `current`.
    """

    current: OpenRelease | None = None
    previous: OpenRelease | None = None
    pointer: Pointer | None = None
    is_empty: bool = False


class ReleaseFollower:
    """Follows the pointer of a store.

    Args:
        store: whose pointer.
        releases: where the releases are.
        poll_s: how often the pointer is looked at.
        prepare: called at every look with what is served, before anybody is answered from it.
        tell: told of what happens.
    """

    def __init__(
        self,
        store: Store,
        releases: Releases,
        *,
        poll_s: float = POLL_S,
        prepare: Callable[[Served], object] = lambda served: None,
        tell: Tell | None = None,
    ) -> None:
        self._store = store
        self._releases = releases
        self._poll_s = poll_s
        self._prepare = prepare
        self._tell = tell or (lambda what, which: None)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._retry_at = 0.0
        self.served = Served()
        self.problem: str | None = None
        """Why what the store names is not served; None where it is."""

    def start(self) -> None:
        """Opens what is served now, and follows from then on."""
        self.follow()
        self._thread = threading.Thread(target=self._run, name="release-follower", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stops following."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def follow(self) -> Served:
        """Looks at the pointer now, and returns what is served then."""
        with self._lock:
            served = self.served
            try:
                served = self._look_or_open_latest()
            except Exception as error:  # a follower that ended would serve today's release for ever
                self._note(f"{type(error).__name__}: {error}")
            self._prepare(served)
            self.served = served
            return served

    def _look_or_open_latest(self) -> Served:
        try:
            return self._look()
        except StoreError as error:
            self._note(str(error))
            return self._open_latest()

    def _look(self) -> Served:
        pointer = self._store.pointer()
        if pointer is None:
            return self._look_without_pointer()
        if pointer == self.served.pointer:
            if self.served.current is not None:
                return self._look_for_records(self.served)
            if time.monotonic() < self._retry_at:
                return self.served
        self._retry_at = time.monotonic() + _RETRY_S
        previous = self._try_to_open(pointer.stand_in_id)
        current = self._try_to_open(pointer.release_id)
        served = Served(current, previous if previous is not current else None, pointer)
        if current is None:
            return served
        self._tell("release_opened", pointer.release_id)
        return self._look_for_records(served)

    def _look_without_pointer(self) -> Served:
        """Keeps what is open, or opens the latest that the store has lost, for the lists for everybody."""
        ids = self._releases.ids()
        if self.served.current is None and (not ids or self._store.holds(ids[-1])):
            raise NotFoundError(f"{self._releases.root} has no release that is served yet: publish one")
        self._note("the store must name the release that is served, it is empty: publish again")
        return self._mark(self._open_latest(), is_empty=True)

    def _look_for_records(self, served: Served) -> Served:
        assert served.current is not None
        release_id = served.current.release.release_id
        is_empty = not self._store.holds(release_id)
        lost = f"the store must hold the records of {release_id}, it has lost them: publish again"
        self._note(lost if is_empty else None)
        return self._mark(served, is_empty=is_empty)

    def _mark(self, served: Served, *, is_empty: bool) -> Served:
        return served if served.is_empty == is_empty else replace(served, is_empty=is_empty)

    def _try_to_open(self, release_id: str | None) -> OpenRelease | None:
        if release_id is None:
            return None
        try:
            opened = self._find_open(release_id) or self._open(release_id)
            _ = opened.advertiser_ids
            # The embedded store opens a release when it is first read: now, and not at somebody's request.
            self._store.read(release_id, _NOBODY)
            return opened
        except (ArtifactError, NotFoundError) as error:
            self._note(str(error))
            return None

    def _open(self, release_id: str) -> OpenRelease:
        self._store.bring(release_id)
        return OpenRelease(self._releases.open(release_id))

    def _find_open(self, release_id: str) -> OpenRelease | None:
        known = (self.served.current, self.served.previous)
        return next((one for one in known if one and one.release.release_id == release_id), None)

    def _open_latest(self) -> Served:
        """Opens the latest release there is, for its fallback lists, where a store has not answered yet."""
        if self.served != Served():
            return self.served
        for release_id in reversed(self._releases.ids()):
            try:
                return Served(OpenRelease(self._releases.open(release_id)))
            except (ForecartError, OSError):
                continue
        return self.served

    def _note(self, problem: str | None) -> None:
        if problem is not None and problem != self.problem:
            self._tell("release_refused", problem)
        self.problem = problem

    def _run(self) -> None:
        while not self._stop.wait(self._poll_s):
            self.follow()
