"""Row R7: training that was killed at random, also while it wrote a checkpoint, ends in the same bits."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


DAMAGES = {
    "flipped weights": ["damage", "state.safetensors", "flip"],
    "cut weights": ["damage", "state.safetensors", "truncate"],
    "no manifest": ["damage", "manifest.json", "remove"],
}
# A checkpoint is flushed six times: two for each of weights, facts and manifest.
NUM_FLUSHES = 6


def random_fates(rng):
    """Deaths after some steps, in a flush of the first or the second checkpoint, and in a clean-up."""
    fates = [["step", rng.randint(3, 5)], ["fsync", rng.randint(1, NUM_FLUSHES)], ["step", rng.randint(1, 4)]]
    return [*fates, ["rmdir", 1], ["fsync", NUM_FLUSHES + rng.randint(1, NUM_FLUSHES)]]


def play(folder, num_threads, scenarios):
    """All runs in one process of their own, whose only torch threads are its own."""
    command = [sys.executable, str(TESTS / "training" / "killed_run.py")]
    command += [str(folder), str(num_threads), json.dumps(scenarios)]
    # Passive: on a busy machine, threads that wait by spinning hold up those that they wait for.
    threads = {"OMP_NUM_THREADS": str(num_threads), "OMP_WAIT_POLICY": "PASSIVE", "POLARS_MAX_THREADS": "1"}
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **threads, "PYTHONPATH": path}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.fixture(scope="module")
def on_one_thread(tmp_path_factory):
    rng = random.Random(7)
    scenarios = {
        "random": random_fates(rng),
        "every flush": [["step", 3], *(["fsync", 1 + number] for number in range(NUM_FLUSHES))],
        "any moment": [["time", share] for share in (0.3, rng.uniform(0.1, 0.6), rng.uniform(0.1, 0.6))],
        **{name: [["step", 5], fate] for name, fate in DAMAGES.items()},
        "stored alone": [],
        "stored": [["step", 3], ["step", rng.randint(1, 4)], ["time", 0.2]],
    }
    return play(tmp_path_factory.mktemp("one"), 1, scenarios)


@pytest.fixture(scope="module")
def on_two_threads(tmp_path_factory):
    return play(tmp_path_factory.mktemp("two"), 2, {"random": random_fates(random.Random(8))})


def assert_same(facts, name, num_kills, *, alone="alone"):
    killed, alone = facts[name], facts[alone]
    assert killed["kills"] == num_kills and alone["kills"] == 0
    assert killed["weights"] == alone["weights"]
    assert killed["curve"] == alone["curve"]


@pytest.mark.parametrize("runs", ["on_one_thread", "on_two_threads"])
def test_training_killed_at_random_ends_in_the_same_bits(runs, request):
    facts = request.getfixturevalue(runs)
    assert_same(facts, "random", num_kills=5)
    starts = facts["random"]["starts"]
    assert starts == sorted(starts) and starts[-1] > 0


def test_training_killed_at_every_flush_of_a_checkpoint_ends_in_the_same_bits(on_one_thread):
    assert_same(on_one_thread, "every flush", num_kills=1 + NUM_FLUSHES)
    # The flush after the last rename makes the folder durable: that checkpoint is whole already.
    assert on_one_thread["every flush"]["starts"] == [0] + NUM_FLUSHES * [2] + [4]


def test_training_killed_at_any_moment_ends_in_the_same_bits(on_one_thread):
    # How many of the three found it still at work depends on the machine.
    kills = on_one_thread["any moment"]["kills"]
    assert 1 <= kills <= 3
    assert_same(on_one_thread, "any moment", num_kills=kills)


def test_training_that_reads_ahead_and_is_killed_ends_in_the_same_bits(on_one_thread):
    assert_same(on_one_thread, "stored", num_kills=3, alone="stored alone")
    assert on_one_thread["stored"]["weights"] != on_one_thread["alone"]["weights"]


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_newest_checkpoint_costs_steps_and_nothing_else(on_one_thread, name):
    assert_same(on_one_thread, name, num_kills=1)
    assert on_one_thread[name]["fallbacks"] == [[2, 2]]
    assert on_one_thread[name]["starts"] == [0, 2]
