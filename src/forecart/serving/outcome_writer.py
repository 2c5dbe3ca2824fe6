"""Writing outcomes behind the answers: rows go into a queue, and a thread of its own writes them as files."""

import hashlib
import queue
import secrets
import threading
from typing import Final

from forecart.ads.outcomes import Outcome, OutcomeLog

_LOOK_S: Final = 1.0
_MAX_WAITING: Final = 10_000
_KEY_BYTES: Final = 32


class OutcomeWriter:
    """The outcome log of one process, which no answer waits for.

    Args:
        log: that is written.
        key: of the pseudonyms of users; a random one without, so that they change with every start.
    """

    def __init__(self, log: OutcomeLog, *, key: str | None = None) -> None:
        self._log = log
        self._key = hashlib.sha256(key.encode()).digest() if key else secrets.token_bytes(_KEY_BYTES)
        self._waiting: queue.Queue[tuple[list[Outcome], int]] = queue.Queue(_MAX_WAITING)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outcome-writer", daemon=True)
        self._num_refused = 0

    @property
    def num_dropped(self) -> int:
        """Rows that were lost because they came faster than they could be written."""
        return self._num_refused + self._log.num_dropped

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
            self._take_all()

    def _take_all(self) -> None:
        for _ in range(self._waiting.qsize()):
            outcomes, now_us = self._waiting.get_nowait()
            self._log.add(outcomes, now_us=now_us)
