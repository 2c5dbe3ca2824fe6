"""Training the item model against 20 million items: `python -m benchmarks.negative_pool`.

Makes two synthetic catalogues on disk (100 thousand items, and `--items`) with histories of the same users
over each, and trains the same item model on both through the project's own training loop, items read from a
store, `--draws` fresh negatives a step. Each catalogue is a process of its own; they take turns of `--block`
steps, a fourth of them on the small one, so that a busy machine slows both alike. For a few turns the small
catalogue is also trained the usual way, in memory. Prints steps a second, the ratio, the share of the time
that steps wait for their batch, and the peak of resident memory, mapped pages counted; writes
`results/scale-negative_pool.json`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.figures import RESULTS
from benchmarks.process_memory import read_memory_kb
from forecart import artifacts, columns
from forecart.evaluation.provenance import read_provenance
from forecart.model.settings import ModelSettings
from forecart.model.static_features import StaticFeatures
from forecart.model.two_tower import TwoTower
from forecart.sequences.batches import BatchBuilder
from forecart.sequences.candidate_store import CandidateStore
from forecart.sequences.histories import Histories
from forecart.sequences.pair_log import PairLog
from forecart.sequences.population import read_population
from forecart.sequences.split import DAY_US, LabelContract, label_windows
from forecart.sequences.vocabulary import FIRST_INDEX
from forecart.training.examples import Examples
from forecart.training.loop import Progress, Trainer
from forecart.training.objective import Objective
from forecart.training.settings import LossSettings, TrainingSettings

SMALL: Final = 100_000
NUM_USERS, NUM_EVENTS, NUM_ADVERTISERS = 50_000, 40, 5_000
FEATURES, COLLABORATIVE, NUM_DAYS = 64, 32, 60
START_US: Final = 20_000 * DAY_US
CUTS_US: Final = START_US + DAY_US * np.array([32, 39, 46, 53])
REPEAT_SHARE: Final = 0.3
BATCH_ROWS, WIDTH, HISTORY_LENGTH, ID_ROWS = 128, 64, 30, 1 << 12
WARM_UP: Final = 20
_BLOCK_ROWS: Final = 1 << 18


def write_store(folder: Path, num_items: int) -> None:
    """Writes random features of so many items: noise costs what content does."""

    def blocks() -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]]:
        rng = np.random.default_rng(1)
        for first in range(0, num_items, _BLOCK_ROWS):
            num = min(_BLOCK_ROWS, num_items - first)
            static = rng.standard_normal((num, FEATURES), np.float32) / 8
            owner = (FIRST_INDEX + np.arange(first, first + num) % NUM_ADVERTISERS).astype(np.int32)
            if first == 0:
                static[:FIRST_INDEX], owner[:FIRST_INDEX] = 0, 0
            yield static, owner

    CandidateStore.write(folder, blocks(), num_candidates=num_items, num_collaborative=COLLABORATIVE)


def make_histories(num_items: int) -> Histories:
    """Returns users with equally many events on items by Zipf's law, some of them again; a third convert."""
    rng = np.random.default_rng(2)
    shape = (NUM_USERS, NUM_EVENTS)
    rank = np.exp(rng.random(shape) * np.log(num_items - FIRST_INDEX)).astype(np.int64) - 1
    # An odd factor that shares none with the size: the popular ones lie all over the catalogue.
    item = FIRST_INDEX + rank * 7_368_787 % (num_items - FIRST_INDEX)
    again = np.minimum(rng.integers(0, NUM_EVENTS, shape), np.arange(NUM_EVENTS))
    item = np.where(rng.random(shape) < REPEAT_SHARE, np.take_along_axis(item, again, 1), item).ravel()
    occurred = np.sort(START_US + rng.integers(0, NUM_DAYS * DAY_US, shape), axis=1).ravel()
    codes = [columns.EVENT_TYPE_CODES[name] for name in ("view", "add_to_cart", "checkout")]
    length = np.concatenate([np.zeros(FIRST_INDEX, np.int64), np.full(NUM_USERS, NUM_EVENTS)])
    return Histories(
        start=np.cumsum(length) - length,
        length=length,
        event_type=rng.choice(codes, len(item)).astype(np.uint8),
        advertiser=(FIRST_INDEX + item % NUM_ADVERTISERS).astype(np.int32),
        item=item.astype(np.int32),
        occurred_us=occurred,
        arrived_us=occurred,
        price=np.full(len(item), 10, np.float32),
    )


def resident_gb() -> dict[str, float]:
    """Returns the peak and the present resident memory of this process, and its mapped files."""
    kilobytes = read_memory_kb("VmHWM", "VmRSS", "RssFile")
    return {
        name: kilobytes[key] * 1024 / 1e9
        for name, key in (("peak_gb", "VmHWM"), ("now_gb", "VmRSS"), ("of_files_gb", "RssFile"))
    }


class Stop(Exception):
    """Enough steps."""


@dataclass
class Turns:
    """Lets a trainer run a block of steps each time that a line arrives, and answers with its figures."""

    block: int
    num_steps: int = 0
    waited_s: float = 0.0
    started: float = 0.0
    started_cpu: float = 0.0
    loss: float = 0.0

    def wait(self) -> None:
        """Waits for the next turn."""
        line = sys.stdin.readline().strip()
        if not line:
            raise Stop
        self.block = int(line)
        self.num_steps, self.waited_s, self.loss = 0, 0.0, 0.0
        self.started, self.started_cpu = time.perf_counter(), time.process_time()

    def step(self, progress: Progress) -> None:
        """Counts a step; after the last of the turn tells and waits."""
        self.num_steps += 1
        self.waited_s += progress.waited_s
        self.loss += progress.loss
        if self.num_steps < self.block:
            return
        elapsed_s = time.perf_counter() - self.started
        told = {
            "step": progress.step,
            "step_s": elapsed_s / self.block,
            "step_cpu_s": (time.process_time() - self.started_cpu) / self.block,
            "waited_share": self.waited_s / elapsed_s,
            "loss": self.loss / self.block,
            **resident_gb(),
        }
        print(json.dumps(told), flush=True)
        self.wait()


def build_trainer(store: CandidateStore, checkpoints: Path, *, draws: int, in_memory: bool) -> Trainer:
    """Returns a trainer on one catalogue, its items in the store or in memory."""
    histories = make_histories(store.num_candidates)
    contract = LabelContract(positives={"checkout": 1.0})
    log = PairLog.build(
        histories,
        level="item",
        num_candidates=store.num_candidates,
        conversion_codes=contract.conversion_codes,
    )
    log = log if in_memory else log.with_seen_only()
    settings = TrainingSettings(
        loss=LossSettings(kind="sampled", negatives="mixed", num_negatives=draws),
        batch_rows=BATCH_ROWS,
        num_epochs=1000,
        checkpoint_every_steps=500,
        device="cpu",
        precision="float32",
    )
    examples = Examples(
        BatchBuilder(histories, log, HISTORY_LENGTH, reads_future=False),
        label_windows(histories, cuts_us=CUTS_US, contract=contract, level="item"),
        {int(cut): read_population(log, int(cut)) for cut in CUTS_US},
        settings,
        seed=0,
    )
    objective = Objective.build(
        settings.loss, examples.labels.candidate, store.num_candidates, is_sparse=not in_memory
    )
    model = build_model(store, in_memory=in_memory)
    kept = None if in_memory else store
    return Trainer(model, examples, objective, settings, checkpoints, seed=0, store=kept)


def build_model(store: CandidateStore, *, in_memory: bool) -> TwoTower:
    """Returns the model, the same weights for every catalogue."""
    torch.manual_seed(0)
    static_NF, advertiser_N = torch.from_numpy(store.static), torch.from_numpy(store.advertiser)
    if in_memory:
        static_NF, advertiser_N = static_NF.clone(), advertiser_N.clone()
    advertiser_AF = torch.randn(NUM_ADVERTISERS + FIRST_INDEX, FEATURES) / 8
    static = StaticFeatures(advertiser_AF, static_NF, static_NF, COLLABORATIVE, advertiser_N, "item")
    return TwoTower(
        static,
        settings=ModelSettings(width=WIDTH, num_layers=1, history_length=HISTORY_LENGTH, id_rows=ID_ROWS),
    )


def train(folder: Path, *, draws: int, in_memory: bool) -> None:
    """Trains on one catalogue, a turn at a time, until there is no more input."""
    torch.set_num_threads(1)
    turns = Turns(block=0)
    with tempfile.TemporaryDirectory() as checkpoints:
        trainer = build_trainer(
            CandidateStore.load(folder), Path(checkpoints), draws=draws, in_memory=in_memory
        )
        facts = {
            "num_rows": trainer.examples.num_rows,
            "num_parameters": sum(value.numel() for value in trainer.model.parameters()),
            "seen": len(trainer.examples.builder.log.with_seen_only().seen),
            **resident_gb(),
        }
        print(json.dumps(facts), flush=True)
        try:
            turns.wait()
            replace(trainer, on_step=turns.step).run()
        except Stop:
            return


class Racer:
    """A process that trains on one catalogue."""

    def __init__(self, folder: Path, *, draws: int, in_memory: bool = False) -> None:
        command = [
            sys.executable,
            "-m",
            "benchmarks.negative_pool",
            "--racer",
            str(folder),
            "--draws",
            str(draws),
        ]
        command += ["--in-memory"] if in_memory else []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = self._read()
        self.turns: list[dict[str, Any]] = []

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a racer died with {self.process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def take_turn(self, num_steps: int) -> dict[str, Any]:
        """Takes so many steps and returns their figures."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{num_steps}\n")
        self.process.stdin.flush()
        self.turns.append(self._read())
        return self.turns[-1]

    def stop(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def figures(self) -> dict[str, Any]:
        """Returns what its turns but the warm-up say."""
        turns = self.turns[1:]
        total_s = sum(turn["step_s"] for turn in turns)
        return {
            **{name: self.facts[name] for name in ("num_rows", "num_parameters", "seen")},
            "steps": self.turns[-1]["step"],
            "steps_per_s": len(turns) / total_s,
            "steps_per_s_of_turns": [round(1 / turn["step_s"], 2) for turn in turns],
            "step_cpu_s": statistics.mean(turn["step_cpu_s"] for turn in turns),
            "waited_share": sum(turn["waited_share"] * turn["step_s"] for turn in turns) / total_s,
            "peak_gb": self.turns[-1]["peak_gb"],
            "peak_gb_before_training": self.facts["peak_gb"],
            "of_files_gb": max(turn["of_files_gb"] for turn in turns),
            "peak_gb_of_turns": [round(turn["peak_gb"], 3) for turn in turns],
            "loss_of_turns": [round(turn["loss"], 4) for turn in turns],
        }


@contextmanager
def racers(folders: dict[str, Path], draws: int) -> Iterator[dict[str, Racer]]:
    started = {name: Racer(folder, draws=draws) for name, folder in folders.items()}
    started["small, in memory"] = Racer(folders["small"], draws=draws, in_memory=True)
    try:
        yield started
    finally:
        for racer in started.values():
            racer.stop()


def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Runs the race and returns its figures."""
    folders = {"small": folder / "small", "large": folder / "large"}
    for name, num_items in (("small", SMALL), ("large", asked.items)):
        if not (folders[name] / "facts.json").exists():
            write_store(folders[name], num_items)
    num_turns = -(-(asked.steps - WARM_UP) // asked.block)
    with racers(folders, asked.draws) as started:
        for racer in started.values():
            racer.take_turn(WARM_UP)
        for number in range(num_turns):
            # Who begins changes, so that a trend of the machine favours nobody.
            names = ["small", "large"] if number % 2 else ["large", "small"]
            names += ["small, in memory"] if number < asked.usual_turns else []
            for name in names:
                turn = started[name].take_turn(asked.block if name == "large" else asked.block // 4)
                print(
                    f"{number + 1}/{num_turns} {name}: {1 / turn['step_s']:.1f} steps/s, waited "
                    f"{turn['waited_share']:.1%}, peak {turn['peak_gb']:.2f} GB, loss {turn['loss']:.3f}",
                    flush=True,
                )
        figures = {name: racer.figures() for name, racer in started.items()}
    pairs = zip(
        figures["large"]["steps_per_s_of_turns"], figures["small"]["steps_per_s_of_turns"], strict=True
    )
    return {
        "ratio": figures["large"]["steps_per_s"] / figures["small"]["steps_per_s"],
        "median_ratio_of_turns": statistics.median(large / small for large, small in pairs),
        "ratio_of_cpu_s": figures["small"]["step_cpu_s"] / figures["large"]["step_cpu_s"],
        "catalogues": figures,
        "store_gb": sum(path.stat().st_size for path in folders["large"].iterdir()) / 1e9,
    }


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=20_000_000)
    parser.add_argument("--steps", type=int, default=5000, help="of the large catalogue")
    parser.add_argument("--draws", type=int, default=8192)
    parser.add_argument("--block", type=int, default=100, help="steps of a turn")
    parser.add_argument("--usual-turns", type=int, default=10, help="turns of the small catalogue in memory")
    parser.add_argument(
        "--folder", type=Path, help="where the catalogues are kept; a temporary folder by default"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures are written")
    parser.add_argument("--racer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--in-memory", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.racer:
        train(asked.racer, draws=asked.draws, in_memory=asked.in_memory)
        return
    provenance = read_provenance()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(asked, asked.folder or Path(folder))
    settings = {name: getattr(asked, name) for name in ("items", "steps", "draws", "block")}
    settings |= {
        "batch_rows": BATCH_ROWS,
        "width": WIDTH,
        "num_layers": 1,
        "history_length": HISTORY_LENGTH,
        "id_rows": ID_ROWS,
        "features": FEATURES,
        "users": NUM_USERS,
        "events": NUM_USERS * NUM_EVENTS,
    }
    result = {"provenance": provenance, "settings": settings, **figures}
    artifacts.write_json(asked.results / "scale-negative_pool.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
