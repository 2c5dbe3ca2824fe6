"""`forecart bench` and the benchmarks on sequences: a planted order of which the right answer is known."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from benchmarks.speed import measure_lists
from commands import forecart, write_log

ROOT = Path(__file__).parents[2]
NUM_ITEMS, LENGTH = 60, 20
MODEL = {"width": 16, "num_layers": 1, "history_length": 8, "dropout": 0.0}
TRAINING = {"cuts_per_history": 8, "num_epochs": 12, "learning_rate": 1e-2, "warmup_steps": 5}


@pytest.fixture
def sequences(tmp_path):
    """Every user goes round the same ring of items from a place of its own; rows come in any order."""
    rng = np.random.default_rng(0)
    rows = [
        {"user_id": user, "pos": pos, "item_id": int(start + pos) % NUM_ITEMS}
        for user, start in enumerate(rng.integers(0, NUM_ITEMS, 80))
        for pos in range(LENGTH)
    ]
    path = tmp_path / "sequences.parquet"
    pl.DataFrame(rows).sample(fraction=1, shuffle=True, seed=1).write_parquet(path)
    return path


def run_benchmark(sequences, folder, *words, name="quality"):
    command = [sys.executable, "-m", f"benchmarks.{name}", str(sequences), "--name", "ring", *words]
    settings = ["--model", json.dumps(MODEL), "--training", json.dumps(TRAINING), "--output", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *settings], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def bench(path, folder, *words):
    settings = ["--model", json.dumps(MODEL), "--training", json.dumps(TRAINING), "--output", folder]
    return forecart("bench", path, *settings, *words)


def test_the_planted_order_is_found_at_the_last_event_but_one(sequences, tmp_path):
    said = bench(sequences, tmp_path / "run", "--validation", "--json")
    found = json.loads(said.stdout)
    assert found["is_validation"] and (found["num_users"], found["num_items"]) == (80, NUM_ITEMS)
    for name in ("seen_kept", "seen_filtered"):
        mean = {system: values["hit_rate_at_10"] for system, values in found[name]["mean"].items()}
        assert mean["skip_markov"] > 0.95 and mean["model"] > 0.9 and mean["popularity_all"] < 0.5
        assert found[name]["difference"]["ndcg_at_10"]["popularity_all"]["ci_low"] > 0.2
    log = pl.read_parquet(tmp_path / "run" / "log.parquet").sort("user_id", "occurred_at")
    steps = log.select(pl.col("advertiser_id").cast(pl.Int64).diff().over("user_id")).to_series().drop_nulls()
    assert set(steps % NUM_ITEMS) == {1}
    assert log.group_by("user_id").agg(pl.col("occurred_at").max())["occurred_at"].n_unique() == 1

    # The same weights at the last event, from a CSV; a second seed is trained beside them.
    pl.read_parquet(sequences).write_csv(tmp_path / "sequences.csv")
    said = bench(tmp_path / "sequences.csv", tmp_path / "run", "--seeds", 2)
    assert "model, seed 0: complete, skipped" in said.stderr
    assert f"the last event of 80 users, {NUM_ITEMS} items ranked" in said.stdout
    assert len(re.findall(r"^ *│? *seeds, HR@10 .* [01]\.\d{4} [01]\.\d{4}", said.stdout, re.MULTILINE)) == 2


def test_a_log_is_measured_over_the_days_after_a_cut(tmp_path):
    log = write_log(tmp_path / "log.csv")
    said = forecart("bench", log, "--protocol", "window", "--output", tmp_path / "run")
    assert "guessed: user_id" in said.stderr
    assert "Next advertiser" in said.stdout and said.stdout.rstrip().endswith("report.html")


@pytest.mark.parametrize(
    ("rows", "words", "rule"),
    [
        ({"user_id": [1], "item": [1], "pos": [1]}, [], "sequences need the columns user_id, item_id, pos"),
        ({"user_id": [1, None], "item_id": [1, 2], "pos": [1, 2]}, [], "1 rows lack one"),
        ({"user_id": [1], "item_id": [1], "pos": [1]}, ["--model", "{"], "--model is JSON"),
        ({"user_id": [1], "item_id": [1], "pos": [1]}, ["--training", "3"], "--training is a JSON object"),
        ({"user_id": [1], "item_id": [1], "pos": [1]}, ["--model", '{"widht": 8}'], "width"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_line(tmp_path, rows, words, rule):
    path = tmp_path / "sequences.parquet"
    pl.DataFrame(rows).write_parquet(path)
    said = forecart("bench", path, "--output", tmp_path / "run", *words, code=2)
    assert rule in said.stderr and said.stderr.count("\n") <= 2


def test_other_kinds_of_files_are_refused(tmp_path):
    (tmp_path / "sequences.xlsx").write_text("x")
    said = forecart("bench", tmp_path / "sequences.xlsx", "--output", tmp_path / "run", code=2)
    assert "read from .parquet or .csv" in said.stderr


def test_without_the_file_it_is_skipped_with_a_reason(tmp_path):
    assert run_benchmark(tmp_path / "none.parquet", tmp_path / "run").startswith("skipped: ")


def test_the_speed_benchmark_finds_the_planted_order_from_the_lists_alone(sequences, tmp_path):
    words = ["--goal", "0.5", "--results", str(tmp_path)]
    printed = run_benchmark(sequences, tmp_path, *words, name="speed")
    found = json.loads(printed[printed.index("\n{") :])["forecart"]
    assert found["best_ndcg_at_10"] > 0.5 and 0 < found["cpu_s_to_goal"] == found["cpu_s_spent"]
    assert json.loads((tmp_path / "speed-ring.json").read_text())["goal"] == 0.5
    seen = pl.read_parquet(tmp_path / "train.parquet").select("user_id", "item_id")
    lists = pl.read_parquet(tmp_path / "forecart" / "lists-1.parquet")
    assert lists.join(seen, on=["user_id", "item_id"], how="inner").height == 0
    assert lists.group_by("user_id").len()["len"].unique().to_list() == [NUM_ITEMS - (LENGTH - 2)]


def test_lists_are_measured_by_rank():
    lists = pl.DataFrame({"user_id": [1, 1, 2, 3], "item_id": [7, 8, 8, 9], "rank": [1, 3, 11, 10]})
    target = pl.DataFrame({"user_id": [1, 2, 3, 4], "item_id": [8, 8, 9, 9]})
    measured = measure_lists(lists, target)
    assert measured["hit_rate_at_10"] == 2 / 4
    assert measured["ndcg_at_10"] == pytest.approx((1 / 2 + 1 / np.log2(11)) / 4)
