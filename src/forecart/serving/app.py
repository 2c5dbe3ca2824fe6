"""The endpoints: what each path takes and gives, around the service. Thin on purpose.

Answers come from one `CandidateService`. Where the store is behind a connection, its reads happen on a few
threads and within the budget of a request; a read that takes longer goes on alone, and the request is
answered without it.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec

from forecart.serving.answers import AdvertiserAsk
from forecart.serving.asgi import Bounds, Handler, HttpApp, Incoming, Reply
from forecart.serving.ladder import Reading
from forecart.serving.parts import Parts
from forecart.serving.telemetry import METRICS_TYPE

_US = 1e6
_MIN_STORE_S = 0.001
"""With less time than that a store is not asked."""


class App:
    """The handlers of one process.

    Args:
        parts: what they stand on.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._service = parts.service
        self._decode_advertisers = msgspec.json.Decoder(AdvertiserAsk).decode
        self._encode = msgspec.json.Encoder().encode
        self._threads: ThreadPoolExecutor | None = None

    def routes(self) -> dict[str, dict[str, Handler]]:
        """Returns path -> method -> handler."""
        return {
            "/v1/advertisers": {"POST": self.advertisers},
            "/healthz": {"GET": self.health},
            "/readyz": {"GET": self.ready},
            "/metrics": {"GET": self.metrics},
        }

    def start(self) -> None:
        """Opens the release that is served, and follows from then on."""
        parts = self._parts
        if parts.is_remote:
            self._threads = ThreadPoolExecutor(parts.settings.store_threads, "store")
        parts.follower.start()
        parts.log.info("serving", problem=parts.follower.problem)

    def stop(self) -> None:
        """Gives everything back, after the last answer."""
        self._parts.follower.stop()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        self._parts.store.close()
        self._parts.log.info("stopped")

    async def advertisers(self, incoming: Incoming) -> Reply:
        """The advertisers that a user will convert with next."""
        begin = time.perf_counter()
        ask = self._decode_advertisers(incoming.body)
        answer = self._service.advertisers(ask, await self._read(ask))
        self._parts.telemetry.answered(
            incoming.path, time.perf_counter() - begin, answer.source, answer.degraded
        )
        return Reply(self._encode(answer))

    async def _read(self, ask: AdvertiserAsk) -> Reading:
        if self._threads is None:
            return self._service.read(ask)
        settings = self._parts.settings
        budget_s = min(settings.store_budget_ms, ask.deadline_ms or settings.deadline_ms) / 1e3
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
        follower = self._parts.follower
        served = follower.served
        opened = served.current or served.previous
        state = {
            "release": None if opened is None else opened.release.release_id,
            "problem": follower.problem,
            "store": self._parts.breaker.state,
        }
        return Reply(self._encode(state), 503 if opened is None else 200)

    async def metrics(self, incoming: Incoming) -> Reply:
        """Metrics for Prometheus."""
        current = self._parts.follower.served.current
        self._parts.telemetry.observe_state(
            release_age_s=None if current is None else self._parts.age_s(current),
            breaker=self._parts.breaker.state,
        )
        return Reply(self._parts.telemetry.render(), media_type=METRICS_TYPE)


def build_app(parts: Parts) -> HttpApp:
    """Returns the application."""
    app = App(parts)
    settings = parts.settings
    return HttpApp(
        app.routes(),
        bounds=Bounds(settings.max_in_flight, settings.max_body_bytes),
        lifespan=(app.start, app.stop),
        observe=parts.telemetry.replied,
        complain=lambda error: parts.log.error("unexpected", error=type(error).__name__),
    )
