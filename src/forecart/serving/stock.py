"""The inventory of each open release: the same ads, numbered as the release numbers advertisers and products.

Read from a folder when a release is opened, and changed live: updates are lines of `updates.jsonl` in the
folder, which every process reads on in. Whoever answers takes `OpenRelease.ads` once for the whole request.
A release whose inventory cannot be read gets one of which nothing may be shown, until it can be.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from forecart.ads.eligibility import Eligibility
from forecart.ads.inventory import Inventory, UpdateFollower
from forecart.ads.snapshot import UNREADABLE
from forecart.artifacts import append_lines
from forecart.serving.current import OpenRelease, Served

UPDATES: Final = "updates.jsonl"


@dataclass
class _Live:
    inventory: Inventory
    updates: UpdateFollower
    eligibility: Eligibility

    def poll(self) -> int:
        num_applied = self.updates.poll()
        if self.inventory.snapshot is not self.eligibility.snapshot:
            self.eligibility = Eligibility(self.inventory.snapshot)
        return num_applied


class Stock:
    """The inventories of the releases that are open.

    Args:
        folder: of the inventory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._live: dict[tuple[str, str], _Live] = {}
        self._lock = threading.Lock()

    def follow(self, served: Served) -> int:
        """Reads the inventory for releases that are new, applies updates, and gives each release its ads.

        Returns how many updates were applied.

        Raises:
            DataError: the folder is no inventory.
            OSError: it cannot be read. Either way every release has its ads, of before or none at all.
        """
        with self._lock:
            num_applied, problem = self._follow(served)
        if problem is not None:
            raise problem
        return num_applied

    def _follow(self, served: Served) -> tuple[int, Exception | None]:
        """Returns how many updates were applied, and what kept an inventory from being read."""
        releases = [one for one in (served.current, served.previous) if one is not None]
        by_numbering = {one.numbering: one for one in releases}
        self._live = {numbering: live for numbering, live in self._live.items() if numbering in by_numbering}
        num_applied, problem = 0, None
        # Those that are open first: a pause does not wait for what is read anew, nor fail with it.
        for numbering in sorted(by_numbering, key=lambda one: one not in self._live):
            try:
                num_applied = max(num_applied, self._keep_up(by_numbering[numbering]))
            except Exception as error:  # files of others: what is in them decides about their ads only
                problem = error
        for one in releases:
            live = self._live.get(one.numbering)
            if live is not None:
                one.ads = live.eligibility
            elif one.ads is None:
                one.ads = _show_nothing(one)
        return num_applied, problem

    def _keep_up(self, opened: OpenRelease) -> int:
        """Applies updates to the inventory of a release, which is read first where it is not open."""
        live = self._live.get(opened.numbering)
        if live is None:
            live = self._read(opened)
            num_applied = live.poll()
            self._live[opened.numbering] = live  # not before its updates: pauses are among them
            return num_applied
        return live.poll()

    def change(self, updates: Sequence[Mapping[str, Any]], served: Served) -> tuple[int, int]:
        """Writes updates for every process to read, durably, and applies them here.

        Returns how many were applied and how many break a rule, those of others meanwhile too.

        Raises:
            OSError: the disk refused, perhaps after a part of them: send them again.
        """
        lines = "".join(json.dumps(one) + "\n" for one in updates)
        with self._lock:  # or the follower would apply them first, and they would not be counted
            before = self._count_rejected()
            append_lines(self.folder / UPDATES, lines.encode())
            num_applied, _ = self._follow(served)
            return num_applied, self._count_rejected() - before

    def inventory_of(self, served: Served) -> Inventory | None:
        """Returns the inventory of the release that is served; None where it is not read."""
        opened = served.current or served.previous
        live = None if opened is None else self._live.get(opened.numbering)
        return None if live is None else live.inventory

    def _count_rejected(self) -> int:
        return max((live.inventory.num_rejected for live in self._live.values()), default=0)

    def _read(self, opened: OpenRelease) -> _Live:
        release = opened.release
        inventory = Inventory.read(self.folder, advertisers=release.advertisers, items=release.items)
        return _Live(
            inventory, UpdateFollower(self.folder / UPDATES, inventory), Eligibility(inventory.snapshot)
        )


def _show_nothing(opened: OpenRelease) -> Eligibility:
    """Returns the eligibility of an inventory that cannot be read."""
    empty = Inventory(opened.release.advertisers, opened.release.items).snapshot
    return Eligibility(replace(empty, version=UNREADABLE))
