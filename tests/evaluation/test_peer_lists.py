"""Lists of a peer in the protocol of record: a ring of items, of which the right answer is known."""

import sys

import numpy as np
import polars as pl
import pytest
from benchmarks.peer_lists import Peer

from forecart.bench import BEFORE_LAST, build_config, read_sequences, write_events
from forecart.config import to_us
from forecart.evaluation.targets import measure_target
from forecart.observe import SilentReporter
from forecart.workflow import Workflow

NUM_ITEMS, LENGTH, VALIDATION = 60, 20, {to_us(BEFORE_LAST): "validation"}
# Round r lists first the item r - 1 places after the last seen; without the seen, the one after that; then
# an item that nobody knows.
SCRIPT = """
import sys, polars as pl
folder, histories = sys.argv[2], dict(word.split("=") for word in sys.argv[4::2])
for number, _ in enumerate(sys.stdin, 1):
    for name, path in histories.items():
        last = pl.read_parquet(path).sort("pos").group_by("user_id").last()
        rows = [(number - 1, False), (number, True)]
        lists = [
            last.select("user_id", (pl.col("item_id") + step) % 60, rank=pl.lit(1), is_filtered=pl.lit(left))
            for step, left in rows
        ]
        nobody = lists[0].with_columns(item_id=pl.lit(777, pl.Int64), rank=pl.lit(2))
        pl.concat([*lists, nobody]).write_parquet(f"{folder}/lists-{number}-{name}.parquet")
    print('{"round": %d, "epochs": %d}' % (number, 4 * number), flush=True)
"""


@pytest.fixture
def ring(tmp_path):
    """The data of a validation at the last event but one, and what a peer learns from."""
    starts = np.random.default_rng(0).integers(0, NUM_ITEMS, 80)
    rows = [
        {"user_id": user, "pos": pos, "item_id": int(start + pos) % NUM_ITEMS}
        for user, start in enumerate(starts)
        for pos in range(LENGTH)
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "sequences.parquet")
    pl.DataFrame(rows).filter(pl.col("pos") < LENGTH - 2).write_parquet(tmp_path / "train.parquet")
    write_events(read_sequences(tmp_path / "sequences.parquet"), tmp_path / "log.parquet")
    config = build_config(tmp_path / "log.parquet", name="ring", cut=BEFORE_LAST)
    workflow = Workflow(config, tmp_path / "run")
    workflow.events()
    workflow.sequences()
    return workflow.target_data("advertiser", list(VALIDATION)), tmp_path / "train.parquet"


def peer_of(tmp_path, script=SCRIPT):
    (tmp_path / "peer.py").write_text(script)
    return Peer("lister", [sys.executable, str(tmp_path / "peer.py")], 2, tmp_path / "lists")


def test_the_best_round_is_that_whose_first_item_comes_next(ring, tmp_path):
    data, train = ring
    peer = peer_of(tmp_path)
    peer.learn(train, {"validation": train}, reporter=SilentReporter())
    assert peer.best_round(data, VALIDATION, pool="all", metric="recall_at_1") == (2, [0.0, 1.0])
    # Without the seen, the first round lists what comes next and the second what comes after it.
    assert peer.best_round(data, VALIDATION, pool="novel", metric="recall_at_1") == (1, [1.0, 1.0])
    assert peer.said(2)["epochs"] == 8


def test_a_list_without_the_seen_goes_on_where_the_other_ends(ring, tmp_path):
    data, train = ring
    peer = peer_of(tmp_path)
    peer.learn(train, {"validation": train}, reporter=SilentReporter())
    scorer = peer.scorer(1, data, VALIDATION)
    measured = measure_target(data, [scorer], baselines=(), index_size=0, seed=0)
    listed = measured.lists["all"]["lister"].candidate
    ids = np.stack([data.vocabulary.ids(row[:2]) for row in listed]).astype(int)
    assert (np.diff(ids, axis=1) % NUM_ITEMS == 1).all()
    assert (listed[:, 2:] == -1).all()


def test_what_is_listed_is_not_learned_again_and_an_error_is_told(ring, tmp_path):
    _, train = ring
    peer = peer_of(tmp_path)
    peer.learn(train, {"validation": train}, reporter=SilentReporter())
    peer_of(tmp_path, script="raise SystemExit(3)").learn(
        train, {"validation": train}, reporter=SilentReporter()
    )
    peer.lists_path(2, "validation").unlink()
    with pytest.raises(RuntimeError, match="lister ended with 3"):
        peer.learn(train, {"validation": train}, reporter=SilentReporter())
