"""Processes that listen: granian around the application, N of them on one port, stopped gracefully.

Each process builds its own objects. They are started afresh and not forked: what the command line has
imported runs threads, which a fork would lose. They share the port by SO_REUSEPORT, which would let in those
of another `forecart serve` too, so the port must be free when they start, and they end with their parent.
"""

import errno
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from forecart.errors import ConfigError, ForecartError
from forecart.serving.asgi import HttpApp
from forecart.serving.cores import require_cores, stay_on_core
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
_LOOK_S: Final = 0.2
"""How often a process looks whether its parent is still there."""
_LOOK_AT_MARK_S: Final = 0.05
"""And whether it is to drain."""
_MAX_CONNECTIONS: Final = 8192
"""Of one process. The next one waits until another closes, unlike a request too many, which is refused."""


@dataclass(frozen=True)
class Listen:
    """Where to listen.

    Attributes:
        host: address to bind to.
        port: to bind to.
        workers: processes.
        pinned: each of them stays on a core of its own (`serving/cores.py`).
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    pinned: bool = False


def load(launch: Launch) -> HttpApp:
    """Returns the application, in the process that serves it."""
    from forecart.serving.app import build_app  # not in the process that only starts others
    from forecart.serving.parts import build_parts

    return build_app(build_parts(launch))


def serve(launch: Launch, listen: Listen, *, load: Callable[[Launch], HttpApp] = load) -> None:
    """Serves until SIGTERM or SIGINT, finishes what it has begun, and returns.

    At SIGTERM it goes on for `drain_s`, each answer closing its connection: a client that keeps connections
    would otherwise send on one that is being closed, and lose the request.

    Args:
        launch: what to serve.
        listen: where.
        load: returns the application; a function of a module.

    Raises:
        ConfigError: the port is taken, there is no such address, or not a core for each process.
    """
    if listen.pinned:
        require_cores(listen.workers)
    multiprocessing.set_start_method("spawn", force=True)
    with _hold_port(listen), tempfile.TemporaryDirectory(prefix="forecart-serve-") as folder:
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
        mark = Path(folder) / "draining"
        server.on_startup(lambda: _drain_first(mark, launch.settings.drain_s))
        cores = Path(folder) if listen.pinned else None
        tied = partial(_load_tied, partial(load, launch), os.getpid(), mark, cores)
        server.serve(target_loader=tied, wrap_loader=False)


@contextmanager
def _hold_port(listen: Listen) -> Iterator[None]:
    """Takes the port from others, those that would share it too, and leaves it to processes that share it."""
    try:
        family, *_, address = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what has just closed is no obstacle
            probe.bind(address)
    except OSError as error:
        place = f"port {listen.port} of {listen.host}"
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"{place} must be free, something listens there: stop it, or name another with --port"
            ) from None
        raise ConfigError(f"{place} is nowhere to listen: {error.strerror or error}") from None
    with socket.socket(family, socket.SOCK_STREAM) as holder:
        if sys.platform == "linux":  # elsewhere processes share one socket, and do not bind again
            # Bound and never listening: whoever else starts now finds the port taken before ours listen.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(address)
        yield


def _drain_first(mark: Path, drain_s: float) -> None:
    """Makes SIGTERM say that the end is near first, and mean it `drain_s` later."""
    stop: Any = signal.getsignal(signal.SIGTERM)

    def drain(number: int, frame: Any) -> None:
        try:
            mark.parent.mkdir(exist_ok=True)  # whoever tidies temporary folders may have been here
            mark.touch()
        except OSError:
            stop(number, frame)
            return
        timer = threading.Timer(drain_s, stop, (number, frame))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGTERM, drain)


def _load_tied(load: Callable[[], HttpApp], parent: int, mark: Path, cores: Path | None) -> HttpApp:
    """Returns the application, in a process that drains and ends with its parent, a killed one too."""
    if cores is not None and not stay_on_core(cores):
        threading.Thread(target=_wait_for_core, args=(cores,), name="core-watch", daemon=True).start()
    threading.Thread(target=_end_with, args=(parent,), name="parent-watch", daemon=True).start()
    app = load()
    threading.Thread(target=_drain_at, args=(mark, app.draining), name="drain-watch", daemon=True).start()
    return app


def _wait_for_core(cores: Path) -> None:
    while not stay_on_core(cores):
        time.sleep(_LOOK_S)


def _drain_at(mark: Path, draining: threading.Event) -> None:
    while not mark.exists():
        time.sleep(_LOOK_AT_MARK_S)
    draining.set()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)  # what has begun is answered
    time.sleep(_STOP_S)
    os._exit(1)
