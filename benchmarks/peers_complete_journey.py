"""Complete Journey beside a peer: `python -m benchmarks.peers_complete_journey --peer PYTHON`.

RecTools' eSASRec (LiGR layers; PYTHON is that of its environment, `benchmarks/peers/rectools_sasrec.py`)
learns from the same households' baskets as our models of `benchmarks.complete_journey`: every distinct
(household, time, advertiser) before the cut-off, in order of time, what was bought at one time in a random
order. It would learn from the latest 201 rows of a user only, so that households are cut into users of as
many; when it lists, it reads the latest 200. After every epoch it lists everyone; how many epochs it learns
is chosen on the four November cuts, as our settings were. Prints and writes
`results/peers-complete_journey.json`: means of our seeds, the peer, and the difference with its interval.
"""

import argparse
import json
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from benchmarks.complete_journey import NOVEMBER, build_config
from benchmarks.figures import METRICS, RESULTS, pick_table
from benchmarks.known_peers import AskedPeer
from benchmarks.peer_lists import Peer
from forecart import artifacts
from forecart.baselines.conversions import read_conversions
from forecart.config import to_us
from forecart.evaluation.provenance import read_provenance
from forecart.evaluation.targets import TargetData, measure_target, tabulate_target
from forecart.observe import ConsoleReporter, Reporter
from forecart.workflow import Workflow

# Not `repeat`: what a user has converted with may stand below the peer's top 100 of everything, where its
# lists end, while ours goes on to the last of them.
POOLS: Final = ("all", "novel")
PEER: Final = "rectools_esasrec"
SESSION_LENGTH: Final = 200  # the default of the peer's script


def read_baskets(data: TargetData, cut_us: int) -> pl.DataFrame:
    """Returns user_id, item_id (the advertiser) and pos of every basket that arrived before the cut."""
    known = read_conversions(
        data.sequences.histories,
        cut_us=cut_us,
        level=data.level,
        num_candidates=data.num_candidates,
        conversion_codes=data.contract.conversion_codes,
    ).baskets()
    # Rows of one checkout have no order: that of their numbers would be a pattern to learn.
    tie = np.random.default_rng(0).random(len(known.user))
    rows = known.at(np.lexsort((tie, known.occurred_us, known.user)))
    frame = pl.DataFrame(
        {
            "user_id": data.sequences.users.id_series(rows.user),
            "item_id": data.vocabulary.id_series(rows.candidate),
        }
    )
    return frame.with_columns(pos=pl.int_range(pl.len()).over("user_id"))


def cut_sessions(baskets: pl.DataFrame) -> pl.DataFrame:
    """Returns the same rows with users of at most 201: each row but a user's first is once what comes next.

    A session begins with the row that the session before it ends with.
    """
    back = pl.len().over("user_id") - 1 - pl.col("pos")
    rows = baskets.with_columns(
        session=back // SESSION_LENGTH, is_both=(back % SESSION_LENGTH == 0) & (back > 0)
    )
    begins = rows.filter("is_both").with_columns(pl.col("session") - 1)
    return (
        pl.concat([rows, begins], rechunk=True)
        .filter(pl.len().over("user_id", "session") > 1)
        .select(pl.format("{}/{}", "user_id", "session").alias("user_id"), "item_id", "pos")
        .sort("user_id", "pos")
    )


def learn(
    asked: argparse.Namespace,
    workflow: Workflow,
    cuts: list[datetime],
    num_rounds: int,
    *,
    reporter: Reporter,
) -> tuple[Peer, TargetData, dict[int, str]]:
    """Lets the peer learn up to the first cut, so many rounds, and list everyone at each cut.

    Returns:
        The peer; the data of the cuts; cut -> name of the history whose lists are those of the cut.
    """
    data = workflow.target_data("advertiser", [to_us(cut) for cut in cuts])
    folder = asked.output / "peers" / f"esasrec-{cuts[0]:%Y-%m}"
    names = {to_us(cut): f"{cut:%Y-%m-%d}" for cut in cuts}
    files = {name: folder / f"history-{name}.parquet" for name in names.values()}
    for cut_us, name in names.items():
        artifacts.write_parquet(files[name], read_baskets(data, cut_us))
    sessions = cut_sessions(pl.read_parquet(files[names[to_us(cuts[0])]]))
    artifacts.write_parquet(folder / "sessions.parquet", sessions)
    command = AskedPeer(PEER, str(asked.peer)).command()
    peer = Peer(PEER, [*command, "--epochs-a-round", str(asked.epochs_a_round)], num_rounds, folder)
    peer.learn(folder / "sessions.parquet", files, reporter=reporter)
    return peer, data, names


def run(asked: argparse.Namespace, *, reporter: Reporter) -> dict[str, Any]:
    """Returns the tables of our seeds and the peer at the test cuts, and how its epochs were chosen."""
    workflow = Workflow(build_config(asked.seeds, "auto"), asked.output, reporter=reporter)
    workflow.events()
    workflow.sequences()
    workflow.train("advertiser")
    peer, data, names = learn(asked, workflow, NOVEMBER, asked.rounds, reporter=reporter)
    number, values = peer.best_round(data, names, pool="all", metric="recall_at_20")
    reporter.say(f"Recall@20 of the peer in November, by round: {', '.join(f'{v:.4f}' for v in values)}")
    test_cuts = workflow.config.split.test_cuts
    peer, data, names = learn(asked, workflow, test_cuts, number, reporter=reporter)
    ours = [workflow.scorer("advertiser", seed_number=seed) for seed in range(asked.seeds)]
    measured = measure_target(
        data, [*ours, peer.scorer(number, data, names)], baselines=(), index_size=0, seed=0
    )
    tables = tabulate_target(data, measured, num_samples=workflow.config.evaluation.num_samples)
    return {
        "provenance": read_provenance(),
        "peer": {
            "epochs": number * asked.epochs_a_round,
            "validation_recall_at_20": values,
            "its_line": peer.read_round(number),
            "num_rows_learned": pl.read_parquet(peer.folder / "sessions.parquet", columns=["pos"]).height,
        },
        "next_advertiser": {pool: pick_table(tables[pool]) for pool in POOLS},
    }


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="of our models")
    parser.add_argument("--peer", type=Path, help="Python of an environment with RecTools")
    # A household has hundreds of baskets: the peer is at its best after a few epochs, then learns by heart.
    parser.add_argument("--rounds", type=int, default=6, help="of the peer")
    parser.add_argument("--epochs-a-round", type=int, default=1, help="of the peer")
    parser.add_argument("--output", type=Path, default=Path("runs/demo"))
    asked = parser.parse_args()
    if asked.peer is None:
        print("skipped: --peer names no Python with the peer")
        return
    with ConsoleReporter() as reporter:
        result = run(asked, reporter=reporter)
    for pool, table in result["next_advertiser"].items():
        for name, values in table["recall"].items():
            print(f"{pool:7s} {name:18s}", " ".join(f"{values[metric]:.4f}" for metric in METRICS))
        print("  difference", json.dumps(table["difference"]))
    artifacts.write_json(RESULTS / "peers-complete_journey.json", result)


if __name__ == "__main__":
    main()
