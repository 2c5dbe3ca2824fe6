"""The engine of one machine: this process for one worker or one task, else processes beside it.

Processes are started afresh (spawn), so a program that runs work on several of them needs the usual
`if __name__ == "__main__":`. They end with this one, however it ends.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Final, Generic

from forecart.engine.contract import (
    MAX_RETRIES,
    Done,
    Result,
    State,
    Task,
    Work,
    do_task,
    make_done,
    naming,
    one_thread_environment,
    too_many_deaths,
)

_INTERRUPTED: Final = 130


class LocalEngine:
    """Runs tasks on this machine.

    Processes are started at the first tasks that need them and kept for the next work, until `close`.

    Args:
        num_workers: processes; with one, tasks are done in this process.
    """

    def __init__(self, num_workers: int = 1) -> None:
        self._num_workers = num_workers
        self._pool: ProcessPoolExecutor | None = None

    @property
    def name(self) -> str:
        """`local`."""
        return "local"

    @property
    def num_workers(self) -> int:
        """How many processes there are at most."""
        return self._num_workers

    def run(
        self,
        work: Work[State, Task, Result],
        tasks: Sequence[Task],
        *,
        report: Callable[[int, int], None] | None = None,
    ) -> Iterator[Done[Result]]:
        """Yields every task when it is done: see the contract."""
        is_here = min(self._num_workers, len(tasks)) <= 1
        results = _run_here(work, tasks) if is_here else _InProcesses(self, work, tasks).run()
        for number, done in enumerate(results, start=1):
            if report is not None:
                report(number, len(tasks))
            yield done

    def pool(self) -> ProcessPoolExecutor:
        """Returns the processes."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._num_workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin_worker,
            )
        return self._pool

    def close(self) -> None:
        """Ends the processes, after what they have in hand; more work starts others."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _run_here(work: Work[State, Task, Result], tasks: Sequence[Task]) -> Iterator[Done[Result]]:
    if not tasks:
        return
    started_s = time.process_time()
    state = work.open() if work.here is None else work.here
    for number, task in enumerate(tasks):
        with naming(work, task):
            value = work.do(state, task)
        yield make_done(number, value, time.process_time() - started_s)
        started_s = time.process_time()


class _InProcesses(Generic[State, Task, Result]):
    """Tasks on the processes of an engine: what is to be done yet, and how often workers died under it."""

    def __init__(self, engine: LocalEngine, work: Work[State, Task, Result], tasks: Sequence[Task]) -> None:
        self.engine, self.work, self.tasks = engine, work, tasks
        self.waiting = list(reversed(range(len(tasks))))
        self.deaths: dict[int, int] = {}

    def run(self) -> Iterator[Done[Result]]:
        try:
            with one_thread_environment():
                while self.waiting:
                    yield from self._run_until_a_death()
        except BaseException:
            self.engine.close()  # nothing may write on for work that was given up
            raise

    def _run_until_a_death(self) -> Iterator[Done[Result]]:
        """Yields until everything is done or a process dies, which is the end of all of them."""
        running: dict[Future[Done[Result]], int] = {}
        try:
            while self.waiting or running:
                # Who died is not told: those that were running then are done alone until one is known for it.
                most = 1 if self.deaths else self.engine.num_workers
                while self.waiting and len(running) < most:
                    running[self._submit(self.waiting[-1])] = self.waiting[-1]
                    self.waiting.pop()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    number = running[future]
                    with naming(self.work, self.tasks[number]):
                        done = future.result()
                    del running[future]
                    self.deaths.pop(number, None)
                    yield done
        except BrokenProcessPool:
            self.engine.close()
            yield from self._sort_out(running)

    def _submit(self, number: int) -> Future[Done[Result]]:
        return self.engine.pool().submit(do_task, self.work.open, self.work.do, number, self.tasks[number])

    def _sort_out(self, running: dict[Future[Done[Result]], int]) -> Iterator[Done[Result]]:
        """Yields what was done before the pool broke and puts the rest back, to be done first."""
        wait(running)
        for future, number in running.items():
            if future.exception() is None:
                yield future.result()
                continue
            self.deaths[number] = self.deaths.get(number, 0) + 1
            if self.deaths[number] > MAX_RETRIES:
                raise too_many_deaths(self.work.name, self.tasks[number])
            self.waiting.append(number)


def _begin_worker() -> None:
    # Whoever interrupts the parent does not wait for tasks; nobody tells a worker when the parent is killed.
    signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        with suppress(OSError):
            parent.join()
        os._exit(1)
