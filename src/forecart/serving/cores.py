"""A core for each process that serves, and no other process of the service on it.

One thread of a process answers and others take HTTP apart, and only one of them at a time may run Python. On
several cores they wake each other from afar for every request; on one core they take turns. Linux only.
"""

import fcntl
import os
import sys
from pathlib import Path
from typing import IO, Final

from forecart.errors import ConfigError

_held: Final[list[IO[bytes]]] = []
"""Locks of this process, which end with it, however it ends."""


def require_cores(num_processes: int) -> None:
    """Returns where each of so many processes can have a core of its own.

    Raises:
        ConfigError: there are not as many that this process may use, or it is not Linux.
    """
    if sys.platform != "linux":
        raise ConfigError(
            f"keeping a process on its core needs Linux, this is {sys.platform}: leave --pin out"
        )
    num_cores = len(os.sched_getaffinity(0))
    if num_processes > num_cores:
        raise ConfigError(
            f"with --pin there must be a core for each worker, {num_processes} workers for {num_cores} cores "
            f"arrived: use --workers {num_cores} or leave --pin out"
        )


def stay_on_core(folder: Path) -> bool:
    """Keeps this process, with threads that it will start, on a core that no other has, if there is one.

    Args:
        folder: of the locks that say who has which.

    Returns:
        Whether one was free: while a process is replaced, both are there.
    """
    for core in sorted(os.sched_getaffinity(0)):
        lock = (folder / f"core-{core}").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        _held.append(lock)
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})
        return True
    return False
