"""Processes that listen: granian around the application, N of them on one port, stopped gracefully.

Each process builds its own objects. They are started afresh and not forked: what the command line has
imported runs threads, which a fork would lose.
"""

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from forecart.errors import ForecartError
from forecart.serving.launch import METRICS_FOLDER, Launch

try:
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces
    from granian.log import LogLevels
except ModuleNotFoundError:  # pragma: no cover
    raise ForecartError(
        "serving needs granian and others, which are not installed; run: pip install 'forecart[serve]'"
    ) from None

_STOP_S: Final = 8
"""A process that has not stopped by then is killed."""
_MAX_CONNECTIONS: Final = 8192
"""Of one process. The next one waits until another closes, unlike a request too many, which is refused."""


@dataclass(frozen=True)
class Listen:
    """Where to listen.

    Attributes:
        host: address to bind to.
        port: to bind to.
        workers: processes.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1


def load(launch: Launch) -> Any:
    """Returns the application, in the process that serves it."""
    from forecart.serving.app import build_app  # not in the process that only starts others
    from forecart.serving.parts import build_parts

    return build_app(build_parts(launch))


def serve(launch: Launch, listen: Listen, *, load: Callable[[Launch], Any] = load) -> None:
    """Serves until SIGTERM or SIGINT; then takes no more requests, finishes those it has, and returns.

    Args:
        launch: what to serve.
        listen: where.
        load: returns the application, an ASGI callable; a function of a module.
    """
    multiprocessing.set_start_method("spawn", force=True)
    with tempfile.TemporaryDirectory(prefix="forecart-metrics-") as folder:
        if listen.workers > 1:
            os.environ[METRICS_FOLDER] = folder
        server = Granian(
            "forecart",
            address=listen.host,
            port=listen.port,
            workers=listen.workers,
            interface=Interfaces.ASGI,
            http=HTTPModes.http1,
            websockets=False,
            log_level=LogLevels.warning,
            respawn_failed_workers=True,
            backpressure=_MAX_CONNECTIONS,
            workers_kill_timeout=_STOP_S,
        )
        server.serve(target_loader=partial(load, launch), wrap_loader=False)
