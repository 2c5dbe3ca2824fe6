"""What arrived by the cut-off decides weights and candidates; order, repeats, garbage and future never do."""

import json
import random
from pathlib import Path

import polars as pl
import pytest

from forecart.artifacts import hash_folder
from forecart.config import validate_config
from forecart.events.synthetic import SyntheticConfig, build_world, generate_events, world_catalogue
from forecart.workflow import Workflow

AS_OF, LATER = "2025-02-05", "2025-02-08"
WORLD = SyntheticConfig(
    seed=3,
    num_events=4000,
    num_intents=3,
    successors_per_intent=2,
    advertisers_per_intent=5,
    items_per_advertiser=3,
    span_days=40,
    join_days=10,
)
MODEL = {"width": 16, "num_layers": 1, "history_length": 16, "id_rows": 64, "own_width": 8}
TARGET = {"model": MODEL, "training": {"num_epochs": 1, "batch_rows": 256, "device": "cpu"}, "top_k": 10}
ARTIFACTS = ("*.safetensors", "*.npy", "*.parquet", "settings.json")
TREE = {
    "source": {},
    "labels": {"positives": {"checkout": 1.0, "signup": 1.0}},
    "split": {"as_of": AS_OF, "validate_before": False},
    "candidates": {"as_of": AS_OF},
    "events": {"num_partitions": 2},
    "next_advertiser": TARGET,
    "next_product": TARGET,
}


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """The rows of a small world as JSON values, and its catalogue on disk."""
    world = build_world(WORLD)
    catalogue = tmp_path_factory.mktemp("world") / "catalogue.parquet"
    world_catalogue(world).write_parquet(catalogue)
    rows = [json.loads(line) for line in pl.concat(generate_events(world)).write_ndjson().splitlines()]
    return rows, catalogue


def run(lines, catalogue, folder):
    """Runs every stage on a log; returns the folder of the run."""
    folder.mkdir(exist_ok=True)
    path = folder / "log.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    tree = TREE | {"source": {"events": [str(path)], "catalogue": str(catalogue)}}
    Workflow(validate_config(tree, where="test"), folder / "run").run()
    return folder / "run"


def to_lines(rows):
    return [json.dumps(row).encode() for row in rows]


def hashes(run_folder):
    """Of everything that a run has learned, and of its candidates."""
    found = {
        f"{stage}/{name}": digest
        for stage in ("sequences", "training", "candidates")
        for name, digest in hash_folder(run_folder / stage).items()
        if any(Path(name).match(pattern) for pattern in ARTIFACTS) and "checkpoint-" not in name
    }
    assert sum(name.startswith("training/") and name.endswith(".safetensors") for name in found) >= 2
    # Of each level the lists, the users' vectors, the candidates' and their prior, and the list for nobody.
    assert sum(name.startswith("candidates/") for name in found) == 2 * 5
    return found


@pytest.fixture(scope="module")
def clean(log, tmp_path_factory):
    rows, catalogue = log
    return hashes(run(to_lines(rows), catalogue, tmp_path_factory.mktemp("clean")))


def make_future(rows, catalogue):
    """Late news of what had happened, and events after the cut-off: known and unknown users and products."""
    late = [row | {"event_id": f"late-{n}", "arrived_at": AS_OF} for n, row in enumerate(rows[:300])]
    new = {"occurred_at": LATER, "arrived_at": LATER, "event_type": "checkout"}
    known = [row | new | {"event_id": f"new-{n}"} for n, row in enumerate(rows[300:600])]
    unknown = [
        row
        | new
        | {"event_id": f"x{n}", "user_id": f"!{n}", "item_id": f"!{n % 7}", "advertiser_id": "!shop"}
        for n, row in enumerate(rows[:100])
    ]
    return late + known + unknown


def test_a_shuffled_duplicated_poisoned_log_gives_the_same_candidates(log, clean, tmp_path):
    rows, catalogue = log
    draw = random.Random(5)
    poisoned = rows + draw.sample(rows, 400) + make_future(rows, catalogue)
    draw.shuffle(poisoned)
    folder = run(to_lines(poisoned), catalogue, tmp_path)
    assert json.loads((folder / "events" / "manifest.json").read_text())["counts"]["duplicates"] == 400
    assert hashes(folder) == clean


def make_garbage(row, num_lines):
    line = json.dumps(row).encode()
    kinds = [
        line[:-1],
        line.replace(b'"user_id":', b'"user_id"'),
        line[:-1] + b', "value": NaN}',
        line[:-1] + b', "currency": "E\xff\xfeR"}',
        json.dumps(row | {"user_id": ["u"]}).encode(),
        json.dumps(row | {"quantity": "many"}).encode(),
        json.dumps(row | {"occurred_at": 1_738_540_800_000}).encode(),
    ]
    huge = json.dumps(row | {"item_id": "x" * 10_000_000}).encode()
    return [huge, *(kinds[number % len(kinds)] for number in range(num_lines - 1))]


def test_one_percent_of_garbage_gives_the_same_candidates(log, clean, tmp_path):
    rows, catalogue = log
    lines, draw = [(line, False) for line in to_lines(rows)], random.Random(6)
    for garbage in make_garbage(rows[0], len(rows) // 100):
        lines.insert(draw.randrange(len(lines) + 1), (garbage, True))
    folder = run([line for line, _ in lines], catalogue, tmp_path)
    quarantine = pl.read_parquet(folder / "events" / "quarantine.parquet")
    assert quarantine["offset"].to_list() == [at for at, (_, is_bad) in enumerate(lines) if is_bad]
    assert hashes(folder) == clean
