"""Quality on single sequences, kept: `python -m benchmarks.quality FILE --name ml-1m --seeds 5`.

`forecart bench FILE --protocol loo` with the figures written to `results/quality-NAME.json`, with machine,
commit and command, and to `tables.parquet` in the run's folder: table (seen_kept, seen_filtered), system,
metric, mean, and the difference of the model to the system with its 95 % interval. FILE is Parquet or CSV
with user_id, item_id and pos. With `--validation` nothing goes to the results: settings are chosen by it, the
test is scored once.

`--peer NAME=PYTHON` (`benchmarks/known_peers.py`), which may be repeated, adds a system of others with our
width, depth, heads and length, run by the Python of its environment. It learns for `--peer-cpu-s`
CPU-seconds, by default as long as the steps of our first model took, in `--rounds` rounds; of a peer, only
which round is reported is chosen on the validation events. With peers the figures go to
`results/peers-NAME.json`.
"""

import argparse
from pathlib import Path
from typing import Any

import polars as pl
import torch

from benchmarks.figures import RESULTS, build_parser
from benchmarks.known_peers import AskedPeer, add_peers, check_names
from benchmarks.peer_lists import Peer
from forecart import artifacts
from forecart.bench import (
    BEFORE_LAST,
    LAST,
    NUM_PREDICTED,
    POOLS,
    LeaveOneOut,
    hide_latest,
    read_sequences,
    read_train_s,
)
from forecart.cli.bench import print_sequences
from forecart.config import to_us
from forecart.evaluation.protocol import Scorer
from forecart.observe import ConsoleReporter
from forecart.workflow import Workflow


def write_histories(file: Path, folder: Path) -> dict[str, Path]:
    """Writes what comes before the last event but one, and before the last; returns the files by name."""
    sequences = read_sequences(file)
    files = {}
    for num_hidden, name in ((NUM_PREDICTED, "validation"), (1, "test")):
        files[name] = folder / f"{name}.parquet"
        artifacts.write_parquet(files[name], hide_latest(sequences, num_hidden))
    return files


def learn_peer(
    peer: AskedPeer, asked: argparse.Namespace, folder: Path, workflow: Workflow
) -> tuple[Scorer, dict[str, Any]]:
    """Returns the peer's lists at the event that is ranked, and how its round was chosen."""
    files = write_histories(asked.file, folder / "peers")
    cpu_s = asked.peer_cpu_s or read_train_s(workflow) * torch.get_num_threads()
    num_rounds = asked.rounds if peer.known.has_rounds else 1
    model = workflow.config.next_advertiser.model
    command = peer.command(model=model, round_cpu_s=round(cpu_s / num_rounds, 1))
    learned = Peer(peer.name, command, num_rounds, folder / "peers" / peer.name)
    learned.learn(files["validation"], files, reporter=workflow.reporter)
    cut_us = {"validation": to_us(BEFORE_LAST), "test": to_us(LAST)}
    data = workflow.target_data("advertiser", [cut_us["validation"]])
    number, values = learned.best_round(
        data, {cut_us["validation"]: "validation"}, pool="novel", metric="ndcg_at_10"
    )
    shown = ", ".join(f"{value:.4f}" for value in values)
    workflow.reporter.say(f"validation NDCG@10 of {peer.name}, by round: {shown}")
    ranked = "validation" if asked.validation else "test"
    line = learned.read_round(number)
    facts = {
        "epochs": line["epochs"],
        "cpu_s_given": cpu_s,
        "validation_ndcg_at_10": values,
        "its_line": line,
    }
    return learned.scorer(number, data, {cut_us[ranked]: ranked}), facts


def tabulate(result: dict[str, Any]) -> pl.DataFrame:
    """Returns a row for each table, system and metric, in the order of the result.

    Args:
        result: of `LeaveOneOut.run`.

    Returns:
        table, system, metric, mean; difference (the model's mean minus the system's), ci_low and ci_high,
        null for the model itself.
    """
    empty = dict.fromkeys(("mean", "ci_low", "ci_high"))
    rows = []
    for table in POOLS:
        for system, values in result[table]["mean"].items():
            for metric, mean in values.items():
                interval = result[table]["difference"][metric].get(system, empty)
                found = (interval["mean"], interval["ci_low"], interval["ci_high"])
                rows.append((table, system, metric, mean, *found))
    texts = dict.fromkeys(("table", "system", "metric"), pl.String)
    numbers = dict.fromkeys(("mean", "difference", "ci_low", "ci_high"), pl.Float64)
    return pl.DataFrame(rows, schema=texts | numbers, orient="row")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what this benchmark has beyond the options of all."""
    parser.add_argument("file", type=Path, help="sequences: user_id, item_id, pos")
    parser.add_argument("--ablate-encoder", action="store_true", help="and a summary in place of the encoder")
    add_peers(parser)
    parser.add_argument("--peer-cpu-s", type=float, help="CPU-seconds of learning of each peer")
    parser.add_argument("--rounds", type=int, default=5, help="of each peer, one of which is chosen")
    parser.add_argument("--name", required=True, help="of the data set, in results and output")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures are written")


def main() -> None:
    """Runs the command line."""
    parser = build_parser(__doc__, seeds=1, model={}, training={})
    add_options(parser)
    asked = parser.parse_args()
    check_names(parser, asked.peer)
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
        scorers = []
        for peer in asked.peer:
            scorer, peers[peer.name] = learn_peer(peer, asked, folder, workflow)
            scorers.append(scorer)
        return scorers

    with ConsoleReporter() as reporter:
        result = protocol.run(asked.file, folder, reporter=reporter, more=build_scorers)
    result["peers"] = peers
    print_sequences(result)
    artifacts.write_parquet(folder / "tables.parquet", tabulate(result))
    if not asked.validation:
        kind = "peers" if asked.peer else "quality"
        artifacts.write_json(asked.results / f"{kind}-{asked.name}.json", result)


if __name__ == "__main__":
    main()
