"""forecart by the protocol of the peers: `yes | python -m benchmarks.peers.forecart_sequences TRAIN OUTPUT`.

As `rectools_sasrec.py`: TRAIN has user_id, item_id, pos; an epoch a round; everyone's list and a line of JSON
after each. CPU-seconds of fitting begin with the Parquet file and hold everything that comes before a step:
reading the log, building sequences, the vectors that ids start from, the training rows.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch

from forecart.bench import (
    BEFORE_LAST,
    STEP,
    build_config,
    choose_settings,
    lay_over,
    peak_memory_gb,
    read_sequences,
    write_events,
)
from forecart.config import to_us
from forecart.model.two_tower import TwoTower
from forecart.retrieval.exact import score_exact, search_exact
from forecart.retrieval.scorer import ModelScorer
from forecart.sequences.vocabulary import FIRST_INDEX
from forecart.workflow import Workflow

BLOCK_USERS = 64
"""Few enough that the arrays of a block are freed and taken again without new pages from the system."""


class NoMoreRounds(Exception):
    """Standard input ended."""


def list_everyone(workflow: Workflow, scorer: ModelScorer, *, top_k: int) -> pl.DataFrame:
    """Returns user_id, item_id, rank for every user, without what the user has seen."""
    users, candidates = workflow.data.users, workflow.data.advertisers
    is_eligible_N = torch.ones(len(candidates), dtype=torch.bool)
    frames = []
    for first in range(FIRST_INDEX, len(users), BLOCK_USERS):
        index = np.arange(first, min(first + BLOCK_USERS, len(users)), dtype=np.int32)
        embedded = scorer.embed(to_us(BEFORE_LAST), index)
        score_BN = score_exact(embedded, scorer.candidates_at(to_us(BEFORE_LAST)))
        score_BN[embedded.own_row_M, embedded.own_candidate_M] = -torch.inf
        found = search_exact(score_BN, top_k=top_k, is_eligible_N=is_eligible_N).candidate
        row, rank = np.nonzero(found >= FIRST_INDEX)
        frames.append(
            pl.DataFrame(
                {
                    "user_id": users.id_series(index).gather(row),
                    "item_id": candidates.id_series(found[row, rank]),
                    "rank": (rank + 1).astype(np.int32),
                }
            )
        )
    return pl.concat(frames)


class Rounds:
    """After each epoch: lists, a line, and a wait for the next round that does not count as fitting."""

    def __init__(self, workflow: Workflow, output: Path, *, top_k: int, started_cpu_s: float) -> None:
        self.workflow, self.output, self.top_k = workflow, output, top_k
        self.successors = workflow.successors.get("advertiser")  # Counting them is a part of fitting.
        target = workflow.config.next_advertiser
        self.settings = target.model_dump(mode="json", include={"model", "training", "successors"})
        self.started_cpu_s, self.number, self.other_cpu_s = started_cpu_s, 0, 0.0

    def after_epoch(self, model: TwoTower) -> dict[str, float]:
        """Called by the trainer with the averaged weights."""
        began_cpu_s, began_s = time.process_time(), time.perf_counter()
        fit_cpu_s = began_cpu_s - self.started_cpu_s - self.other_cpu_s
        scorer = ModelScorer("model", model, self.workflow.builder("advertiser"), self.successors)
        lists = list_everyone(self.workflow, scorer, top_k=self.top_k)
        recommend_s, recommend_cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        self.number += 1
        lists.write_parquet(self.output / f"lists-{self.number}.parquet")
        line = {
            "round": self.number,
            "epochs": self.number,
            "fit_cpu_s": fit_cpu_s,
            "recommend_s": recommend_s,
            "recommend_cpu_s": recommend_cpu_s,
            "num_users": lists["user_id"].n_unique(),
            "peak_memory_gb": peak_memory_gb(),
            "num_threads": torch.get_num_threads(),
            "settings": self.settings,
        }
        print(json.dumps(line), flush=True)
        wait_for_round()
        self.other_cpu_s += time.process_time() - began_cpu_s
        return {}


def wait_for_round() -> None:
    """Reads a line of standard input.

    Raises:
        NoMoreRounds: there is none.
    """
    if not sys.stdin.readline():
        raise NoMoreRounds


def run(asked: argparse.Namespace) -> None:
    """Trains until the rounds or the epochs end."""
    started_cpu_s = time.process_time()
    asked.output.mkdir(parents=True, exist_ok=True)
    log = asked.output / "log.parquet"
    sequences = read_sequences(asked.train)
    # Up to a step before the last event of the full sequences, which this file does not hold.
    write_events(sequences, log, last=BEFORE_LAST - STEP)
    settings = lay_over(choose_settings(sequences), {"model": asked.model, "training": asked.training})
    config = build_config(log, name="speed", settings=settings, cut=BEFORE_LAST)
    workflow = Workflow(config, asked.output / "run")
    workflow.events()
    workflow.sequences()
    rounds = Rounds(workflow, asked.output, top_k=asked.top_k, started_cpu_s=started_cpu_s)
    trainer = workflow.training_task("advertiser").build_trainer(
        asked.output / "checkpoints", validate=rounds.after_epoch
    )
    trainer.run()


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", type=json.loads, default={}, help="settings as JSON, over the chosen ones")
    parser.add_argument("--training", type=json.loads, default={}, help="likewise")
    parser.add_argument("--top-k", type=int, default=100)
    asked = parser.parse_args()
    wait_for_round()
    try:
        run(asked)
    except NoMoreRounds:
        return


if __name__ == "__main__":
    main()
