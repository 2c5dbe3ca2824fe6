"""What scripts of peers share: rounds, lists and lines by a peer of which every answer is known."""

import importlib
import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"
# Takes a tenth of a second for a batch, of which an epoch has four; scores items by their number.
SCRIPT = """
import time
from itertools import count
from pathlib import Path
import torch
from indexed import ItemNumbers, SequenceLearner
from protocol import add_shape, build_parser, read_rows, serve

parser = build_parser(None)
add_shape(parser)
parser.add_argument("--checkout", type=Path)
asked = parser.parse_args()

def steps():
    for number in count(1):
        until = time.process_time() + 0.1
        while time.process_time() < until:
            pass
        yield number / 4

rows = read_rows(asked.train)
items = ItemNumbers(rows)
score = lambda users: torch.arange(len(items) + 1.0).expand(len(users), -1).clone()
learner = SequenceLearner(items, items.read(rows), steps=steps(), score=score)
serve(asked, learner, versions={"ring": "1"}, num_threads=1)
"""


@pytest.fixture
def shared(monkeypatch):
    """Imports a module of the peers' folder, which a script finds beside it."""
    monkeypatch.syspath_prepend(str(PEERS))
    names = {path.stem for path in PEERS.glob("*.py")}
    yield importlib.import_module
    for name in names & set(sys.modules):
        del sys.modules[name]


@pytest.fixture
def run(tmp_path):
    """Runs the script on what two users did, so many rounds, and returns its lines."""
    (tmp_path / "peer.py").write_text(SCRIPT)
    # In no order: pos has it. Items are 10, 20, .. 50; item 50 is done by the second user alone.
    rows = [("b", 50, 2), ("a", 20, 1), ("b", 10, 0), ("a", 10, 0), ("b", 30, 1), ("a", 40, 2)]
    columns = ["user_id", "item_id", "pos"]
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(tmp_path / "train.parquet")
    new = [("c", 50, 0), ("c", 99, 1), ("d", 99, 0)]
    pl.DataFrame(new, schema=columns, orient="row").write_parquet(tmp_path / "new.parquet")

    def run(*options, num_rounds=2):
        done = subprocess.run(
            [sys.executable, tmp_path / "peer.py", tmp_path / "train.parquet", tmp_path / "out", *options],
            input="\n" * num_rounds,
            env=os.environ | {"PYTHONPATH": str(PEERS)},
            capture_output=True,
            text=True,
            check=True,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_a_round_is_epochs_or_ends_with_the_batch_that_spends_its_time(run):
    lines = run("--epochs-a-round", "2")
    assert [line["epochs"] for line in lines] == [2, 4]
    assert [line["round"] for line in lines] == [1, 2]
    (first, second) = run("--round-cpu-s", "0.25")
    # Three batches of a tenth, from where the first round ended.
    assert (first["epochs"], second["epochs"]) == (0.75, 1.5)
    assert 0.3 <= first["fit_cpu_s"] < 0.5 and second["fit_cpu_s"] >= 0.6


def test_a_line_says_what_it_took_and_names_no_folder(run, tmp_path):
    (line,) = run("--width", "16", "--checkout", str(tmp_path), num_rounds=1)
    assert line["recommend_s"] > 0 and line["recommend_cpu_s"] > 0 and line["peak_memory_gb"] > 0
    assert (line["num_users"], line["num_listed"], line["num_threads"]) == (2, {}, 1)
    assert line["versions"] == {"ring": "1"}
    assert line["settings"]["width"] == 16 and str(tmp_path) not in json.dumps(line)


def test_without_a_history_everyone_is_listed_without_the_seen(run, tmp_path):
    run(num_rounds=1)
    lists = pl.read_parquet(tmp_path / "out" / "lists-1.parquet")
    assert lists.columns == ["user_id", "item_id", "rank"]
    assert lists.sort("user_id", "rank").rows() == [
        ("a", 50, 1),
        ("a", 30, 2),
        ("b", 40, 1),
        ("b", 20, 2),
    ]


def test_of_a_history_both_lists_are_written_and_strangers_left_out(run, tmp_path):
    (line,) = run("--top-k", "2", "--history", f"later={tmp_path / 'new.parquet'}", num_rounds=1)
    assert line["num_listed"] == {"later": 1} and "recommend_s" not in line
    lists = pl.read_parquet(tmp_path / "out" / "lists-1-later.parquet")
    assert lists.rows() == [("c", 50, 1, False), ("c", 40, 2, False), ("c", 40, 1, True), ("c", 30, 2, True)]


def test_rows_are_padded_and_cut_to_the_latest(shared):
    indexed = shared("indexed")
    rows = [np.array([1, 2, 3]), np.array([4])]
    assert indexed.pad(rows, 2).tolist() == [[2, 3], [0, 4]]
    assert indexed.pad(rows, 2, value=9, is_left=False).tolist() == [[2, 3], [4, 9]]


def test_an_epoch_has_every_row_once(shared):
    indexed = shared("indexed")
    batches = indexed.shuffled([np.array([number]) for number in range(5)], 2, np.random.default_rng(0))
    for epoch in range(2):
        taken = list(islice(batches, 3))
        assert [epochs * 3 for epochs, _ in taken] == pytest.approx(
            [3 * epoch + 1, 3 * epoch + 2, 3 * epoch + 3]
        )
        assert sorted(int(row[0]) for _, rows in taken for row in rows) == list(range(5))


def test_negatives_of_pmixer_are_what_a_user_has_not_done(shared):
    draw_negatives = shared("pmixer_sasrec").draw_negatives
    is_seen = np.zeros((3, 5), np.bool_)
    is_seen[0, [1, 2]] = is_seen[2, 1:] = True
    drawn = draw_negatives(is_seen, 200, np.random.default_rng(0))
    assert [set(row) for row in drawn] == [{3, 4}, {1, 2, 3, 4}, {1, 2, 3, 4}]


@pytest.mark.parametrize("calibration", [0.0, 0.75, 1.0])
def test_the_loss_of_gsasrec_is_its_formula(shared, calibration):
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    share = 4 / 40
    found = shared("asash_gsasrec").generalised_bce(logits, sampled_share=share, calibration=calibration)
    # The paper's beta, and its loss by products of probabilities.
    beta = share * (calibration * (1 - 1 / share) + 1 / share)
    total = 0.0
    for positive, *negatives in torch.sigmoid(logits).tolist():
        total -= np.log(positive**beta * np.prod([1 - one for one in negatives])) / 5
    assert float(found) == pytest.approx(total)
