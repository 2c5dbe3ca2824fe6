"""The memory of a process as the kernel tells it, in kB: `VmRSS` all that is resident, mapped pages counted,
`RssAnon` what is the process's own, `RssFile` the pages of files, `VmHWM` the most that was resident.
"""

import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

_SAMPLE_S: Final = 0.05


def read_memory_kb(*names: str, pid: int | str = "self") -> dict[str, int]:
    """Returns lines of `/proc/PID/status` by their names."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    named = dict(line.split(":", 1) for line in lines)
    return {name: int(named[name].split()[0]) for name in names}


class MemoryWatch(AbstractContextManager["MemoryWatch"]):
    """Looks at the memory of this process twenty times a second; `peak_kb` has the most of each so far."""

    def __init__(self) -> None:
        self.peak_kb = {"RssAnon": 0, "VmRSS": 0}
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_done.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            for name, now_kb in read_memory_kb(*self.peak_kb).items():
                self.peak_kb[name] = max(self.peak_kb[name], now_kb)
            if self._is_done.wait(_SAMPLE_S):
                return
