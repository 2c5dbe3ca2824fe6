"""Quality on single sequences, kept: `python -m benchmarks.quality FILE --name ml-1m --seeds 5`.

`forecart bench FILE --protocol loo` with the figures written to `results/quality-NAME.json`, with machine,
commit and command. FILE is Parquet or CSV with user_id, item_id and pos. With `--validation` nothing is
written: settings are chosen by it, the test is scored once. `--peer PYTHON` adds RecTools' eSASRec with our
width, depth and length, run by the Python of its environment (`benchmarks/peers/rectools_sasrec.py`); how
many epochs it learns is chosen on the validation events.
"""

import argparse
from pathlib import Path

import polars as pl

from benchmarks.figures import RESULTS, build_parser
from benchmarks.peer_lists import RECTOOLS, Peer
from forecart import artifacts
from forecart.bench import BEFORE_LAST, LAST, LeaveOneOut, read_sequences
from forecart.cli.bench import print_sequences
from forecart.config import to_us
from forecart.evaluation.protocol import Scorer
from forecart.observe import ConsoleReporter
from forecart.workflow import Workflow


def learn_peer(asked: argparse.Namespace, folder: Path, workflow: Workflow) -> list[Scorer]:
    """Returns the peer's lists at the event that is ranked; none where no peer is named."""
    if asked.peer is None:
        return []
    sequences = read_sequences(asked.file)
    num_after = pl.len().over("user_id") - pl.col("pos").rank().over("user_id")
    files = {}
    for num_hidden, name in ((2, "validation"), (1, "test")):
        files[name] = folder / "peer" / f"{name}.parquet"
        artifacts.write_parquet(files[name], sequences.filter(num_after >= num_hidden))
    command = [str(asked.peer), str(RECTOOLS), "--epochs-a-round", str(asked.epochs_a_round)]
    peer = Peer("rectools_esasrec", command, asked.rounds, folder / "peer")
    peer.learn(files["validation"], files, reporter=ConsoleReporter())
    cut_us = {"validation": to_us(BEFORE_LAST), "test": to_us(LAST)}
    data = workflow.target_data("advertiser", [cut_us["validation"]])
    number, values = peer.best_round(
        data, {cut_us["validation"]: "validation"}, pool="novel", metric="ndcg_at_10"
    )
    print(f"validation NDCG@10 of the peer, every {asked.epochs_a_round} epochs: {values}")
    ranked = "validation" if asked.validation else "test"
    return [peer.scorer(number, data, {cut_us[ranked]: ranked})]


def main() -> None:
    """Runs the command line."""
    parser = build_parser(__doc__, seeds=1, model={}, training={})
    parser.add_argument("file", type=Path, help="sequences: user_id, item_id, pos")
    parser.add_argument("--ablate-encoder", action="store_true", help="and the system without the encoder")
    parser.add_argument("--peer", type=Path, help="Python of an environment with RecTools")
    parser.add_argument("--rounds", type=int, default=5, help="of the peer")
    parser.add_argument("--epochs-a-round", type=int, default=4)
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
    result = protocol.run(
        asked.file,
        folder,
        reporter=ConsoleReporter(),
        more=lambda workflow: learn_peer(asked, folder, workflow),
    )
    print_sequences(result)
    if not asked.validation:
        artifacts.write_json(RESULTS / f"quality-{asked.name}.json", result)


if __name__ == "__main__":
    main()
