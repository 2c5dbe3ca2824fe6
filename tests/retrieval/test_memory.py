"""What listing gives back between parts."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from forecart.retrieval.candidates import return_memory


def own_mb() -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) // 1000


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator and /proc")
def test_what_lies_freed_between_what_is_kept_is_given_back():
    pieces = [np.ones(10_000) for _ in range(4_000)]  # 80 kB each, below what is mapped alone
    kept = pieces[::40]
    held = own_mb()
    del pieces
    return_memory()
    assert own_mb() < held - 200 and all(one[0] == 1 for one in kept)
