"""Writing outcomes behind the answers: rows go into a queue, and a thread of its own writes them as files."""

import hashlib
import queue
import secrets
import threading
import time
from collections.abc import Callable
from typing import Final

from forecart.ads.outcomes import Outcome, OutcomeLog

_LOOK_S: Final = 1.0
_MAX_WAITING: Final = 10_000
_KEY_BYTES: Final = 32


class OutcomeWriter:
    """The outcome log of one process, which no answer waits for.

    Args:
        log: that is written.
        key: of the pseudonyms of users; a random one without, so that they change with every start,
            and differ between the processes of one service.
        clock: that the moments of outcomes are of, microseconds.
    """

    def __init__(
        self,
        log: OutcomeLog,
        *,
        key: str | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._log, self._clock = log, clock
        self._key = hashlib.sha256(key.encode()).digest() if key else secrets.token_bytes(_KEY_BYTES)
        self._waiting: queue.Queue[tuple[list[Outcome], int]] = queue.Queue(_MAX_WAITING)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outcome-writer", daemon=True)
        self._num_refused = self._num_mistakes = 0

    @property
    def num_dropped(self) -> int:
        """Rows that were lost because they came faster than they could be written."""
        return self._num_refused + self._log.num_dropped

    @property
    def num_failures(self) -> int:
        """Times that rows could not be written; they wait on while there is room."""
        return self._num_mistakes + self._log.num_failures

    def start(self) -> None:
        """Begins to write."""
        self._thread.start()

    def add(self, outcomes: list[Outcome], *, now_us: int) -> None:
        """Takes the rows of an answer, at once."""
        try:
            self._waiting.put_nowait((outcomes, now_us))
        except queue.Full:
            self._num_refused += len(outcomes)

    def name_user(self, user_id: str) -> str:
        """Returns the pseudonym of a user."""
        return hashlib.blake2b(user_id.encode(), key=self._key, digest_size=16).hexdigest()

    def stop(self) -> None:
        """Writes what waits, and stops.

        Raises:
            OSError: the disk refused.
        """
        self._stop.set()
        self._thread.join()
        self._take_all()
        self._log.flush()

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_S):
            try:
                self._take_all()
                # Where nobody asks any more, what waits grows old all the same.
                self._log.add([], now_us=self._clock())
            except Exception:  # a thread that ended would drop every row from then on
                self._num_mistakes += 1

    def _take_all(self) -> None:
        for _ in range(self._waiting.qsize()):
            outcomes, now_us = self._waiting.get_nowait()
            self._log.add(outcomes, now_us=now_us)
