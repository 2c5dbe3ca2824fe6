"""What an engine is: one function over many tasks, in workers that compute with one thread each.

Takes work and task descriptions that can be sent to another process; gives results as they come. Tasks are
the same whatever the engine and the number of its workers, and so are the bytes that they write. A task may
be done twice, when the worker that had it dies: doing it again must leave the same files.
"""

import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

from forecart.errors import EngineError

State = TypeVar("State")
Task = TypeVar("Task")
Result = TypeVar("Result")

MAX_RETRIES: Final = 3
"""How often a task is given to another worker after the one that had it died."""
ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1"
)
"""The environment of a worker: sums depend on the number of threads, and workers already use every core."""


@dataclass(frozen=True)
class Work(Generic[State, Task, Result]):
    """What is done with every task.

    Attributes:
        name: in messages, such as "listing candidates".
        open: gives what all tasks need; called once in each worker. It is sent to them and hashed: let two
            that are equal give the same.
        do: takes what is open and a task; a function of a module, as it is sent by name.
        here: what `open` would give, where this process has it already; it is sent nowhere.
    """

    name: str
    open: Callable[[], State]
    do: Callable[[State, Task], Result]
    here: State | None = None


@dataclass(frozen=True)
class Given(Generic[State]):
    """Opens what is small enough to be sent as it is."""

    value: State

    def __call__(self) -> State:
        """Returns it."""
        return self.value


@dataclass(frozen=True)
class Done(Generic[Result]):
    """A task that is done.

    Attributes:
        number: its place among the tasks.
        value: what came of it.
        core_seconds: processor time of the worker since the task before, its start included.
        peak_bytes: the most memory that its process has held so far.
        worker: machine and process.
    """

    number: int
    value: Result
    core_seconds: float
    peak_bytes: int
    worker: str


class Engine(Protocol):
    """What runs work on tasks."""

    @property
    def name(self) -> str:
        """`local` or `ray`."""

    @property
    def num_workers(self) -> int:
        """Tasks that are done at once."""

    def run(
        self,
        work: Work[State, Task, Result],
        tasks: Sequence[Task],
        *,
        report: Callable[[int, int], None] | None = None,
    ) -> Iterator[Done[Result]]:
        """Yields every task when it is done, in whatever order that is.

        Args:
            work: what is done.
            tasks: what it is done with.
            report: called with (tasks done, tasks in all).

        Raises:
            EngineError: workers died under a task again and again, or there are none.
            Exception: what `open` or `do` raised, whatever it is, with the task in a note.
        """


def in_order(results: Iterator[Done[Result]]) -> Iterator[Result]:
    """Yields the values of results in the order of their tasks; those that came early wait in memory."""
    waiting: dict[int, Result] = {}
    wanted = 0
    for done in results:
        waiting[done.number] = done.value
        while wanted in waiting:
            yield waiting.pop(wanted)
            wanted += 1


@contextmanager
def naming(work: Work[State, Task, Result], task: Task) -> Iterator[None]:
    """Has what a task raises say which task it was."""
    try:
        yield
    except Exception as error:
        error.add_note(f"while {work.name}: {task}")
        raise


def too_many_deaths(name: str, task: Any) -> EngineError:
    """Returns the error of a task whose workers died `MAX_RETRIES` + 1 times."""
    return EngineError(
        f"a worker lives until its task is done, {MAX_RETRIES + 1} died while {name}, each with {task}: "
        "where memory is short, give fewer workers"
    )


@contextmanager
def one_thread_environment() -> Iterator[None]:
    """Has processes that are started meanwhile compute with one thread."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


# --- in a worker -------------------------------------------------------------------------------------------

_counted_s = 0.0


def do_task(
    open_: Callable[[], State], do: Callable[[State, Task], Result], number: int, task: Task
) -> Done[Result]:
    """Does one task in a worker, which opens what it needs at its first."""
    global _counted_s
    value = do(_open_once(open_), task)
    before_s, _counted_s = _counted_s, time.process_time()
    return make_done(number, value, _counted_s - before_s)


def make_done(number: int, value: Result, core_seconds: float) -> Done[Result]:
    """Returns a result with what this process has to say of itself."""
    return Done(number, value, core_seconds, read_peak_bytes(), worker_name())


def worker_name() -> str:
    """Returns machine and process."""
    return f"{platform.node()}/{os.getpid()}"


@lru_cache(maxsize=1)
def _open_once(open_: Callable[[], Any]) -> Any:
    return open_()


def read_peak_bytes() -> int:
    """Returns the most memory that this process has held at once."""
    status = Path("/proc/self/status")
    if status.exists():  # `getrusage` gives what the parent held, where that was more
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
