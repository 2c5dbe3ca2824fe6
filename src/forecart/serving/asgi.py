"""HTTP without a framework: fixed paths to handlers, a body of bounded size in, a reply out.

Everything that protects the process is here, before any handler: compressed bodies are refused, bodies have a
limit, and of the requests above `max_in_flight` each gets 503 with Retry-After at once, which costs a
fraction of an answer. The application is plain ASGI; docs/adr/0012 says why there is no framework.
"""

import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from forecart.serving.answers import Problem

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]
JSON: Final = b"application/json"
_DROPPED_BYTES: Final = 8 << 20
_CLOSE: Final[Headers] = ((b"connection", b"close"),)
_RETRY_AFTER: Final[Headers] = ((b"retry-after", b"1"),)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request.

    Attributes:
        path: of the request.
        headers: by name in lower case.
        body: all of it.
    """

    path: str
    headers: Mapping[bytes, bytes]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered."""

    body: bytes
    status: int = 200
    media_type: bytes = JSON
    headers: Headers = ()


class HttpError(Exception):
    """A request that gets no answer, with the status that says why."""

    def __init__(self, status: int, error: str, headers: Headers = ()) -> None:
        super().__init__(error)
        self.reply = Reply(msgspec.json.encode(Problem(error)), status, headers=headers)


Handler = Callable[[Incoming], Awaitable[Reply]]


@dataclass(frozen=True)
class Route:
    """An endpoint.

    Attributes:
        method: of HTTP.
        path: fixed, without parameters.
        handler: that answers; its docstring describes the endpoint.
        takes: what its body is.
        gives: what its reply is.
        scope: what a token must be for; None where none is needed.
    """

    method: str
    path: str
    handler: Handler
    takes: Any = None
    gives: Any = None
    scope: str | None = None


Observe = Callable[[str, int], None]
"""Called with the path of a request, `other` where there is no such path, and the status of its reply."""


@dataclass(frozen=True)
class Bounds:
    """What one process takes on.

    Attributes:
        max_in_flight: requests at a time.
        max_body_bytes: of each.
    """

    max_in_flight: int
    max_body_bytes: int


class HttpApp:
    """An ASGI application.

    Args:
        routes: the endpoints.
        bounds: what it takes on at a time.
        lifespan: called when the process begins to serve, and when it has stopped.
        observe: called after every reply.
        complain: called with an error that nobody expected.
        draining: set when the process is about to stop; from then on every reply closes its connection.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        bounds: Bounds,
        lifespan: tuple[Callable[[], None], Callable[[], None]],
        observe: Observe,
        complain: Callable[[Exception], None],
        draining: threading.Event,
    ) -> None:
        self._routes: dict[str, dict[str, Handler]] = {}
        for route in routes:
            self._routes.setdefault(route.path, {})[route.method] = route.handler
        self._bounds = bounds
        self._start, self._stop = lifespan
        self._observe = observe
        self._complain = complain
        self.num_in_flight = 0
        self.draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or follows the life of the process."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        path = scope["path"]
        if self.num_in_flight >= self._bounds.max_in_flight:
            reply = _OVERLOADED
        else:
            self.num_in_flight += 1
            try:
                reply = await self._reply(scope, receive)
            finally:
                self.num_in_flight -= 1
        await _send(reply, send, _CLOSE if self.draining.is_set() else ())
        self._observe(path if path in self._routes else "other", reply.status)

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        try:
            handler = self._find_handler(scope["path"], scope["method"])
            headers = dict(scope["headers"])
            body = await self._read_body(headers, receive)
            return await handler(Incoming(scope["path"], headers, body))
        except HttpError as error:
            return error.reply
        except msgspec.MsgspecError as error:
            return HttpError(400, str(error)).reply
        except RecursionError:
            return HttpError(400, "the body is nested too deeply").reply
        except Exception as error:
            self._complain(error)
            return HttpError(500, "internal error").reply

    def _find_handler(self, path: str, method: str) -> Handler:
        methods = self._routes.get(path)
        if methods is None:
            raise HttpError(404, "there is no such path")
        handler = methods.get(method)
        if handler is None:
            allowed = ", ".join(methods).encode()
            raise HttpError(405, "the path does not take this method", ((b"allow", allowed),))
        return handler

    async def _read_body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise HttpError(415, "a body must not be compressed")
        limit, body, num_bytes = self._bounds.max_body_bytes, b"", 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise HttpError(400, "the request ended before its body")
            piece: bytes = message.get("body", b"")
            num_bytes += len(piece)
            is_last = not message.get("more_body")
            if num_bytes > limit:
                # Who is cut off in the middle of sending never reads why: what comes is dropped for a while.
                body = b""
                if is_last or num_bytes > _DROPPED_BYTES:
                    raise HttpError(413, f"a body has at most {limit} bytes")
                continue
            body += piece
            if is_last:
                return body

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._start()
                await send({"type": "lifespan.startup.complete"})
            else:
                self._stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


async def _send(reply: Reply, send: Send, more: Headers) -> None:
    headers = [
        (b"content-type", reply.media_type),
        (b"content-length", str(len(reply.body)).encode()),
        *reply.headers,
        *more,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


_OVERLOADED: Final = HttpError(503, "too many requests at once: come again", _RETRY_AFTER).reply
