"""A load generator for HTTP: requests at moments drawn beforehand, or as many as come back.

Open loop (`drive_open`): arrivals are a Poisson process that waits for no answer, and a latency counts from
the moment the request was due, so a server that stalls is charged for everyone who had to wait. Closed loop
(`drive_closed`): every connection sends when it has its answer, which finds the peak throughput. Raw asyncio
connections with keep-alive, because an HTTP client would be what is measured.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

Check = Callable[[int, bytes], str | None]
"""Given status and body of an answer, says what is wrong with it."""
_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"
_CLOSE: Final = b"connection: close"
_DRAIN_S: Final = 15.0


@dataclass(frozen=True)
class Target:
    """Where the requests go, and what they are.

    Attributes:
        host: of the server.
        port: of the server.
        requests: whole HTTP/1.1 requests, taken one after the other.
        check: looks at every answer; without it only the status is counted.
    """

    host: str
    port: int
    requests: Iterator[bytes]
    check: Check | None = None


@dataclass
class LoadReport:
    """What became of the requests.

    Attributes:
        duration_s: from the first request to the end of sending.
        latency_ms: of every answer, by status.
        lag_ms: how much later than due a request left; the generator's own limit (open loop only).
        errors: what went wrong, and how often: a lost connection, no answer, what `check` said.
    """

    duration_s: float = 0.0
    latency_ms: dict[int, list[float]] = field(default_factory=dict)
    lag_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def num_answers(self) -> int:
        """Answers of any status."""
        return sum(len(latencies) for latencies in self.latency_ms.values())

    def rate(self, status: int = 200) -> float:
        """Answers of a status a second."""
        return len(self.latency_ms.get(status, ())) / self.duration_s

    def describe(self) -> dict[str, Any]:
        """Returns counts, rates and percentiles as plain values."""
        return {
            "duration_s": round(self.duration_s, 2),
            "answers": {str(status): len(found) for status, found in sorted(self.latency_ms.items())},
            "rate": round(self.rate(), 1),
            "errors": dict(self.errors),
            "latency_ms": {str(status): quantiles(found) for status, found in self.latency_ms.items()},
            "lag_ms": quantiles(self.lag_ms) if self.lag_ms else None,
        }


def quantiles(values: list[float]) -> dict[str, float]:
    """Returns p50, p99, p99.9 and the maximum."""
    found = np.quantile(values, [0.5, 0.99, 0.999, 1.0])
    return dict(zip(("p50", "p99", "p99.9", "max"), np.round(found, 3).tolist(), strict=True))


def build_request(host: str, path: str, body: bytes = b"", *, method: str = "POST") -> bytes:
    """Returns a whole request with a JSON body."""
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


async def drive_open(
    target: Target, *, rate: float, duration_s: float, seed: int = 0, max_connections: int = 1000
) -> LoadReport:
    """Sends at Poisson moments, `rate` a second on average, whatever comes back.

    Args:
        target: of the requests.
        rate: requests a second.
        duration_s: how long to send; answers are awaited a while longer.
        seed: of the moments.
        max_connections: a request that finds all of them busy counts as the error `no_connection`.
    """
    driver = _Driver(target, max_connections)
    generator = random.Random(seed)
    begin = due = time.perf_counter()
    while True:
        due += generator.expovariate(rate)
        if due - begin > duration_s:
            break
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        driver.report.lag_ms.append((time.perf_counter() - due) * 1e3)
        await driver.send(due)
        if len(driver.report.lag_ms) % 16 == 0:
            await asyncio.sleep(0)  # late senders must read answers too
    driver.report.duration_s = time.perf_counter() - begin
    await driver.finish()
    return driver.report


async def drive_closed(target: Target, *, connections: int, duration_s: float) -> LoadReport:
    """Keeps every connection busy: each sends its next request when it has its answer."""
    driver = _Driver(target, connections)
    begin = time.perf_counter()
    driver.again_until = begin + duration_s
    for _ in range(connections):
        await driver.send(time.perf_counter())
    await asyncio.sleep(max(driver.again_until - time.perf_counter(), 0))
    driver.report.duration_s = time.perf_counter() - begin
    await driver.finish()
    return driver.report


class _Driver:
    """The connections of one run, and what came of them."""

    def __init__(self, target: Target, max_connections: int) -> None:
        self.target = target
        self.report = LoadReport()
        self.again_until = 0.0
        self._max_connections = max_connections
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()

    async def send(self, due: float) -> None:
        """Sends the next request on a connection that is free, or on a new one."""
        if not self._idle and not await self._connect():
            return
        connection = self._idle.pop()
        self._busy.add(connection)
        connection.send(next(self.target.requests), due)

    async def _connect(self) -> bool:
        if len(self._busy) >= self._max_connections:
            self.report.errors["no_connection"] += 1
            return False
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self), self.target.host, self.target.port
            )
        except OSError as error:
            self.report.errors[type(error).__name__] += 1
            return False
        self._idle.append(connection)
        return True

    def take(self, connection: "_Connection", status: int, body: bytes) -> None:
        """Notes an answer; in a closed loop the next request follows."""
        now = time.perf_counter()
        self.report.latency_ms.setdefault(status, []).append((now - connection.due) * 1e3)
        if self.target.check is not None and (wrong := self.target.check(status, body)):
            self.report.errors[wrong] += 1
        if connection.is_last:
            self._busy.discard(connection)
            connection.close()
        elif now < self.again_until:
            connection.send(next(self.target.requests), now)
        else:
            self._busy.discard(connection)
            self._idle.append(connection)

    def lose(self, connection: "_Connection") -> None:
        """Notes that a connection ended; one that was waited on is an error."""
        if connection in self._busy:
            self._busy.discard(connection)
            self.report.errors["connection_lost"] += 1
        elif connection in self._idle:
            self._idle.remove(connection)

    async def finish(self) -> None:
        """Waits for the answers that are due, and closes the connections."""
        self.again_until = 0.0
        end = time.perf_counter() + _DRAIN_S
        while self._busy and time.perf_counter() < end:
            await asyncio.sleep(0.01)
        if self._busy:
            self.report.errors["no_answer"] += len(self._busy)
        for connection in [*self._idle, *self._busy]:
            connection.close()


class _Connection(asyncio.Protocol):
    """One connection: one request at a time, its answer taken apart as it comes."""

    def __init__(self, driver: _Driver) -> None:
        self.due = 0.0
        self.is_last = False  # the server said that it closes the connection
        self._driver = driver
        self._transport: Any = None
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._driver.lose(self)

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(_END_OF_HEAD)
        if end < 0:
            return
        head = self._received[:end].lower()
        self.is_last = _CLOSE in head
        at = head.find(_LENGTH)
        length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        start = end + len(_END_OF_HEAD)
        if len(self._received) < start + length:
            return
        body, self._received = self._received[start : start + length], b""
        self._driver.take(self, int(head[9:12]), body)
