"""The nano run from outside: a process, its output, and what anyone can recompute from its files."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path

import polars as pl
import pytest

POSITIVES = ("checkout", "signup", "add_to_cart")
ID = {"advertisers": "advertiser_id", "products": "item_id"}


def forecart(*words, cwd=None, code=0, env=None):
    result = subprocess.run(
        [sys.executable, "-m", "forecart", *map(str, words)],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | (env or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result


def hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_events(folder):
    return pl.concat([pl.read_parquet(path) for path in sorted((folder / "events").glob("part-*.parquet"))])


def test_the_last_line_is_the_path_of_the_report(nano):
    path = Path(nano.stdout.splitlines()[-1])
    assert path == nano.folder / "report.html"
    assert path.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")


def test_the_table_says_how_the_model_stands_in_both_targets_and_pools(nano):
    for title in ("Next advertiser, all", "Next advertiser, only", "Next product, all", "Next product, only"):
        assert title in nano.stdout
    assert "ahead" in nano.stdout and "level" in nano.stdout
    assert "popularity_7d" not in nano.stderr


def test_a_run_keeps_its_configuration_and_says_its_stages(nano):
    kept = json.loads((nano.folder / "config.json").read_text())
    assert kept["name"] == "nano" and kept["labels"]["window_days"] == 7
    for stage in ("events", "sequences", "training: next_product", "evaluation", "candidates: products"):
        assert stage in nano.stderr


@pytest.fixture
def own_nano(nano, tmp_path):
    """A copy of the nano run to work on: one process does at a time."""
    return Path(shutil.copytree(nano.folder, tmp_path / "nano"))


def test_running_again_skips_everything_and_changes_no_byte(nano, own_nano):
    before = hashes(own_nano)
    again = forecart("run", "nano", "--output", own_nano)
    stages = [line for line in again.stderr.splitlines() if line.startswith("[")]
    assert len(stages) >= 8 and all("skipped" in line for line in stages)
    assert "training: done" not in again.stderr
    assert again.stdout.replace(str(own_nano), str(nano.folder)) == nano.stdout
    assert hashes(own_nano) == before


def test_a_successor_term_changes_the_lists_without_new_training(nano, tmp_path):
    folder, config = tmp_path / "run", tmp_path / "forecart.toml"
    shutil.copytree(nano.folder, folder)
    text = resources.files("forecart.configs").joinpath("nano.toml").read_text()
    config.write_text(text + "\n[next_advertiser.successors]\nweight = 0.5\n")
    told = forecart("run", config, "--output", folder).stderr.splitlines()
    training = [line for line in told if "training:" in line]
    assert training and all("skipped" in line for line in training)

    def lists(folder, plural):
        return pl.read_parquet(sorted((folder / "candidates" / plural).glob("part-*.parquet")))

    assert not lists(folder, "advertisers").equals(lists(nano.folder, "advertisers"))
    assert lists(folder, "products").equals(lists(nano.folder, "products"))


@pytest.mark.parametrize("plural", ["advertisers", "products"])
def test_every_user_has_a_full_list_in_order(nano, plural):
    parts = sorted((nano.folder / "candidates" / plural).glob("part-*.parquet"))
    lists = pl.concat([pl.read_parquet(path) for path in parts])
    assert lists.columns == ["user_id", "rank", ID[plural], "score", "is_repeat", "as_of"]
    assert set(lists["user_id"]) == set(read_events(nano.folder)["user_id"])
    for (_,), rows in lists.group_by("user_id"):
        ordered = rows.sort("rank")
        assert ordered["rank"].to_list() == list(range(1, (60 if plural == "advertisers" else 100) + 1))
        assert ordered["score"].is_sorted(descending=True)
        assert ordered[ID[plural]].n_unique() == ordered.height


@pytest.mark.parametrize(
    ("plural", "section"), [("advertisers", "next_advertiser"), ("products", "next_product")]
)
def test_anyone_can_recompute_the_report_from_the_lists(nano, plural, section):
    """A loop over plain rows: labels from the log, lists from Parquet, no code of the evaluation."""
    lists = pl.read_parquet(nano.folder / "evaluation" / f"{plural}_top100.parquet")
    assert lists.columns == ["pool", "list", "cut", "user_id", "rank", ID[plural], "score"]
    assert set(lists["pool"]) == {"all", "novel", "repeat"} and lists["rank"].min() == 1
    report = json.loads((nano.folder / "evaluation" / "report.json").read_text())
    relevant = find_relevant(read_events(nano.folder), lists["cut"].unique().item(), ID[plural])
    for pool in ("all", "novel", "repeat"):
        of_pool = lists.filter(pl.col("pool") == pool)
        table = report[section][pool]
        expected = {"model": table["model"], **table["baselines"]}
        assert set(of_pool["list"]) == set(expected) and table["num_rows"] == len(relevant[pool])
        for name, values in expected.items():
            chosen = of_pool.filter(pl.col("list") == name)
            for k in (10, 100):
                found = recall(chosen.filter(pl.col("rank") <= k), relevant[pool], ID[plural])
                assert values[f"recall_at_{k}"] == pytest.approx(found, abs=1e-9)
        for name, difference in table["difference"]["recall_at_10"].items():
            expected_mean = table["model"]["recall_at_10"] - table["baselines"][name]["recall_at_10"]
            assert difference["mean"] == pytest.approx(expected_mean, abs=1e-9)
            assert difference["ci_low"] <= difference["mean"] <= difference["ci_high"]


def find_relevant(events, cut, id_column):
    """By pool and user, what the user converted with in the seven days after the cut."""
    before, after = {}, {}
    for row in events.filter(pl.col("event_type").is_in(POSITIVES)).to_dicts():
        if row[id_column] is None:
            continue
        if row["arrived_at"] < cut:
            before.setdefault(row["user_id"], set()).add(row[id_column])
        if cut <= row["occurred_at"] < cut + timedelta(days=7):
            after.setdefault(row["user_id"], set()).add(row[id_column])
    everything = {user: found for user, found in after.items() if user in before}
    pools = {
        "all": everything,
        "novel": {user: found - before[user] for user, found in everything.items()},
        "repeat": {user: found & before[user] for user, found in everything.items()},
    }
    return {pool: {user: found for user, found in of.items() if found} for pool, of in pools.items()}


def recall(rows, relevant, id_column):
    listed = {}
    for user, candidate in rows.select("user_id", id_column).iter_rows():
        listed.setdefault(user, set()).add(candidate)
    shares = [len(found & listed.get(user, set())) / len(found) for user, found in relevant.items()]
    return sum(shares) / len(shares)


def test_a_user_s_events_and_candidates_side_by_side(nano):
    user = read_events(nano.folder)["user_id"][0]
    shown = forecart("candidates", "show", user, "--run", nano.folder, "--limit", 3).stdout
    assert all(words in shown for words in ("recent events", "next advertisers", "next products", user))
    found = json.loads(forecart("candidates", "show", user, "--run", nano.folder, "--json").stdout)
    latest = read_events(nano.folder).filter(pl.col("user_id") == user)["occurred_at"].max()
    assert datetime.fromisoformat(found["events"][0]["occurred_at"]) == latest
    first = pl.read_parquet(nano.folder / "candidates" / "products" / "part-00000.parquet").filter(
        (pl.col("user_id") == user) & (pl.col("rank") == 1)
    )
    assert found["products"][0]["item_id"] == first["item_id"].item()
    assert found["products"][0]["title"] and len(found["advertisers"]) == 20


def test_an_unknown_user_is_answered_with_known_ones(nano):
    said = forecart("candidates", "show", "nobody", "--run", nano.folder, code=2)
    assert said.stdout == "" and said.stderr.count("\n") == 1
    assert said.stderr.startswith("error: ") and "'nobody'" in said.stderr and "u0000" in said.stderr


def test_results_as_json(nano, own_nano):
    found = json.loads(forecart("run", "nano", "--output", own_nano, "--json", "--quiet").stdout)
    rows = {(row["target"], row["pool"], row["metric"], row["baseline"]): row for row in found["comparisons"]}
    report = json.loads((nano.folder / "evaluation" / "report.json").read_text())
    row = rows["next_advertiser", "novel", "recall_at_10", "popularity_7d"]
    assert row["model"] == report["next_advertiser"]["novel"]["model"]["recall_at_10"]
    assert ("next_advertiser", "all", "recall_at_100", "no_encoder") in rows
    assert Path(
        json.loads(forecart("report", "path", "--run", nano.folder, "--json").stdout)["report"]
    ).exists()


def test_what_reads_a_run_needs_no_torch_and_what_trains_says_so(nano, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['torch'] = None\n")
    env = {"PYTHONPATH": str(tmp_path)}
    assert forecart("report", "path", "--run", nano.folder, env=env).stdout.strip().endswith("report.html")
    user = read_events(nano.folder)["user_id"][0]
    forecart("candidates", "show", user, "--run", nano.folder, env=env)
    forecart("config", "show", "nano", env=env)
    said = forecart("run", "nano", "--output", tmp_path / "run", code=2, env=env)
    assert said.stderr.count("\n") == 1 and "pip install 'forecart[train]'" in said.stderr


def test_an_interrupted_run_says_how_to_go_on_and_goes_on(nano, tmp_path):
    command = [sys.executable, "-m", "forecart", "train", "nano", "--output", str(tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "training: next_advertiser" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 130
    assert "interrupted" in rest and "continues" in rest and "Traceback" not in rest
    assert (
        "events: complete, skipped" in forecart("events", "validate", "nano", "-o", tmp_path / "run").stderr
    )
