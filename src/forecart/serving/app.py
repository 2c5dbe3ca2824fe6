"""The endpoints: what each path takes and gives, around the service. Thin on purpose.

Answers come from one `CandidateService`. Where the store is behind a connection, its reads happen on a few
threads and within the budget of a request; a read that takes longer goes on alone, and the request is
answered without it.
"""

import asyncio
import gc
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from forecart.serving.admin import Admin
from forecart.serving.answers import (
    AdvertiserAnswer,
    AdvertiserAsk,
    CandidateAnswer,
    CandidateAnswers,
    CandidateAsk,
    CandidateBatch,
    Done,
    Readiness,
    encode,
    encode_lists,
)
from forecart.serving.asgi import Bounds, HttpApp, HttpError, Incoming, Reply, Route
from forecart.serving.ladder import Reading
from forecart.serving.openapi import describe_routes
from forecart.serving.openrtb import BidRequest, BidResponse, make_bids, read_ask, read_bid_request
from forecart.serving.parts import Parts
from forecart.serving.telemetry import METRICS_TYPE

_MIN_STORE_S: Final = 0.001
"""With less time than that a store is not asked."""
_REST_MS: Final = 5.0
"""What is kept of a deadline for everything but the store."""


class App:
    """The handlers of one process.

    Args:
        parts: what they stand on.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._service = parts.service
        self._decode_advertisers = msgspec.json.Decoder(AdvertiserAsk).decode
        self._decode_candidates = msgspec.json.Decoder(CandidateAsk).decode
        self._decode_batch = msgspec.json.Decoder(CandidateBatch).decode
        self._threads: ThreadPoolExecutor | None = None
        self._description = b""
        self.draining = threading.Event()

    def routes(self) -> list[Route]:
        """Returns the endpoints."""
        found = [
            Route("POST", "/v1/advertisers", self.advertisers, AdvertiserAsk, AdvertiserAnswer),
            Route("POST", "/v1/candidates", self.candidates, CandidateAsk, CandidateAnswer),
            Route("POST", "/v1/candidates:batch", self.batch, CandidateBatch, CandidateAnswers),
            Route("POST", "/openrtb", self.openrtb, BidRequest, BidResponse),
            *Admin(self._parts).routes(),
            Route("GET", "/healthz", self.health, gives=Done),
            Route("GET", "/readyz", self.ready, gives=Readiness),
            Route("GET", "/metrics", self.metrics),
            Route("GET", "/openapi.json", self.describe),
        ]
        self._description = msgspec.json.encode(describe_routes(found))
        return found

    def start(self) -> None:
        """Opens the release that is served, and follows from then on."""
        parts = self._parts
        if parts.is_remote:
            self._threads = ThreadPoolExecutor(parts.settings.store_threads, "store")
        parts.follower.start()
        if parts.outcomes is not None:
            parts.outcomes.start()
        # What lives as long as the process is never garbage: looking through it takes the time of a request.
        gc.collect()
        gc.freeze()
        parts.log.info("serving", problem=parts.follower.problem)

    def stop(self) -> None:
        """Gives everything back, after the last answer."""
        self._parts.follower.stop()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._parts.outcomes is not None:
            try:
                self._parts.outcomes.stop()
            except Exception as error:  # whatever it is, the rest is given back
                self._parts.log.error("outcomes_lost", error=type(error).__name__, reason=str(error))
        self._parts.store.close()
        self._parts.log.info("stopped")

    async def advertisers(self, incoming: Incoming) -> Reply:
        """The advertisers that a user will convert with next, eligible ones, without their ads."""
        begin = time.perf_counter()
        ask = self._decode_advertisers(incoming.body)
        answer = self._service.advertisers(ask, await self._read(ask))
        self._count(incoming, answer, begin)
        return Reply(encode_lists(answer))

    async def candidates(self, incoming: Incoming) -> Reply:
        """The ads that may be shown to a user now, best first."""
        begin = time.perf_counter()
        ask = self._decode_candidates(incoming.body)
        answer = self._service.candidates(ask, await self._read(ask))
        self._count(incoming, answer, begin)
        return Reply(encode(answer))

    async def batch(self, incoming: Incoming) -> Reply:
        """Several requests at once, each answered on its own."""
        begin = time.perf_counter()
        asks = self._decode_batch(incoming.body).requests
        most = self._parts.settings.max_batch
        if len(asks) > most:
            raise HttpError(400, f"a batch has at most {most} requests, {len(asks)} arrived")
        readings = await asyncio.gather(*[self._read(ask) for ask in asks])
        answers = []
        for ask, reading in zip(asks, readings, strict=True):
            answers.append(self._service.candidates(ask, reading))
            self._count(incoming, answers[-1], begin)
            await asyncio.sleep(0)  # others wait for an answer, not for a batch
        return Reply(encode(CandidateAnswers(answers)))

    async def openrtb(self, incoming: Incoming) -> Reply:
        """Bids for an OpenRTB 2.6 request; 204 where there is nothing to bid."""
        begin = time.perf_counter()
        request = read_bid_request(incoming.body)
        ask = read_ask(request)
        answer = self._service.candidates(ask, await self._read(ask))
        self._count(incoming, answer, begin)
        bids = make_bids(request, answer, max_cpm_usd=self._parts.settings.max_cpm_usd)
        return Reply(b"", 204) if bids is None else Reply(encode(bids))

    def _count(self, incoming: Incoming, answer: AdvertiserAnswer | CandidateAnswer, begin: float) -> None:
        seconds = time.perf_counter() - begin
        self._parts.telemetry.answered(incoming.path, seconds, answer.source, answer.degraded)

    async def _read(self, ask: AdvertiserAsk) -> Reading:
        if self._threads is None:
            return self._service.read(ask)
        settings = self._parts.settings
        left_ms = (ask.deadline_ms or settings.deadline_ms) - _REST_MS
        budget_s = min(settings.store_budget_ms, left_ms) / 1e3
        if budget_s < _MIN_STORE_S:
            return self._service.read_nothing("deadline")
        future = asyncio.get_running_loop().run_in_executor(self._threads, self._service.read, ask)
        try:
            return await asyncio.wait_for(future, budget_s)
        except TimeoutError:
            self._parts.breaker.fail()
            return self._service.read_nothing("store_timeout")

    async def health(self, incoming: Incoming) -> Reply:
        """The process lives."""
        return Reply(b'{"status":"ok"}')

    async def ready(self, incoming: Incoming) -> Reply:
        """There is a release to answer from."""
        readiness = self._parts.readiness()
        if self.draining.is_set():
            readiness.problem = "stopping"
            return Reply(encode(readiness), 503)
        return Reply(encode(readiness), 503 if readiness.release is None else 200)

    async def describe(self, incoming: Incoming) -> Reply:
        """This description."""
        return Reply(self._description)

    async def metrics(self, incoming: Incoming) -> Reply:
        """Metrics for Prometheus."""
        current, outcomes = self._parts.follower.served.current, self._parts.outcomes
        self._parts.telemetry.observe_state(
            release_age_s=None if current is None else self._parts.age_s(current),
            breaker=self._parts.breaker.state,
            outcomes_dropped=0 if outcomes is None else outcomes.num_dropped,
            outcomes_failures=0 if outcomes is None else outcomes.num_failures,
        )
        return Reply(self._parts.telemetry.render(), media_type=METRICS_TYPE)


def build_app(parts: Parts, *, more: Sequence[Route] = ()) -> HttpApp:
    """Returns the application, with more endpoints beside its own."""
    app = App(parts)
    settings = parts.settings
    return HttpApp(
        [*app.routes(), *more],
        bounds=Bounds(settings.max_in_flight, settings.max_body_bytes),
        lifespan=(app.start, app.stop),
        observe=parts.telemetry.replied,
        complain=lambda error: _complain(parts, error),
        draining=app.draining,
    )


def _complain(parts: Parts, error: Exception) -> None:
    """Logs what nobody expected and where, without its text: that may hold somebody's id."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(where.filename).name}:{where.lineno}"
    parts.log.error("unexpected", error=type(error).__name__, place=place)
