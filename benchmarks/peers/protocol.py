"""What the scripts of all peers share: the options, the rounds, the clocks, and the files of lists.

    yes | PYTHON benchmarks/peers/SCRIPT.py TRAIN.parquet OUTPUT

TRAIN has user_id, item_id, pos. Each line on standard input is a round: some learning, then
`OUTPUT/lists-R.parquet` with user_id, item_id, rank (from 1) of every user, seen items left out, and a line
of JSON on standard output that says what it took so far: CPU-seconds of learning alone, seconds of listing
alone, the peak memory. A round is `--epochs-a-round` epochs or, where an epoch takes too long, ends with the
first batch after `--round-cpu-s` CPU-seconds; then `epochs` of the line is no whole number.

With `--history NAME=FILE` the lists are those of the users of FILE, what comes next after it, written to
`OUTPUT/lists-R-NAME.parquet` with the column is_filtered: once with and once without the items of the history
(`benchmarks/peer_lists.py`); num_listed says of how many users.

Needs the standard library and polars only: a script is run by the Python of its peer's environment, in which
this folder is the one that modules are looked for in first.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import polars as pl

IsOver = Callable[[float], bool]
"""Asked after a batch, with the epochs learned since the beginning, whether the round ends here."""


class Learner(Protocol):
    """What a script gives: a system that learns in rounds and lists.

    Attributes:
        epochs: learned since the beginning.
        learned_from: the rows it learns from as `prepare` returns them.
    """

    epochs: float
    learned_from: Any

    def prepare(self, rows: pl.DataFrame) -> Any:
        """Returns rows (user_id, item_id, pos) as `recommend` takes them; this is not measured."""

    def learn(self, is_over: IsOver) -> None:
        """Learns until the round is over."""

    def recommend(self, history: Any, *, top_k: int, filters: Sequence[bool]) -> pl.DataFrame:
        """Returns user_id, item_id, rank, is_filtered of every user of a history that something is known of.

        Args:
            history: as `prepare` returns it.
            top_k: items of a list.
            filters: of each list of a user, whether the items of the history are left out.
        """


def build_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns the options of every peer."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs-a-round", type=int, default=1)
    parser.add_argument("--round-cpu-s", type=float, help="in place of epochs, rounded up to a batch")
    parser.add_argument("--top-k", type=int, default=100)
    parser.add_argument("--history", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def add_shape(parser: argparse.ArgumentParser) -> None:
    """Adds width, depth, heads and length of a transformer, by default those of our model."""
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--num-layers", type=int, default=2)
    parser.add_argument("--num-heads", type=int, default=4)
    parser.add_argument("--length", type=int, default=200)


def read_rows(path: Path) -> pl.DataFrame:
    """Returns user_id, item_id and pos of a file in the order of a user's events."""
    return pl.read_parquet(path, columns=["user_id", "item_id", "pos"]).sort("user_id", "pos")


def read_commit(checkout: Path) -> str:
    """Returns the commit of a checkout, as a version of what is no package."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def build_is_over(asked: argparse.Namespace, epochs_before: float) -> IsOver:
    """Returns what ends a round that begins now.

    Args:
        asked: the options of every peer.
        epochs_before: learned before this round.
    """
    began_cpu_s = time.process_time()

    def is_over(epochs: float) -> bool:
        if asked.round_cpu_s is None:
            return epochs - epochs_before >= asked.epochs_a_round
        return time.process_time() - began_cpu_s >= asked.round_cpu_s

    return is_over


def write_histories(
    learner: Learner, histories: dict[str, Any], asked: argparse.Namespace, number: int
) -> dict[str, int]:
    """Writes both lists of everyone in each history and returns of how many users each holds them."""
    num_listed = {}
    for name, history in histories.items():
        lists = learner.recommend(history, top_k=asked.top_k, filters=(False, True))
        num_listed[name] = lists["user_id"].n_unique()
        lists.write_parquet(asked.output / f"lists-{number}-{name}.parquet")
    return num_listed


def write_own(learner: Learner, asked: argparse.Namespace, number: int) -> dict[str, float]:
    """Writes the lists after what was learned from, without the seen, and returns how long listing took."""
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    lists = learner.recommend(learner.learned_from, top_k=asked.top_k, filters=(True,))
    took = {
        "recommend_s": time.perf_counter() - began_s,
        "recommend_cpu_s": time.process_time() - began_cpu_s,
    }
    lists.drop("is_filtered").write_parquet(asked.output / f"lists-{number}.parquet")
    return took


def serve(asked: argparse.Namespace, learner: Learner, *, versions: dict[str, str], num_threads: int) -> None:
    """Runs a round for each line of standard input, until it ends.

    Args:
        asked: the options, all of which but the paths are written as settings.
        learner: the peer.
        versions: of what it stands on, by name.
        num_threads: that it computes with.
    """
    asked.output.mkdir(parents=True, exist_ok=True)
    named = [one.split("=", 1) for one in asked.history]
    histories = {name: learner.prepare(read_rows(Path(path))) for name, path in named}
    num_users = pl.read_parquet(asked.train, columns=["user_id"])["user_id"].n_unique()
    fit_cpu_s = 0.0
    for number, _ in enumerate(sys.stdin, 1):
        began_cpu_s = time.process_time()
        learner.learn(build_is_over(asked, learner.epochs))
        fit_cpu_s += time.process_time() - began_cpu_s
        num_listed = write_histories(learner, histories, asked, number)
        took = {} if histories else write_own(learner, asked, number)
        line = {
            "round": number,
            "epochs": learner.epochs,
            "fit_cpu_s": fit_cpu_s,
            **took,
            "num_users": num_users,
            "num_listed": num_listed,
            "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
            "versions": versions,
            "num_threads": num_threads,
            "settings": {
                name: value for name, value in vars(asked).items() if isinstance(value, int | float | str)
            },
        }
        print(json.dumps(line), flush=True)


def read_versions(packages: Sequence[str]) -> dict[str, str]:
    """Returns the versions of installed packages."""
    return {name: metadata.version(name) for name in packages}
