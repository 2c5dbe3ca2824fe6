"""The model against the ceiling of a world whose truth is known: `python -m benchmarks.synthetic`.

Generates the default synthetic world, runs the workflow on it (next advertiser, with and without the sequence
encoder), and holds the lists against the Bayes filter that knows the generating process and sees the same
history. Prints Recall@10, the share of the ceiling, the differences with their intervals, and how much of the
planted structure the advertiser vectors recovered; writes `results/synthetic.json`. The test cut is the last
label window of the log; settings were chosen on the window before it (docs/log.md).
"""

import argparse
import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.figures import RESULTS, advertiser_sections, build_parser, pick_table
from forecart import artifacts
from forecart.bench import run_advertisers
from forecart.config import RunConfig, to_us, validate_config
from forecart.evaluation.protocol import Scorer
from forecart.evaluation.provenance import read_provenance
from forecart.events.synthetic import LabelWindow, SyntheticConfig, World, bayes_scores, build_world
from forecart.observe import ConsoleReporter
from forecart.sequences.histories import Histories
from forecart.workflow import Workflow

BASELINES = [
    "popularity_7d",
    "popularity_all",
    "frequency_popularity",
    "decayed_popularity",
    "basket_popularity",
    "history_then_popularity",
    "markov",
    "item_knn",
    "ease",
    "basket_ease_popularity",
]
MODEL = {"history_length": 48, "pooling": "last"}
TRAINING = {"cut_stride_days": 3, "num_epochs": 7, "batch_rows": 512}


@dataclass
class CeilingScorer:
    """The Bayes filter as a scorer of the evaluation."""

    world: World
    histories: Histories
    name: str = "ceiling"

    def score_at(self, cut_us: int, user_index: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        return bayes_scores(
            self.world, self.histories, cut_us=cut_us, user_index=user_index, window=LabelWindow()
        )


def build_config(asked: argparse.Namespace) -> RunConfig:
    world = SyntheticConfig(num_events=asked.num_events, seed=asked.world_seed)
    window_days = 7 * (2 if asked.validation else 1)
    cut = world.start_at + timedelta(days=world.span_days - window_days)
    tree: dict[str, Any] = {
        "name": "synthetic",
        "source": {"adapter": "synthetic", "synthetic": world.model_dump()},
        "labels": {
            "positives": dict.fromkeys(LabelWindow().positives, 1.0),
            "cuts_per_user": asked.num_cuts,
        },
        **advertiser_sections(asked, cut),
    }
    return validate_config(tree, where="the synthetic benchmark")


def same_intent_share(vector_ND: npt.NDArray[np.float32], intent_N: npt.NDArray[np.integer]) -> float:
    """Share of advertisers whose nearest other advertiser belongs to the same intent."""
    cosine_NN = vector_ND @ vector_ND.T
    np.fill_diagonal(cosine_NN, -np.inf)
    return float(np.mean(intent_N[cosine_NN.argmax(axis=1)] == intent_N))


def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    config = build_config(asked)
    assert config.source.synthetic is not None
    world = build_world(config.source.synthetic)

    def more(workflow: Workflow) -> list[Scorer]:
        return [CeilingScorer(world, workflow.data.histories)]

    run = run_advertisers(config, folder, baselines=BASELINES, reporter=ConsoleReporter(), more=more)
    scorers = run.workflow.scorers("advertiser")
    vectors = scorers[0].candidates_at(to_us(config.split.as_of)).vector_ND.numpy()[2:]
    return {
        "provenance": read_provenance(),
        "num_events": run.workflow.data.histories.num_events,
        "train_s": run.train_s,
        "same_intent_share": same_intent_share(vectors, world.advertiser_intent),
        "same_intent_share_by_chance": 1 / config.source.synthetic.num_intents,
        "next_advertiser": run.tables,
    }


def show(result: dict[str, Any]) -> None:
    table = result["next_advertiser"]
    pool = table["all"]
    model = pool["model"]["recall_at_10"]
    print(f"Recall@10: model {model:.4f}")
    for name, values in sorted(pool["baselines"].items(), key=lambda pair: -pair[1]["recall_at_10"]):
        difference = pool["difference"]["recall_at_10"][name]
        share = values["recall_at_10"] / pool["baselines"]["ceiling"]["recall_at_10"]
        print(
            f"  {name:26s} {values['recall_at_10']:.4f} ({share:.3f} of the ceiling); model minus it "
            f"{difference['mean']:+.4f} [{difference['ci_low']:+.4f}, {difference['ci_high']:+.4f}]"
        )
    print(f"model / ceiling: {model / pool['baselines']['ceiling']['recall_at_10']:.4f}")
    if "seeds" in pool:
        print("seeds:", pool["seeds"]["values"]["model"]["recall_at_10"])
    for name in ("all", "novel"):
        gain = table[name]["difference"]["recall_at_10"]["no_encoder"]
        print(f"encoder's gain, {name}: {gain['mean']:+.4f} [{gain['ci_low']:+.4f}, {gain['ci_high']:+.4f}]")
    print(
        f"nearest advertiser of the same intent: {result['same_intent_share']:.3f} "
        f"(by chance {result['same_intent_share_by_chance']:.3f})"
    )
    print(json.dumps(result["provenance"]))


def main() -> None:
    parser = build_parser(__doc__, seeds=1, model=MODEL, training=TRAINING)
    parser.add_argument("--num-events", type=int, default=SyntheticConfig().num_events)
    parser.add_argument("--world-seed", type=int, default=0)
    parser.add_argument("--num-cuts", type=int, default=14)
    parser.set_defaults(output=Path("runs/synthetic"))
    asked = parser.parse_args()
    result = measure(asked, asked.output)
    show(result)
    if not asked.validation:
        tables = result.pop("next_advertiser")
        kept = {pool: pick_table(tables[pool]) for pool in ("all", "novel")}
        artifacts.write_json(RESULTS / "synthetic.json", {**result, "next_advertiser": kept})


if __name__ == "__main__":
    main()
