"""The days of a run as files: which are there, and the lock that lets one process work on a run at a time.

What whoever watches a run reads, too; needs no torch.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from forecart import artifacts
from forecart.errors import ArtifactError, ConflictError

DAYS: Final = "days"
DAY_FILE: Final = "day.json"
"""In the folder of a day that is finished: up to when events were read, and users by level."""
_LOCK: Final = ".run.lock"


def list_days(folder: Path) -> list[Path]:
    """Returns the finished days of a run, the earliest first."""
    return sorted(path.parent for path in (folder / DAYS).glob(f"*/{DAY_FILE}"))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other processes from working on a run meanwhile.

    Raises:
        ArtifactError: the folder holds no run.
        ConflictError: another process works on it.
    """
    if not (folder / artifacts.CONFIG).is_file():
        raise ArtifactError(f"a day continues a finished run, {folder} is none: run it without --as-of first")
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(f"one process runs a day of {folder} at a time, another does now") from None
        yield


def is_worked_on(folder: Path) -> bool:
    """Whether a process runs a day of this run now."""
    path = folder / _LOCK
    if not path.is_file():
        return False
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
