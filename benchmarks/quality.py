"""Quality on single sequences, kept: `python -m benchmarks.quality FILE --name ml-1m --seeds 5`.

`forecart bench FILE --protocol loo` with the figures written to `results/quality-NAME.json`, with machine,
commit and command. FILE is Parquet or CSV with user_id, item_id and pos. With `--validation` nothing is
written: settings are chosen by it, the test is scored once. `--peer PYTHON` adds RecTools' eSASRec with our
width, depth, heads and length, run by the Python of its environment (`benchmarks/peers/rectools_sasrec.py`).
Of the peer, only how many epochs it learns is chosen on the validation events.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.figures import RESULTS, build_parser
from benchmarks.peer_lists import add_peer_options, rectools_peer
from forecart import artifacts
from forecart.bench import BEFORE_LAST, LAST, NUM_PREDICTED, LeaveOneOut, hide_latest, read_sequences
from forecart.cli.bench import print_sequences
from forecart.config import to_us
from forecart.evaluation.protocol import Scorer
from forecart.observe import ConsoleReporter
from forecart.workflow import Workflow


def learn_peer(asked: argparse.Namespace, folder: Path, workflow: Workflow) -> tuple[Scorer, dict[str, Any]]:
    """Returns the peer's lists at the event that is ranked, and how its epochs were chosen."""
    sequences = read_sequences(asked.file)
    files = {}
    for num_hidden, name in ((NUM_PREDICTED, "validation"), (1, "test")):
        files[name] = folder / "peer" / f"{name}.parquet"
        artifacts.write_parquet(files[name], hide_latest(sequences, num_hidden))
    peer = rectools_peer(asked, folder / "peer", workflow.config.next_advertiser.model)
    peer.learn(files["validation"], files, reporter=workflow.reporter)
    cut_us = {"validation": to_us(BEFORE_LAST), "test": to_us(LAST)}
    data = workflow.target_data("advertiser", [cut_us["validation"]])
    number, values = peer.best_round(
        data, {cut_us["validation"]: "validation"}, pool="novel", metric="ndcg_at_10"
    )
    workflow.reporter.say(f"validation NDCG@10 of the peer, every {asked.epochs_a_round} epochs: {values}")
    ranked = "validation" if asked.validation else "test"
    facts = {
        "epochs": number * asked.epochs_a_round,
        "validation_ndcg_at_10": values,
        "its_line": peer.read_round(number),
    }
    return peer.scorer(number, data, {cut_us[ranked]: ranked}), facts


def main() -> None:
    """Runs the command line."""
    parser = build_parser(__doc__, seeds=1, model={}, training={})
    parser.add_argument("file", type=Path, help="sequences: user_id, item_id, pos")
    parser.add_argument("--ablate-encoder", action="store_true", help="and a summary in place of the encoder")
    add_peer_options(parser)
    parser.add_argument("--name", required=True, help="of the data set, in results and output")
    asked = parser.parse_args()
    if not asked.file.exists():
        print(f"skipped: there are no sequences at {asked.file}")
        return
    protocol = LeaveOneOut(
        is_validation=asked.validation,
        num_seeds=asked.seeds,
        model=asked.model,
        training=asked.training,
        ablate_encoder=asked.ablate_encoder,
    )
    folder = asked.output or Path("runs") / f"quality-{asked.name}"
    peers: dict[str, Any] = {}

    def build_scorers(workflow: Workflow) -> list[Scorer]:
        if asked.peer is None:
            return []
        scorer, peers[scorer.name] = learn_peer(asked, folder, workflow)
        return [scorer]

    with ConsoleReporter() as reporter:
        result = protocol.run(asked.file, folder, reporter=reporter, more=build_scorers)
    result["peers"] = peers
    print_sequences(result)
    if not asked.validation:
        artifacts.write_json(RESULTS / f"quality-{asked.name}.json", result)


if __name__ == "__main__":
    main()
