"""R6: listing everyone, killed again and again, ends in the same bytes, with everybody in them once."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import polars as pl
import pytest

from forecart import artifacts
from forecart.config import load_config
from forecart.workflow import Workflow

NUM_KILLS = int(os.environ.get("FORECART_BATCH_KILLS", "3"))
CODE = """
import sys
from pathlib import Path
from tests.e2e.test_candidates_killed import make_workflow
make_workflow(Path(sys.argv[1])).list_candidates()
"""


def make_workflow(folder):
    """Nano with so few users in a part that there are many parts."""
    config = load_config("nano")
    candidates = config.candidates.model_copy(update={"block_users": 1})
    return Workflow(config.model_copy(update={"candidates": candidates}), folder)


def list_in_a_process(folder):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", CODE, str(folder)], env=environment)


def hash_tables(folder):
    files = artifacts.hash_folder(folder / "candidates")
    return {name: digest for name, digest in files.items() if not name.endswith(artifacts.INPUTS)}


@pytest.fixture(scope="module")
def uninterrupted(nano, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(nano.folder, folder)
    # In a process like those that are killed: sums depend on the number of threads.
    assert list_in_a_process(folder).wait() == 0
    return folder


def test_killed_at_random_the_tables_are_the_same(nano, uninterrupted, tmp_path):
    folder, generator = tmp_path / "run", random.Random(6)
    shutil.copytree(nano.folder, folder)
    shutil.rmtree(folder / "candidates")
    num_parts = len(list((uninterrupted / "candidates").rglob("part-*.parquet")))
    assert num_parts > 20
    killed_at = sorted(generator.sample(range(1, num_parts), NUM_KILLS))
    for wanted in killed_at:
        process = list_in_a_process(folder)
        # Killed in the middle of whatever comes after so many parts.
        while len(list((folder / "candidates").rglob("part-*.parquet"))) < wanted:
            assert process.poll() is None
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not list((folder / "candidates").glob("products/manifest.json"))
    assert list_in_a_process(folder).wait() == 0
    assert hash_tables(folder) == hash_tables(uninterrupted)


def test_nobody_is_missing_and_nobody_is_there_twice(nano, uninterrupted):
    everyone = pl.read_parquet(nano.folder / "candidates/advertisers/part-*.parquet")["user_id"].unique()
    for plural in ("advertisers", "products"):
        lists = pl.read_parquet(uninterrupted / "candidates" / plural / "part-*.parquet")
        assert set(lists["user_id"]) == set(everyone)
        assert not lists.select("user_id", "rank").is_duplicated().any()
