"""From parts to what is served: build, check in a fresh process, load, move the pointer; or move it back.

One publisher works at a time, held by a lock on the root folder. Whatever step one dies at, the pointer is
where it was and the next run begins again with what is whole: publishing the same parts twice is one release.
"""

import fcntl
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from forecart.errors import ArtifactError, ConflictError, GateError, NotFoundError, StoreError
from forecart.publish.check import check_in_fresh_process
from forecart.publish.embedded import read_pointer
from forecart.publish.gate import GateSettings
from forecart.publish.pointer import Pointer
from forecart.publish.release import ReleaseParts, build_release
from forecart.publish.releases import Releases, moment_of
from forecart.publish.store import Report, Store

KEEP: Final = 3
Parts = Callable[[Set[str]], ReleaseParts]
"""Given the keys of who is suppressed, returns what to publish."""


@dataclass(frozen=True)
class Publisher:
    """Publishes below a root folder into a store.

    Attributes:
        root: of the releases.
        store: where records are served from.
        gate: what a release must be.
        keep: releases to keep, the served one and the one before it among them.
        report: told of users loaded.
    """

    root: Path
    store: Store
    gate: GateSettings = field(default_factory=GateSettings)
    keep: int = KEEP
    report: Report | None = None

    def publish(self, parts: Parts) -> Pointer:
        """Builds a release and serves it, and returns the pointer; the same parts again change nothing.

        Raises:
            ConflictError: another publisher is at work or was faster, or a later history is served.
            GateError: the release is worse than the gate allows; the one that is served stays.
            ArtifactError: the parts do not make a release.
            StoreError: the store does not answer.
        """
        with self._alone():
            current, suppressed = self.store.pointer(), self.store.suppressed_keys()
            self._bring_served(current)
            made = parts(suppressed)
            self._refuse_older(current, made.release_id)
            release_id = self._build(made)
            if current is not None and current.release_id == release_id:
                if not self.store.holds(release_id):
                    self.store.load(self._releases.open(release_id), report=self.report)
                return current
            self._check(current, release_id, suppressed)
            self.store.load(self._releases.open(release_id), report=self.report)
            moved = Pointer.after(current, release_id, move="publish")
            self._move(moved, current)
            self._remove_old(moved)
            return moved

    def roll_back(self, release_id: str | None = None) -> Pointer:
        """Serves the release before, or one that is named, and returns the pointer.

        The one before is the one that was served until the last publish. After a rollback that one is the
        withdrawn one: then it is the latest on the disk that is older than what is served and was not
        withdrawn itself. A named one may be any.

        Raises:
            NotFoundError: there is nothing to roll back to.
            ArtifactError: that release is damaged.
            GateError: no gate has passed it, nor does now.
            ConflictError: it is served already, or another publisher is at work or was faster.
            StoreError: the store does not answer.
        """
        with self._alone():
            current = self.store.pointer()
            goal = release_id or (None if current is None else self._find_before(current))
            if current is None or goal is None:
                raise NotFoundError(f"{self.root} has no release before the one that is served")
            if goal == current.release_id:
                raise ConflictError(f"a rollback goes to another release, {goal} is served already")
            self.store.bring(goal)
            release = self._releases.open(goal)
            if not self._releases.has_passed(goal):  # a publisher was killed before it looked
                check_in_fresh_process(self.root, goal, None, suppressed=frozenset(), settings=self.gate)
            self.store.load(release, report=self.report)
            moved = Pointer.after(current, goal, move="rollback")
            self._move(moved, current)
            return moved

    def _move(self, moved: Pointer, current: Pointer | None) -> None:
        # Noted first: a publisher that is killed in between leaves one that nobody goes back to by itself.
        if current is not None and moment_of(moved.release_id) < moment_of(current.release_id):
            self._releases.note_withdrawn(current.release_id)
        self.store.move(moved, expected=current)
        self._releases.note_served(moved.release_id)

    def _bring_served(self, current: Pointer | None) -> None:
        """Brings what a new release is held against; where it is lost, nothing is."""
        if current is not None:
            with suppress(ArtifactError, NotFoundError):
                self.store.bring(current.release_id)

    @property
    def _releases(self) -> Releases:
        return Releases(self.root)

    def _find_before(self, current: Pointer) -> str | None:
        if current.move == "publish":
            return current.previous_id
        served, releases = moment_of(current.release_id), self._releases
        older = [one for one in releases.ids() if moment_of(one) < served and not releases.is_withdrawn(one)]
        return older[-1] if older else None

    def _build(self, parts: ReleaseParts) -> str:
        release_id = parts.release_id
        if release_id in self._releases.ids():
            try:
                self._releases.verify(release_id)
                return release_id
            except ArtifactError:  # it was damaged since: the same parts make it again
                self._releases.remove(release_id)
        folder = self._releases.building(release_id)
        build_release(parts, folder)
        self._releases.take_in(folder)
        return release_id

    def _check(self, current: Pointer | None, release_id: str, suppressed: Set[str]) -> None:
        previous_id = None if current is None else current.release_id
        try:
            check_in_fresh_process(
                self.root, release_id, previous_id, suppressed=suppressed, settings=self.gate
            )
        except GateError:
            # Nobody rolls back to what the gate refused; what was served before stays whatever it says now.
            if release_id not in self._find_named(current):
                self._releases.remove(release_id)
            raise
        self._releases.note_passed(release_id)

    def _refuse_older(self, current: Pointer | None, release_id: str) -> None:
        # By the ids: the release that is served may be lost, and that must not keep the next one away.
        if current is not None and moment_of(release_id) < moment_of(current.release_id):
            raise ConflictError(
                f"what is published must not be older than what is served ({current.release_id}), "
                f"{release_id} is: roll back to it instead"
            )

    def _remove_old(self, pointer: Pointer) -> None:
        own = pointer.named_ids
        others = [one for one in reversed(self._releases.ids()) if one not in own]
        old = others[max(self.keep - len(own), 0) :]
        for release_id in (one for one in old if one not in self._find_named(pointer)):
            self.store.drop(release_id)
            self._releases.remove(release_id)

    def _find_named(self, pointer: Pointer | None) -> frozenset[str]:
        """Returns what is named by a pointer or the folder's own, which another store may not know of."""
        try:
            pointers = (pointer, read_pointer(self.root))
        except StoreError:  # the folder's own is damaged and may have named any of them
            return frozenset(self._releases.ids())
        return frozenset().union(*(one.named_ids for one in pointers if one is not None))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".publish.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConflictError(
                    f"one publisher works on {self.root} at a time, another does now"
                ) from None
            yield
