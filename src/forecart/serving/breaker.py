"""A circuit breaker: after a few failures in a row a dependency is not asked for a while, then asked once.

Closed, everything passes. Open, nothing does, so a store that hangs costs a few budgets and then none.
After `reset_s` one caller passes as a probe (half open): its success closes the breaker, its failure opens it
again.
"""

import threading
import time
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half_open"]


class Breaker:
    """The state of one dependency; safe to share between threads.

    Args:
        max_failures: in a row that open it.
        reset_s: from opening to the probe; also after how long a probe that never reports counts as lost.
        clock: seconds that only go forward.
    """

    def __init__(
        self, *, max_failures: int = 5, reset_s: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_failures = max_failures
        self._reset_s = reset_s
        self._clock = clock
        self._lock = threading.Lock()
        self._num_failures = 0
        self._probe_at: float | None = None  # when the next probe may pass; None while it is closed
        self._is_probing = False

    @property
    def state(self) -> State:
        """Returns what happens to the next caller: passes, is turned away, or passes as a probe."""
        if self._probe_at is None:
            return "closed"
        return "half_open" if self._is_probing or self._clock() >= self._probe_at else "open"

    def allows(self) -> bool:
        """Says whether the caller may ask; who may reports `succeed` or `fail` afterwards."""
        if self._probe_at is None:
            return True
        with self._lock:
            if self._probe_at is None:
                return True
            now = self._clock()
            if now < self._probe_at:
                return False
            self._probe_at = now + self._reset_s  # the next probe, should this one be lost
            self._is_probing = True
            return True

    def succeed(self) -> None:
        """Notes an answer: the breaker is closed."""
        if self._num_failures == 0 and self._probe_at is None:
            return
        with self._lock:
            self._num_failures, self._probe_at, self._is_probing = 0, None, False

    def fail(self) -> None:
        """Notes that no answer came."""
        with self._lock:
            self._num_failures += 1
            if self._num_failures >= self._max_failures:
                self._probe_at = self._clock() + self._reset_s
                self._is_probing = False
