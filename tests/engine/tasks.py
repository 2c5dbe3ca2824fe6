"""Tasks for engines: what they do shows in a folder, so that any process can see it."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from forecart.errors import DataError


@dataclass(frozen=True)
class Opening:
    """Gives the folder; notes that this process opened it."""

    folder: Path

    def __call__(self):
        note(self.folder / "opened", str(os.getpid()))
        return self.folder


def note(path, text):
    with path.open("a") as file:
        file.write(f"{text}\n")


def read_notes(path):
    return path.read_text().split() if path.exists() else []


def square(folder, task):
    return task * task


def refuse_odd(folder, task):
    if task % 2:
        raise DataError(f"a task is even, {task} arrived")
    return task


def die_on_three(folder, task):
    """Dies at the first attempt of task 3."""
    note(folder / "attempts", str(task))
    if task == 3 and read_notes(folder / "attempts").count("3") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return -task


def always_die_on_three(folder, task):
    note(folder / "attempts", str(task))
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return -task


def count_threads(folder, task):
    import polars as pl
    import torch

    return torch.get_num_threads(), pl.thread_pool_size()


def wait_for_ever(folder, task):
    note(folder / "waiting", str(os.getpid()))
    time.sleep(600)
