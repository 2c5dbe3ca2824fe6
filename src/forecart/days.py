"""The days of a run as files: which are there, and the lock that lets one process work on a run at a time.

Whole runs, stages of them and days take the same lock; whoever watches looks at it for an instant. No torch.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from forecart.errors import ConflictError

DAYS: Final = "days"
DAY_FILE: Final = "day.json"
"""In the folder of a day that is finished: up to when events were read, and users by level."""
_LOCK: Final = ".run.lock"
_PATIENCE_S: Final = 1.0
_RETRY_S: Final = 0.02


def list_days(folder: Path) -> list[Path]:
    """Returns the finished days of a run, the earliest first."""
    return sorted(path.parent for path in (folder / DAYS).glob(f"*/{DAY_FILE}"))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other processes from working on a run meanwhile; its folder is made where it is not there yet.

    Raises:
        ConflictError: another process works on it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        if not _try_to_lock(lock):
            raise ConflictError(
                f"one process works on a run at a time, another works on {folder} now: wait for it to end"
            )
        yield


def _try_to_lock(lock: IO[str]) -> bool:
    # Not at once: who asks whether a run is worked on holds the lock, too, for an instant.
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until_s:
                return False
            time.sleep(_RETRY_S)


def is_worked_on(folder: Path) -> bool:
    """Whether a process works on this run now: all of it, a stage of it or a day."""
    path = folder / _LOCK
    if not path.is_file():
        return False
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
