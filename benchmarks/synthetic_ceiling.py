"""How far each baseline is from the ceiling of the synthetic world: `python benchmarks/synthetic_ceiling.py`.

Generates the default world (or one of `--num-events`), cuts its log a label window before the end and prints
Recall@10 of the Bayes filter and of every baseline, with its share of the ceiling. The best baseline has to
stay at or below 75 %: the exit status is 1 where it does not.
"""

import argparse
import json
import sys
import time

import numpy as np
import numpy.typing as npt
import polars as pl

from forecart import columns
from forecart.baselines.conversions import ConversionLog
from forecart.baselines.standard import BASELINES, build_baselines
from forecart.events.synthetic import (
    LabelWindow,
    SyntheticConfig,
    World,
    bayes_scores,
    build_world,
    generate_events,
)
from forecart.sequences.histories import Histories
from forecart.sequences.split import DAY_US, LabelContract, Labels, label_windows

MAX_SHARE = 0.75
WINDOW = LabelWindow()
CONTRACT = LabelContract(positives=dict.fromkeys(WINDOW.positives, 1.0), max_positives=None)


def read_histories(world: World) -> Histories:
    """The events of the world as histories, without a detour over the disk: index = number + 2."""
    parts = [
        frame.sort("user_id", "arrived_at", "ordinal").select(
            user=pl.col("user_id").str.slice(1).cast(pl.Int64) + 2,
            event_type=pl.col("event_type").replace_strict(columns.EVENT_TYPE_CODES, return_dtype=pl.UInt8),
            advertiser=pl.col("advertiser_id").str.slice(3).cast(pl.Int32) + 2,
            item=(pl.col("item_id").str.slice(4).cast(pl.Int32) + 2).fill_null(0),
            occurred_us=pl.col("occurred_at").to_physical(),
            arrived_us=pl.col("arrived_at").to_physical(),
            price=(pl.col("value") / pl.col("quantity")).cast(pl.Float32).fill_null(np.nan),
        )
        for frame in generate_events(world)
    ]
    table = pl.concat(parts)
    arrays = {name: table[name].to_numpy() for name in table.columns}
    length = np.bincount(arrays.pop("user"), minlength=world.config.num_users + 2)
    return Histories(start=np.cumsum(length) - length, length=length, **arrays)


def recall_at_10(score_BN: npt.NDArray[np.float32], labels: Labels) -> float:
    """Mean over users of hits in the top 10 / number relevant."""
    score_BN = score_BN.copy()
    score_BN[:, :2] = -np.inf
    top_BK = np.argsort(-score_BN, axis=1, kind="stable")[:, :10]
    relevant_BN = np.zeros(score_BN.shape, dtype=bool)
    relevant_BN[labels.rows(), labels.candidate] = True
    hits_B = np.take_along_axis(relevant_BN, top_BK, axis=1).sum(axis=1)
    return float(np.mean(hits_B / relevant_BN.sum(axis=1)))


def measure(config: SyntheticConfig) -> dict[str, float]:
    """Recall@10 of the ceiling and of every baseline on the last full label window, and sizes and times."""
    world = build_world(config)
    started = time.process_time()
    histories = read_histories(world)
    generated = time.process_time()
    cut_us = world.end_us - round(WINDOW.window_days * DAY_US)
    labels = label_windows(histories, cuts_us=cut_us, contract=CONTRACT, level="advertiser")
    scores = bayes_scores(world, histories, cut_us=cut_us, user_index=labels.user_index)
    figures = {
        "num_events": histories.num_events,
        "num_users": len(labels),
        "repeat_share": float(labels.is_repeat.mean()),
        "generate_s": generated - started,
        "filter_s": time.process_time() - generated,
        "ceiling": recall_at_10(scores, labels),
    }
    log = ConversionLog(histories, cut_us, "advertiser", world.num_advertisers + 2, CONTRACT.conversion_codes)
    for baseline in build_baselines(BASELINES):
        baseline.fit(log)
        figures[baseline.name] = recall_at_10(baseline.score(labels.user_index), labels)
    return figures


def main() -> int:
    """Prints one line of JSON and says by the exit status whether the world is hard enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-events", type=int, default=SyntheticConfig().num_events)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    figures = measure(SyntheticConfig(num_events=asked.num_events, seed=asked.seed))
    best = max(BASELINES, key=lambda name: figures[name])
    share = figures[best] / figures["ceiling"]
    print(json.dumps({**figures, "best_baseline": best, "share_of_ceiling": share}, indent=2))
    return int(share > MAX_SHARE)


if __name__ == "__main__":
    sys.exit(main())
