"""Who must not be answered personally any more: a list that outlives every release.

One line per request in a file that only grows: the sha256 of the user id, why, and when. No id is written.
Every process that serves looks at the file's size before it answers, so that an opt-out holds at once
everywhere on the machine, after a restart and after a rollback.
"""

import hashlib
import os
import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from forecart import artifacts
from forecart.errors import DataError

Reason = Literal["opt_out", "deletion"]
_KEY_CHARACTERS: Final = 64


def suppression_key(user_id: str) -> str:
    """Returns what a list knows a user by."""
    return hashlib.sha256(user_id.encode()).hexdigest()


class SuppressionList:
    """The list in a file, which need not exist while nobody is on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: set[str] = set()
        self._read_bytes = 0
        self._lock = threading.Lock()

    def add(self, user_id: str, reason: Reason) -> str:
        """Puts a user on the list for good, durably, and returns the key.

        Raises:
            DataError: the id is empty.
        """
        if not user_id:
            raise DataError("a user to suppress has an id, an empty one arrived")
        key = suppression_key(user_id)
        self._append([key], reason)
        return key

    def add_keys(self, keys: Iterable[str]) -> None:
        """Puts on the list, durably, who is on another one."""
        if found := sorted(set(keys) - self.keys()):
            self._append(found, "carried")

    def _append(self, keys: Sequence[str], why: str) -> None:
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        lines = "".join(f"{key} {why} {moment}\n" for key in keys)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        artifacts.append_lines(self.path, lines.encode())

    def __contains__(self, user_id: str) -> bool:
        self._read_on()
        return bool(self._keys) and suppression_key(user_id) in self._keys

    def keys(self) -> frozenset[str]:
        """Returns the keys of everyone on the list."""
        self._read_on()
        return frozenset(self._keys)

    def _read_on(self) -> None:
        try:
            # Before every answer: half the time of `Path.stat`.
            size = os.stat(self.path).st_size  # noqa: PTH116
        except FileNotFoundError:
            return
        # Without the lock: what the number of bytes says was read is among the keys already.
        if size != self._read_bytes:
            with self._lock:
                self._take_in(size)

    def _take_in(self, size: int) -> None:
        with self.path.open("rb") as handle:
            handle.seek(min(self._read_bytes, size))
            added = handle.read()
        whole, _, _ = added.rpartition(b"\n")
        # Who was on the list once stays there while this process lives, whatever becomes of the file.
        words = (line.split() for line in whole.decode("ascii", errors="replace").splitlines())
        self._keys.update(line[0] for line in words if line and len(line[0]) == _KEY_CHARACTERS)
        self._read_bytes = min(self._read_bytes, size) + len(whole) + (1 if b"\n" in added else 0)
