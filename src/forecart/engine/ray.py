"""The engine of several machines: tasks of a Ray cluster, which sees the run's folder by the same path.

A task goes to any machine with a free core and is given to another one when its worker or its machine dies.
Ray is the extra `ray`; nothing of it is loaded before an engine is opened.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from forecart.engine.contract import (
    MAX_RETRIES,
    Done,
    Result,
    State,
    Task,
    Work,
    do_task,
    naming,
    one_thread_environment,
    too_many_deaths,
)
from forecart.errors import EngineError

_THIS_MACHINE: Final = "local"
_PATIENCE_S: Final = 10.0
_STORE_BYTES: Final = 512 << 20
"""Results are a few megabytes; by default Ray takes a third of a machine's memory for them."""


@dataclass(frozen=True)
class RayEngine:
    """Runs tasks on the cluster that this process is connected to.

    Attributes:
        ray: the module, connected.
        num_workers: tasks at once.
    """

    ray: Any
    num_workers: int

    @property
    def name(self) -> str:
        """`ray`."""
        return "ray"

    def run(
        self,
        work: Work[State, Task, Result],
        tasks: Sequence[Task],
        *,
        report: Callable[[int, int], None] | None = None,
    ) -> Iterator[Done[Result]]:
        """Yields every task when it is done: see the contract."""
        remote = self.ray.remote(do_task).options(name=work.name, num_cpus=1, max_retries=MAX_RETRIES)
        waiting, running = list(reversed(range(len(tasks)))), dict[Any, int]()
        try:
            while waiting or running:
                while waiting and len(running) < self.num_workers:
                    number = waiting.pop()
                    running[remote.remote(work.open, work.do, number, tasks[number])] = number
                (reference, *_), _ = self.ray.wait(list(running))
                number = running.pop(reference)
                done = self._get(reference, work, tasks[number])
                if report is not None:
                    report(len(tasks) - len(waiting) - len(running), len(tasks))
                yield done
        finally:
            for reference in running:
                self.ray.cancel(reference, force=True)

    def _get(self, reference: Any, work: Work[State, Task, Result], task: Task) -> Done[Result]:
        errors = self.ray.exceptions
        try:
            done: Done[Result] = self.ray.get(reference)
        except errors.RayTaskError as error:
            with naming(work, task):
                raise error.cause from None
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError):
            raise too_many_deaths(work.name, task) from None
        except errors.RayError as error:
            raise EngineError(f"the Ray cluster failed while {work.name}, with {task}: {error}") from None
        return done


@contextmanager
def opened_ray(*, num_workers: int | None, address: str | None) -> Iterator[RayEngine]:
    """Connects to a cluster, and leaves it at the end.

    Args:
        num_workers: tasks at once; as many as the cluster has cores when not given.
        address: of a cluster; else that of `RAY_ADDRESS`; without either one is started on this machine.

    Raises:
        EngineError: Ray is not installed, or there is no cluster at the address.
    """
    ray = _import_ray()
    address = address or os.environ.get("RAY_ADDRESS") or _THIS_MACHINE
    own = {"num_cpus": num_workers, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
    try:
        _knock(address)
        with one_thread_environment():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **(own if address == _THIS_MACHINE else {}),
            )
    except Exception as error:  # what Ray raises here has no class of its own, a late start among it
        raise EngineError(
            f"a Ray cluster was expected at {address}, none answers ({error}): start one with "
            "`ray start --head`"
        ) from None
    try:
        yield RayEngine(ray, num_workers or int(ray.cluster_resources()["CPU"]))
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Fails at once where nobody listens: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "//" not in host:
        socket.create_connection((host, int(port)), _PATIENCE_S).close()


def _import_ray() -> Any:
    # Nothing leaves the machine that nobody asked for.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise EngineError(
            f"the engine ray needs {error.name}, which is not installed; run: pip install 'forecart[ray]'"
        ) from None
    return ray
