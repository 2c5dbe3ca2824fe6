"""Lists of a peer in the protocol of record: a ring of items, of which the right answer is known."""

import argparse
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from benchmarks import quality
from benchmarks.known_peers import KNOWN_PEERS, AskedPeer, KnownPeer, check_names, read_peer
from benchmarks.peer_lists import Peer
from benchmarks.peers_complete_journey import SESSION_LENGTH, cut_sessions, read_baskets
from benchmarks.quality import learn_peer, tabulate

from forecart.bench import BEFORE_LAST, LAST, build_config, read_sequences, write_events
from forecart.config import to_us
from forecart.evaluation.targets import measure_target
from forecart.model.settings import ModelSettings
from forecart.observe import SilentReporter
from forecart.workflow import Workflow

NUM_ITEMS, LENGTH, VALIDATION = 60, 20, {to_us(BEFORE_LAST): "validation"}
# Round r lists first the item r - 1 places after the last seen; without the seen, the one after that; then
# an item that nobody knows.
SCRIPT = """
import sys, polars as pl
at = sys.argv.index("--history")
folder, histories = sys.argv[at - 1], dict(word.split("=") for word in sys.argv[at + 1 :: 2])
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
def workflow(tmp_path):
    """A validation at the last event but one of users who go round the ring."""
    starts = np.random.default_rng(0).integers(0, NUM_ITEMS, 80)
    rows = [
        {"user_id": user, "pos": pos, "item_id": int(start + pos) % NUM_ITEMS}
        for user, start in enumerate(starts)
        for pos in range(LENGTH)
    ]
    pl.DataFrame(rows).sample(fraction=1, shuffle=True, seed=1).write_parquet(tmp_path / "sequences.parquet")
    write_events(read_sequences(tmp_path / "sequences.parquet"), tmp_path / "log.parquet")
    config = build_config(tmp_path / "log.parquet", name="ring", cut=BEFORE_LAST)
    workflow = Workflow(config, tmp_path / "run")
    workflow.events()
    workflow.sequences()
    return workflow


@pytest.fixture
def ring(workflow, tmp_path):
    """The data of the validation, and what a peer learns from."""
    rows = pl.read_parquet(tmp_path / "sequences.parquet").sort("user_id", "pos")
    rows.filter(pl.col("pos") < LENGTH - 2).write_parquet(tmp_path / "train.parquet")
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
    assert peer.read_round(2)["epochs"] == 8


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


def test_what_is_listed_is_learned_again_only_where_something_changed(ring, tmp_path):
    _, train = ring
    peer = peer_of(tmp_path, script=SCRIPT + "open(folder + '/runs', 'a').write('x')\n")

    def num_runs(peer=peer, histories=("validation",)):
        peer.learn(train, dict.fromkeys(histories, train), reporter=SilentReporter())
        return len((tmp_path / "lists" / "runs").read_text())

    assert num_runs() == 1
    os.utime(train)
    assert num_runs() == 1
    pl.read_parquet(train).head(-1).write_parquet(train)
    assert num_runs() == num_runs() == 2
    script = tmp_path / "peer.py"
    script.write_text(script.read_text() + "# another peer\n")
    assert num_runs() == num_runs() == 3
    assert num_runs(histories=("validation", "test")) == 4
    peer.lists_path(1, "test").unlink()
    assert num_runs(histories=("validation", "test")) == 5
    # Fewer rounds leave no list of a later one.
    assert num_runs(peer=replace(peer, num_rounds=1)) == 6
    assert not peer.lists_path(2, "validation").exists()
    moved = script.rename(tmp_path / "moved.py")
    peer = replace(peer, command=[sys.executable, str(moved)])
    assert num_runs(peer=peer) == 7
    (tmp_path / "protocol.py").write_text("# what scripts share\n")
    assert num_runs(peer=peer) == num_runs(peer=peer) == 8


def test_a_peer_that_ends_with_an_error_leaves_nothing_to_go_on_with(ring, tmp_path):
    _, train = ring
    peer = peer_of(tmp_path)
    peer.learn(train, {"validation": train}, reporter=SilentReporter())
    dying = peer_of(tmp_path, script="raise SystemExit(3)")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="lister ended with 3"):
            dying.learn(train, {"validation": train}, reporter=SilentReporter())
    assert not dying.lists_path(2, "validation").exists()


def test_a_peer_takes_the_shape_of_our_model_and_what_the_command_line_says_last():
    peer = read_peer("rectools_hstu=env/bin/python --length 4 --loss 'sampled softmax'")
    model = ModelSettings(width=32, num_layers=1, num_heads=2, history_length=8)
    python, script, *options = peer.command(model=model, round_cpu_s=2.5)
    assert (python, Path(script).name) == ("env/bin/python", "rectools_sasrec.py")
    shape = ["--width", "32", "--num-layers", "1", "--num-heads", "2", "--length", "8"]
    own = ["--length", "4", "--loss", "sampled softmax"]
    assert options == ["--model", "hstu", *shape, "--round-cpu-s", "2.5", *own]
    assert "--width" not in peer.command()
    (*_, last) = read_peer("implicit_als=python").command(model=model, round_cpu_s=2.5)
    assert last == "als"


def test_scripts_of_known_peers_are_there():
    assert all(Path(AskedPeer(name, "python").command()[1]).is_file() for name in KNOWN_PEERS)


@pytest.mark.parametrize("text", ["python", "nobody=python", "replay_sasrec=", "replay_sasrec"])
def test_a_peer_that_nobody_knows_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"NAME=PYTHON.*pmixer_sasrec"):
        read_peer(text)


def test_a_peer_named_twice_is_refused(capsys):
    peers = [AskedPeer("replay_sasrec", "python"), AskedPeer("replay_sasrec", "python3")]
    with pytest.raises(SystemExit):
        check_names(argparse.ArgumentParser(), peers)
    assert "replay_sasrec arrived more often" in capsys.readouterr().err


@pytest.mark.parametrize("is_validation", [True, False])
def test_a_peer_reads_what_comes_before_the_ranked_event(workflow, tmp_path, monkeypatch, is_validation):
    monkeypatch.setitem(KNOWN_PEERS, "lister", KnownPeer(peer_of(tmp_path).command[1]))
    monkeypatch.setattr(quality, "read_train_s", lambda workflow: 30.0)
    monkeypatch.setattr(quality.torch, "get_num_threads", lambda: 2)
    file = tmp_path / "sequences.parquet"
    asked = argparse.Namespace(rounds=2, peer_cpu_s=None, file=file, validation=is_validation)
    scorer, facts = learn_peer(AskedPeer("lister", sys.executable), asked, tmp_path, workflow)
    read = {name: pl.read_parquet(tmp_path / "peers" / f"{name}.parquet") for name in ("validation", "test")}
    num_known = {"validation": LENGTH - 2, "test": LENGTH - 1}
    for name, rows in read.items():
        counted = rows.group_by("user_id").agg(pl.len(), pl.col("pos").max())
        assert counted.height == 80
        assert set(counted.select("len", "pos").rows()) == {(num_known[name], num_known[name] - 1)}
    assert (facts["epochs"], facts["validation_ndcg_at_10"]) == (4, [1.0, 1.0])
    assert facts["its_line"]["round"] == 1
    # As long as our steps took on both threads.
    assert facts["cpu_s_given"] == 60
    (cut_us,) = scorer.score_UN
    assert cut_us == to_us(BEFORE_LAST if is_validation else LAST)
    data = workflow.target_data("advertiser", [])
    ranked = read_sequences(asked.file).filter(pl.col("pos") == LENGTH - (2 if is_validation else 1))
    user = data.sequences.users.index(ranked["user_id"].cast(pl.String))
    item = data.vocabulary.index(ranked["item_id"].cast(pl.String))
    # Round 1 lists first the last seen and what nobody knows, then what comes next.
    assert (scorer.score_at(cut_us, user)[np.arange(80), item] == np.float32(1 / 3)).all()


def test_the_tables_are_rows_of_system_and_metric():
    interval = {"mean": 0.5, "ci_low": 0.25, "ci_high": 0.75}
    kept = {
        "mean": {"model": {"ndcg_at_10": 0.75}, "lister": {"ndcg_at_10": 0.25}},
        "difference": {"ndcg_at_10": {"lister": interval}},
    }
    found = tabulate({"seen_kept": kept, "seen_filtered": {"mean": {}, "difference": {}}})
    assert found.columns == ["table", "system", "metric", "mean", "difference", "ci_low", "ci_high"]
    assert found.rows() == [
        ("seen_kept", "model", "ndcg_at_10", 0.75, None, None, None),
        ("seen_kept", "lister", "ndcg_at_10", 0.25, 0.5, 0.25, 0.75),
    ]


def test_baskets_are_the_distinct_advertisers_of_a_time_before_the_cut(tmp_path):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        ("b", "B", "checkout", 1, 1.0),
        ("b", "A", "checkout", 1, 1.0),
        ("b", "B", "checkout", 1, 2.0),
        ("b", "C", "view", 2, 1.0),
        ("b", "C", "checkout", 3, 1.0),
        ("b", "A", "checkout", 4, 1.0),
        ("b", "D", "checkout", 9, 1.0),
        ("a", "A", "checkout", 9, 1.0),
    ]
    names = ["user_id", "advertiser_id", "event_type", "day", "price"]
    log = pl.DataFrame(rows, schema=names, orient="row")
    log.select(
        "user_id", "advertiser_id", "event_type", occurred_at=start + pl.duration(days="day")
    ).with_columns(price=log["price"]).write_parquet(tmp_path / "log.parquet")
    workflow = Workflow(build_config(tmp_path / "log.parquet", name="baskets", cut=LAST), tmp_path / "run")
    workflow.events()
    workflow.sequences()
    data, cut_us = workflow.target_data("advertiser", []), to_us(start + timedelta(days=9))
    baskets = read_baskets(data, cut_us)
    assert baskets["user_id"].to_list() == ["b"] * 4 and baskets["pos"].to_list() == [0, 1, 2, 3]
    items = baskets["item_id"].to_list()
    assert set(items[:2]) == {"A", "B"} and items[2:] == ["C", "A"]


@pytest.mark.parametrize("length", [1, 2, SESSION_LENGTH, SESSION_LENGTH + 1, SESSION_LENGTH + 2, 1000])
def test_a_long_history_is_cut_so_that_each_row_comes_next_once(length):
    other = pl.DataFrame({"user_id": ["b"] * 3, "item_id": ["x", "y", "z"], "pos": [0, 1, 2]})
    items = [str(number) for number in range(length)]
    long = pl.DataFrame({"user_id": "a", "item_id": items}).with_columns(pos=pl.int_range(pl.len()))
    sessions = cut_sessions(pl.concat([long, other]))
    pairs = []
    for session in sessions.partition_by("user_id"):
        rows = session["item_id"].to_list()
        assert 2 <= len(rows) <= SESSION_LENGTH + 1
        pairs += list(pairwise(rows))
    expected = [*pairwise(items), ("x", "y"), ("y", "z")]
    assert sorted(pairs) == sorted(expected)
