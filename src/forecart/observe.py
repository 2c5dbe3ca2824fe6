"""How long work tells of itself: stages, progress with an ETA, and remarks, on standard error.

A `Reporter` is handed down to whatever takes long; nothing below the command line prints on its own.
"""

import time
from typing import Final, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_INDENT: Final = " " * 11
# Where there is no terminal: how often work that takes long says that it goes on.
_TELL_EVERY_S: Final = 30.0


class Reporter(Protocol):
    """What long work calls."""

    def stage(self, name: str, *, is_done: bool = False) -> None:
        """Tells that a stage begins, or that it was found complete and is skipped."""

    def progress(self, label: str, done: int, total: int | None, note: str = "") -> None:
        """Tells how far one piece of work is; a new label or stage ends the piece before."""

    def say(self, text: str) -> None:
        """Tells a remark, also in the middle of a piece of work."""


class SilentReporter:
    """Tells nothing: for use as a library and in tests."""

    def stage(self, name: str, *, is_done: bool = False) -> None:
        """Does nothing."""

    def progress(self, label: str, done: int, total: int | None, note: str = "") -> None:
        """Does nothing."""

    def say(self, text: str) -> None:
        """Does nothing."""


class ConsoleReporter:
    """Tells on standard error: a bar on a terminal, a line for each finished piece of work elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._label, self._note = "", ""
        self._started_s = self._told_s = self._began_s = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end_piece(is_done=kind is None)

    def stage(self, name: str, *, is_done: bool = False) -> None:
        """Prints the stage's name and how long the whole run has taken so far."""
        self._end_piece()
        elapsed_s = time.perf_counter() - self._started_s
        self._print(f"[{elapsed_s:6.1f} s] {name}{': complete, skipped' if is_done else ''}")

    def progress(self, label: str, done: int, total: int | None, note: str = "") -> None:
        """Moves the bar of this piece of work."""
        if label != self._label:
            self._end_piece()
            self._begin_piece(label)
        self._note = note
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)
        elif time.perf_counter() - self._told_s >= _TELL_EVERY_S:
            self._tell_progress(done, total)

    def _tell_progress(self, done: int, total: int | None) -> None:
        self._told_s = time.perf_counter()
        place = f"{done:,}"
        if total and done:
            left_s = (total - done) * (self._told_s - self._began_s) / done
            place = f"{done:,} of {total:,}, about {left_s:.0f} s left"
        self._print(f"{_INDENT}{self._label}: {place} {self._note}".rstrip())

    def say(self, text: str) -> None:
        """Prints a line, above the bar where there is one."""
        self._print(f"{_INDENT}{text}")

    def _print(self, line: str) -> None:
        # Soft: a file or a pipe gets one line for one, however long.
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _begin_piece(self, label: str) -> None:
        self._label = label
        self._began_s = self._told_s = time.perf_counter()
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn(f"{_INDENT}{{task.description}}", markup=False),
                BarColumn(),
                TextColumn("{task.completed:,.0f}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(label, total=None, note="")
            self._bar.start()

    def _end_piece(self, *, is_done: bool = True) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._label:
            self._print(
                f"{_INDENT}{self._label}: {'done' if is_done else 'not finished'} {self._note}".rstrip()
            )
        self._bar, self._task, self._label, self._note = None, None, "", ""
