"""What work on an engine cost: time, processor time of everyone, bytes and memory, for a manifest and a line.

Measured on what this process had done: after a resumption, only on what was left to do.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from forecart.engine.contract import Done, Engine, Result, worker_name


class CostMeter:
    """Adds up what tasks cost while their results come.

    Args:
        engine: that does them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._started_s, self._own_s = time.perf_counter(), time.process_time()
        self._workers_s, self._peak_bytes = 0.0, 0

    def watch(self, results: Iterator[Done[Result]]) -> Iterator[Done[Result]]:
        """Yields the results as they come."""
        for done in results:
            if done.worker != worker_name():
                self._workers_s += done.core_seconds
            self._peak_bytes = max(self._peak_bytes, done.peak_bytes)
            yield done

    def describe(self, *, num_users: int, bytes_written: int) -> dict[str, Any]:
        """Returns the cost of so many users since the meter was made; rates are null without users."""
        seconds = time.perf_counter() - self._started_s
        core_s = self._workers_s + time.process_time() - self._own_s
        return {
            "engine": self._engine.name,
            "num_workers": self._engine.num_workers,
            "num_users": num_users,
            "seconds": seconds,
            "users_per_s": num_users / seconds if num_users else None,
            "bytes_written": bytes_written,
            "core_seconds": core_s,
            "core_seconds_per_million_users": core_s / num_users * 1e6 if num_users else None,
            "peak_worker_bytes": self._peak_bytes,
        }


def show_cost(cost: Mapping[str, Any]) -> str:
    """Returns a cost as a line for people."""
    if not cost["num_users"]:
        return "cost: every list was there already"
    rate, core_s = cost["users_per_s"], cost["core_seconds_per_million_users"]
    megabytes, peak = cost["bytes_written"] / 1e6, cost["peak_worker_bytes"] / 1e6
    where = f"{cost['engine']}, {cost['num_workers']} at once"
    return (
        f"cost: {rate:,.0f} users/s, {core_s:,.0f} core-seconds per million users, "
        f"{megabytes:,.1f} MB written, {peak:,.0f} MB a worker at most ({where})"
    )
