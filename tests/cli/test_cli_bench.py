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
from benchmarks import ablations
from benchmarks.ablations import SAMPLED, AblationData, render
from commands import forecart, write_log

from forecart.bench import choose_settings, hide_latest

ROOT = Path(__file__).parents[2]
NUM_ITEMS, LENGTH = 60, 20
ONE_EVENT = {"user_id": [1], "item_id": [1], "pos": [1]}
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
    assert "successor term: weight 0.15, floor 0.03 (--successors)" in said.stdout
    assert f"the last event of 80 users, {NUM_ITEMS} items ranked" in said.stdout
    assert len(re.findall(r"^ *│? *seeds, HR@10 .* [01]\.\d{4} [01]\.\d{4}", said.stdout, re.MULTILINE)) == 2
    found = json.loads(bench(sequences, tmp_path / "run", "--seeds", 2, "--json").stdout)["seen_kept"]
    for metric, (first, second) in found["seeds"].items():
        assert found["mean"]["model"][metric] == pytest.approx((first + second) / 2)
        assert found["seed_to_seed"][metric] == pytest.approx(abs(first - second) / 2**0.5)


def test_the_successor_term_is_changed_without_new_training(sequences, tmp_path):
    def run(*words):
        said = bench(sequences, tmp_path / "run", "--validation", "--ablate-encoder", *words, "--json")
        return json.loads(said.stdout), said.stderr

    usual, _ = run()
    without, told = run("--successors", '{"weight": 0}')
    training = [line for line in told.splitlines() if "training:" in line]
    assert len(training) == 2 and all("skipped" in line for line in training)
    for found, weight in ((usual, 0.15), (without, 0)):
        for settings in (found["settings"], found["summary_only"]["settings"]):
            assert settings["successors"] == {"weight": weight, "floor": 0.03}
    ours = [one["seen_kept"]["difference"]["ndcg_at_10"]["popularity_all"] for one in (usual, without)]
    assert ours[0] != ours[1]
    assert usual["seen_kept"]["mean"]["skip_markov"] == without["seen_kept"]["mean"]["skip_markov"]


def test_a_file_of_nothing_new_is_measured_with_the_seen_alone(tmp_path):
    path = tmp_path / "rounds.parquet"
    rows = [{"user_id": user, "pos": pos, "item_id": pos % 4} for user in range(30) for pos in range(12)]
    pl.DataFrame(rows).write_parquet(path)
    words = ["--model", json.dumps(MODEL), "--training", json.dumps(TRAINING | {"num_epochs": 1})]
    said = forecart("bench", path, *words, "--output", tmp_path / "run")
    assert "seen items left out: no user's ranked event is a new item" in " ".join(said.stdout.split())
    said = forecart("bench", path, *words, "--output", tmp_path / "run", "--json")
    found = json.loads(said.stdout)
    assert (found["seen_filtered"]["num_users"], found["seen_kept"]["num_users"]) == (0, 30)
    assert found["seen_kept"]["mean"]["skip_markov"]["hit_rate_at_10"] == 1.0


def test_a_summary_in_place_of_the_encoder_is_measured_beside_it(sequences, tmp_path):
    folder = tmp_path / "run"
    found = json.loads(bench(sequences, folder, "--validation", "--ablate-encoder", "--json").stdout)
    trained = folder / "summary_only" / "training" / "next_advertiser" / "model-0"
    used = json.loads((trained / "settings.json").read_text())["model"]
    assert found["summary_only"]["num_seeds"] == 1 and used["num_layers"] == 0
    assert found["summary_only"]["settings"]["model"].items() <= used.items()
    for name in ("seen_kept", "seen_filtered"):
        mean = {system: values["ndcg_at_10"] for system, values in found[name]["mean"].items()}
        gain = found[name]["difference"]["ndcg_at_10"]["summary_only"]
        assert gain["mean"] == pytest.approx(mean["model"] - mean["summary_only"], abs=1e-9)
        assert mean["summary_only"] > mean["popularity_all"]


def run_ablations(sequences, *words):
    command = [sys.executable, "-m", "benchmarks.ablations", str(sequences), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_variants_are_held_against_the_default_and_stored(sequences, tmp_path):
    def run():
        places = ["--output", str(tmp_path / "runs"), "--results", str(tmp_path)]
        done = run_ablations(sequences, "--name", "ring", "--render", "--only", "1 layer", *places)
        assert done.returncode == 0, done.stderr
        return done

    said = run()
    path = tmp_path / "ablations-ring.json"
    stored = json.loads(path.read_text())
    assert [one["name"] for one in stored] == ["default", "1 layer"] and stored[1]["model"]["num_layers"] == 1
    default, variant = (one["values"]["NDCG@10"] for one in stored)
    mean, low, high = stored[1]["differences"]["NDCG@10"]
    assert mean == pytest.approx(variant - default, abs=1e-9) and low <= mean <= high
    assert (
        "| 1 layer | default | " in said.stdout and f"{variant:.4f} ({mean:+.4f} [{low:+.4f}" in said.stdout
    )
    assert "training" in said.stderr and "training" not in run().stderr

    # A record of other settings is dropped; here the model itself is still there.
    stored[1]["key"] = "of other settings"
    path.write_text(json.dumps(stored))
    assert "1 layer" in run().stderr
    assert json.loads(path.read_text())[1]["key"] != "of other settings"


def test_a_record_follows_from_settings_reference_and_sequences(sequences, tmp_path, monkeypatch):
    def keys(path=sequences):
        return AblationData("ring", tmp_path / "runs", path).keys()

    before = keys()
    assert len(set(before.values())) == len(before) and before == keys()
    monkeypatch.setattr(ablations.bench, "SPARSE", {"model": {"dropout": 0.4}})
    assert not set(keys().values()) & set(before.values())
    monkeypatch.undo()
    pl.read_parquet(sequences).head(-1).write_parquet(tmp_path / "shorter.parquet")
    assert not set(keys(tmp_path / "shorter.parquet").values()) & set(before.values())
    monkeypatch.setattr(ablations, "TRAINED_FORMAT", 0)
    assert not set(keys().values()) & set(before.values())


@pytest.mark.parametrize("is_of_file", [True, False])
def test_a_variant_differs_from_its_reference_in_what_it_names(sequences, tmp_path, is_of_file):
    data = AblationData("ring", tmp_path / "runs", sequences if is_of_file else None)

    def settings(variant):
        config = data.config(variant)
        dumped = config.model_dump(exclude={"next_advertiser": {"model", "training", "successors"}})
        target = config.next_advertiser
        settings = {**target.model.model_dump(), **target.training.loss.model_dump()}
        return dumped, {
            **settings,
            "successors": target.successors,
            "own_rate": target.training.own_rate_factor,
        }

    names = [one.name for one in data.variants]
    for place, variant in enumerate(data.variants):
        assert variant.against in names[: max(place, 1)]
        (rest, ours), (reference_rest, reference) = settings(variant), settings(data.variant(variant.against))
        # Of the label contract only what evaluation does not read may change.
        assert set(variant.labels) <= {"cuts_per_user"}
        assert rest == reference_rest | {"labels": reference_rest["labels"] | variant.labels}
        if variant.against == SAMPLED:
            assert {name for name in ours if ours[name] != reference[name]} <= set(variant.training["loss"])
    assert data.default == data.config(data.variant("default"))


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["--name", "complete_journey"], "--name"),
        (["--name", "ring", "--only", "2 layer"], "there are default, no successor term, "),
    ],
)
def test_names_that_are_taken_or_unknown_are_refused(sequences, words, rule):
    done = run_ablations(sequences, *words)
    assert done.returncode == 2 and rule in done.stderr and "Traceback" not in done.stderr


def test_the_page_of_ablations_is_what_is_stored(tmp_path):
    assert (ROOT / "docs" / "ablations.md").read_text() == render()
    provenance = {"commit": "abc", "machine": "a machine"}
    values = {"HR@10": 0.3, "NDCG@10": 0.2, "Recall@100": None}
    default = {"name": "default", "against": "default", "values": values, "differences": {}, "train_s": 9.6}
    variant = default | {"name": "1 layer", "differences": {"HR@10": [-0.01, -0.02, 0.001]}}
    stored = [one | {"provenance": provenance} for one in (default, variant)]
    (tmp_path / "ablations-ring.json").write_text(json.dumps(stored))
    assert render(tmp_path).splitlines()[-8:] == [
        "## ring",
        "",
        "|  | against | HR@10 | NDCG@10 | Recall@100 | training, s |",
        "| --- | --- | --- | --- | --- | --- |",
        "| default |  | 0.3000 | 0.2000 | - | 10 |",
        "| 1 layer | default | 0.3000 (-0.0100 [-0.0200, +0.0010]) | 0.2000 | - | 10 |",
        "",
        "a machine; commits abc.",
    ]


@pytest.mark.parametrize(("num_items", "dropout", "num_epochs"), [(36, 0.3, 12), (37, 0.5, 8)])
def test_where_items_are_rare_more_is_dropped_and_epochs_are_fewer(num_items, dropout, num_epochs):
    rows = [
        {"user_id": user, "item_id": (18 * user + pos) % num_items, "pos": pos}
        for user in range(100)
        for pos in range(20)
    ]
    # Of 36 items 50 events each are learned from; with the two of each user that are hidden it were 55.
    learned = hide_latest(pl.DataFrame(rows).sample(fraction=1, shuffle=True, seed=1), 2)
    assert learned.height == 100 * 18 and learned["pos"].max() == 17
    settings = choose_settings(learned)
    assert (settings["model"]["dropout"], settings["training"]["num_epochs"]) == (dropout, num_epochs)


def test_what_is_hidden_chooses_no_settings(tmp_path):
    # Of 60 items 50 events each, but 47.5 without the two of each user that are hidden.
    rows = [
        {"user_id": user, "item_id": (user + pos) % 60, "pos": pos} for user in range(75) for pos in range(40)
    ]
    path = tmp_path / "sequences.parquet"
    pl.DataFrame(rows).write_parquet(path)
    settings = ["--model", json.dumps({"width": 16}), "--training", json.dumps({"num_epochs": 1})]
    said = forecart("bench", path, "--output", tmp_path / "run", "--json", *settings)
    assert json.loads(said.stdout)["settings"]["model"]["dropout"] == 0.5


def test_a_file_that_did_not_change_is_not_read_again(sequences, tmp_path):
    bench(sequences, tmp_path / "run", "--validation")
    said = bench(sequences, tmp_path / "run")
    assert said.stderr.count("complete, skipped") == 3


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
        (
            {"user_id": [1, 1], "item_id": [1, 2], "pos": [1, 1]},
            [],
            "1 rows of sequences.parquet stand where",
        ),
        (ONE_EVENT, ["--protocol", "window", "--seeds", 2], "for --protocol"),
        (ONE_EVENT, ["--model", "{"], "--model is JSON"),
        (ONE_EVENT, ["--training", "3"], "--training is a JSON object"),
        (ONE_EVENT, ["--model", '{"widht": 8}'], "width"),
        (ONE_EVENT, ["--successors", '{"wieght": 8}'], "weight"),
        (
            ONE_EVENT,
            ["--protocol", "window", "--successors", '{"weight": 0}'],
            "--successors and --ablate-encoder are for --protocol loo",
        ),
    ],
)
def test_what_cannot_be_read_is_said_in_a_line(tmp_path, rows, words, rule):
    path = tmp_path / "sequences.parquet"
    pl.DataFrame(rows).write_parquet(path)
    said = forecart("bench", path, "--output", tmp_path / "run", *words, code=2)
    assert rule in said.stderr and said.stderr.count("\n") <= 2


def test_files_that_are_missing_or_damaged_are_refused(tmp_path):
    path = tmp_path / "sequences.parquet"
    said = forecart("bench", path, "--output", tmp_path / "run", code=2)
    assert "there is none at" in said.stderr
    path.write_text("no Parquet")
    said = forecart("bench", path, "--output", tmp_path / "run", code=2)
    assert "must be readable as .parquet" in said.stderr


def test_other_kinds_of_files_are_refused(tmp_path):
    (tmp_path / "sequences.xlsx").write_text("x")
    said = forecart("bench", tmp_path / "sequences.xlsx", "--output", tmp_path / "run", code=2)
    assert "read from .parquet or .csv" in said.stderr


def test_without_the_file_it_is_skipped_with_a_reason(tmp_path):
    assert run_benchmark(tmp_path / "none.parquet", tmp_path / "run").startswith("skipped: ")


def test_the_speed_benchmark_finds_the_planted_order_from_the_lists_alone(sequences, tmp_path):
    words = ["--goal", "0.5", "--results", str(tmp_path)]
    folder = tmp_path / "race"
    printed = run_benchmark(sequences, folder, *words, name="speed")
    kept = json.loads((tmp_path / "speed-ring.json").read_text())
    found = kept["forecart"]
    assert found["best_ndcg_at_10"] > 0.5 and 0 < found["cpu_s_to_goal"] == found["cpu_s_spent"]
    assert kept["goal"] == 0.5 and kept["cpu_s_to_goal"] == {"forecart": found["cpu_s_to_goal"]}
    told, where = (
        json.loads(re.search(rf"^{name}: (.*)$", printed, re.MULTILINE)[1])
        for name in ("forecart, in all", "run")
    )
    assert told == {key: value for key, value in found.items() if key != "rounds"}
    assert where == kept["provenance"]
    seen = pl.read_parquet(folder / "train.parquet").select(pl.col("user_id", "item_id").cast(pl.String))
    lists = pl.read_parquet(folder / "forecart" / "lists-1.parquet")
    assert lists.join(seen, on=["user_id", "item_id"], how="inner").height == 0
    assert lists.group_by("user_id").len()["len"].unique().to_list() == [NUM_ITEMS - (LENGTH - 2)]


def test_the_step_benchmark_counts_the_products_of_a_step(sequences, tmp_path):
    words = ["--training", json.dumps(TRAINING | {"batch_rows": 16}), "--results", tmp_path]
    command = [sys.executable, "-m", "benchmarks.step", sequences, "--name", "ring", "--output", tmp_path]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    settings = ["--model", json.dumps(MODEL)]
    done = subprocess.run(
        [*command, *settings, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "step-ring.json").read_text())
    assert 0 < found["share_of_products_outside_attention"] < found["share_of_products"] < 1
    assert 0 <= found["padding_share"] < 0.2 and found["targets_per_s"] <= found["events_per_s"] * 1.5
