"""How fast beside peers, in one run: `python -m benchmarks.speed FILE --name ml-1m --peer NAME=PYTHON`.

FILE is Parquet with user_id, item_id and pos. The last two events of each user are put aside; forecart and
the peers learn from the same rest, on one thread each, in turns: while one works the others wait. A turn is
an epoch, or of a peer `--round-cpu-s` CPU-seconds, which bounds its cost where an epoch takes long. After
each turn everybody's top 100 without the seen ones are listed, and NDCG@10 of the last event but one
(validation) is taken from those lists by the same code. forecart stops when it has reached the goal, a peer
when it has or when it has spent `--patience` times the CPU-seconds that forecart needed. `--peer` may be
repeated; each runs in an environment of its own, which its script in `benchmarks/peers` says how to make, and
options after PYTHON are the script's: `--peer 'pmixer_sasrec=PYTHON --checkout PATH'`. Without it there is
only forecart.

What to know when reading the figures: forecart's settings were chosen on these validation events (docs/log.md
says of how many), a peer has its own defaults but for width, depth, heads and length; one seed each.
forecart's clock begins with the file, a peer's with its first step (of RecTools with the call of fit). Writes
`speed-NAME.json`, settings included.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.figures import RESULTS
from benchmarks.known_peers import add_peers, check_names
from forecart import artifacts
from forecart.bench import NUM_PREDICTED, hide_latest, num_after
from forecart.evaluation.provenance import read_provenance


class Competitor:
    """One system in a process of its own that learns an epoch for each line it is sent."""

    def __init__(self, name: str, command: Sequence[str | Path], output: Path, target: pl.DataFrame) -> None:
        self.name, self.output, self.target = name, output, target
        self.rounds: list[dict[str, Any]] = []
        output.mkdir(parents=True, exist_ok=True)
        self._stderr = (output / "stderr.log").open("w")
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"), "1"),
        )

    def run_round(self) -> dict[str, Any] | None:
        """Returns what the system says of its next round with the metrics of its lists; None at its end.

        Raises:
            RuntimeError: it ended with an error.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, well or not
        for line in self._process.stdout:
            if line.startswith("{"):
                done: dict[str, Any] = json.loads(line)
                lists = pl.read_parquet(self.output / f"lists-{done['round']}.parquet")
                done |= measure_lists(lists, self.target)
                self.rounds.append(done)
                print(f"{self.name}: {json.dumps(done)}", flush=True)
                return done
        if code := self._process.wait():
            raise RuntimeError(f"{self.name} ended with {code}: see {self.output / 'stderr.log'}")
        return None

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        with suppress(BrokenPipeError):
            self._process.communicate()
        self._stderr.close()

    @property
    def spent_cpu_s(self) -> float:
        """CPU-seconds of learning so far."""
        return float(self.rounds[-1]["fit_cpu_s"]) if self.rounds else 0.0

    def first_with(self, ndcg: float) -> dict[str, Any] | None:
        """Returns the first round whose lists reach this NDCG@10."""
        return next((one for one in self.rounds if one["ndcg_at_10"] >= ndcg), None)


def measure_lists(lists: pl.DataFrame, target: pl.DataFrame) -> dict[str, float]:
    """Returns HR@10 and NDCG@10, means over every user of `target`, one relevant item each."""
    ids = pl.col("user_id", "item_id").cast(pl.String)
    top = lists.filter(pl.col("rank") <= 10).with_columns(ids)
    hits = target.with_columns(ids).join(top, on=["user_id", "item_id"], how="inner")
    gains = hits.select((1 / (pl.col("rank") + 1).log(2)).sum()).item()
    return {"hit_rate_at_10": hits.height / target.height, "ndcg_at_10": gains / target.height}


def split_sequences(path: Path, train: Path) -> pl.DataFrame:
    """Writes all but the last two events of each user and returns the last but one."""
    rows = pl.read_parquet(path, columns=["user_id", "item_id", "pos"]).sort("user_id", "pos")
    artifacts.write_parquet(train, hide_latest(rows, NUM_PREDICTED))
    return rows.filter(num_after() == 1).select("user_id", "item_id")


def race(ours: Competitor, peers: Sequence[Competitor], *, goal: float, patience: float) -> None:
    """Turn by turn until forecart has the goal; then the peers until each has, or has spent enough."""
    waiting = list(peers)

    def run_turn() -> None:
        for peer in tuple(waiting):
            if peer.run_round() is None or peer.first_with(goal) is not None:
                waiting.remove(peer)

    while ours.first_with(goal) is None and ours.run_round() is not None:
        run_turn()
    spent = (ours.first_with(goal) or ours.rounds[-1])["fit_cpu_s"]
    while waiting := [peer for peer in waiting if peer.spent_cpu_s < patience * spent]:
        run_turn()


def summarise(competitor: Competitor, goal: float) -> dict[str, Any]:
    """Returns what it took to reach the goal, the best it reached, and how fast it lists everyone."""
    rounds = competitor.rounds
    reached = competitor.first_with(goal)
    epochs = [
        (after["fit_cpu_s"] - before["fit_cpu_s"]) / (after["epochs"] - before["epochs"])
        for before, after in pairwise(rounds)
    ]
    return {
        "cpu_s_to_goal": None if reached is None else reached["fit_cpu_s"],
        "cpu_s_spent": rounds[-1]["fit_cpu_s"],
        "best_ndcg_at_10": max(one["ndcg_at_10"] for one in rounds),
        "cpu_s_per_epoch": statistics.median(epochs) if epochs else None,
        "users_per_s": statistics.median(one["num_users"] / one["recommend_s"] for one in rounds),
        "users_per_cpu_s": statistics.median(one["num_users"] / one["recommend_cpu_s"] for one in rounds),
        "peak_memory_gb": rounds[-1]["peak_memory_gb"],
        "rounds": rounds,
    }


def compare(ours: Competitor, peers: Sequence[Competitor], goal: float) -> dict[str, Any]:
    """Returns the summary of everyone, how many times a peer's speed ours is, and what the goal took each."""
    summaries = {one.name: summarise(one, goal) for one in (ours, *peers)}
    own = summaries.pop(ours.name)
    return {
        "goal": goal,
        ours.name: own,
        "peers": summaries,
        "ratios": {
            name: {speed: own[speed] / summary[speed] for speed in ("users_per_s", "users_per_cpu_s")}
            for name, summary in summaries.items()
        },
        "cpu_s_to_goal": {
            name: summary["cpu_s_to_goal"] for name, summary in ((ours.name, own), *summaries.items())
        },
    }


def start(asked: argparse.Namespace, folder: Path) -> tuple[Competitor, list[Competitor]]:
    """Returns forecart and the peers, all waiting for their first turn."""
    train = folder / "train.parquet"
    target = split_sequences(asked.file, train)
    module = [sys.executable, "-m", "benchmarks.peers.forecart_sequences", train, folder / "forecart"]
    settings = ["--model", asked.model, "--training", asked.training]
    ours = Competitor("forecart", [*module, *settings], folder / "forecart", target)
    peers = [
        Competitor(
            peer.name,
            [*peer.command(round_cpu_s=asked.round_cpu_s), train, folder / peer.name],
            folder / peer.name,
            target,
        )
        for peer in asked.peer
    ]
    return ours, peers


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--name", required=True, help="of the data set")
    add_peers(parser)
    parser.add_argument("--round-cpu-s", type=float, help="of a peer's turn, in place of an epoch")
    parser.add_argument("--goal", type=float, default=0.18, help="validation NDCG@10")
    parser.add_argument("--patience", type=float, default=5.0, help="times the CPU-seconds of forecart")
    parser.add_argument("--model", default="{}", help="forecart's settings as JSON, over the chosen ones")
    parser.add_argument("--training", default="{}", help="likewise")
    parser.add_argument("--output", type=Path, help="runs/speed-NAME by default")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures are written")
    asked = parser.parse_args()
    check_names(parser, asked.peer)
    if not asked.file.exists():
        print(f"skipped: there are no sequences at {asked.file}")
        return
    folder = asked.output or Path("runs") / f"speed-{asked.name}"
    # A race begins at the start: nothing that an earlier one has learned is gone on with.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ours, peers = start(asked, folder)
    try:
        race(ours, peers, goal=asked.goal, patience=asked.patience)
    finally:
        for one in (ours, *peers):
            one.stop()
    result = {"provenance": read_provenance(), **compare(ours, peers, asked.goal)}
    artifacts.write_json(asked.results / f"speed-{asked.name}.json", result)
    print(f"run: {json.dumps(result['provenance'])}")
    for one in (ours, *peers):
        summary = {key: value for key, value in summarise(one, asked.goal).items() if key != "rounds"}
        print(f"{one.name}, in all: {json.dumps(summary)}")


if __name__ == "__main__":
    main()
