"""Memory that the allocator keeps of what was freed, given back between pieces of long work."""

import ctypes
import os


def return_memory() -> None:
    """Gives the system back what glibc's allocator keeps of what was freed; elsewhere it does nothing.

    Between pieces of unequal size it keeps 50 MB for each part of the lists and 20 MB for each step of a
    training, which is more than the log after some hundreds of them.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
