"""What the service tells of itself: metrics for Prometheus and logs as JSON, neither with anybody's id.

With several processes every one of them writes its values into files of `PROMETHEUS_MULTIPROC_DIR`, and
whichever answers `/metrics` adds them up; the variable must be set before this module is imported.
"""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import structlog
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

from forecart.serving.launch import METRICS_FOLDER

METRICS_TYPE: Final = CONTENT_TYPE_LATEST.encode()
_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_BREAKER_STATES: Final = {"closed": 0, "half_open": 1, "open": 2}


class Telemetry:
    """Counters and gauges of one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("forecart_requests", "Replies.", ["path", "status"], registry=self._registry)
        self._seconds = Histogram(
            "forecart_answer_seconds",
            "From a whole request to its answer, by the source of the first candidate.",
            ["path", "source"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._degraded = Counter(
            "forecart_degraded",
            "Reasons why answers were less than they could be.",
            ["reason"],
            registry=self._registry,
        )
        self._release_age = Gauge(
            "forecart_release_age_seconds",
            "Since the histories of the release that is served were read.",
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        self._breaker = Gauge(
            "forecart_breaker_state",
            "Of the store: 0 closed, 1 half open, 2 open.",
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        self._outcomes_dropped = Gauge(
            "forecart_outcomes_dropped",
            "Rows that the outcome log had no room for, since the process began.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._outcomes_failures = Gauge(
            "forecart_outcomes_failures",
            "Times that the outcome log could not be written, since the process began.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._bound: dict[tuple[Any, tuple[str, ...]], Any] = {}

    def replied(self, path: str, status: int) -> None:
        """Counts a reply."""
        self._child(self._requests, path, str(status)).inc()

    def answered(self, path: str, seconds: float, source: str, degraded: Sequence[str]) -> None:
        """Counts an answer."""
        self._child(self._seconds, path, source).observe(seconds)
        for reason in degraded:
            self._child(self._degraded, reason).inc()

    def observe_state(
        self, *, release_age_s: float | None, breaker: str, outcomes_dropped: int, outcomes_failures: int
    ) -> None:
        """Sets the gauges."""
        self._breaker.set(_BREAKER_STATES[breaker])
        self._outcomes_dropped.set(outcomes_dropped)
        self._outcomes_failures.set(outcomes_failures)
        if release_age_s is not None:
            self._release_age.set(release_age_s)

    def render(self) -> bytes:
        """Returns the metrics of all processes as text."""
        if METRICS_FOLDER not in os.environ:
            return generate_latest(self._registry)
        _forget_the_dead(Path(os.environ[METRICS_FOLDER]))
        everyone = CollectorRegistry()
        multiprocess.MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]
        return generate_latest(everyone)

    def _child(self, metric: Any, *labels: str) -> Any:
        """Returns the child of a metric; `labels` takes longer than all the rest."""
        child = self._bound.get((metric, labels))
        if child is None:
            child = self._bound[metric, labels] = metric.labels(*labels)
        return child


def _forget_the_dead(folder: Path) -> None:
    """Removes the gauges of processes that are gone: a worker that was replaced has no release any more."""
    for path in folder.glob("gauge_live*_*.db"):
        try:
            os.kill(int(path.stem.rpartition("_")[2]), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)


def make_logger() -> Any:
    """Returns a logger that writes a line of JSON for each event to standard error."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    return structlog.get_logger().bind(process=os.getpid())
