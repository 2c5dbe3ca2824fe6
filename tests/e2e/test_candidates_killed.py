"""R6: listing everyone, killed again and again, ends in the same bytes, with everybody in them once.

Killed are whole runs, and workers of a run that goes on.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

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
from forecart.engine.local import LocalEngine

if __name__ == "__main__":
    make_workflow(Path(sys.argv[1]), LocalEngine(int(sys.argv[2]))).list_candidates()
"""


def make_workflow(folder, engine=None):
    """Nano with so few users in a part that there are many parts."""
    config = load_config("nano")
    candidates = config.candidates.model_copy(update={"block_users": 1})
    return Workflow(config.model_copy(update={"candidates": candidates}), folder, engine=engine)


def list_in_a_process(folder, num_workers=1):
    return subprocess.Popen([sys.executable, "-c", CODE, str(folder), str(num_workers)])


def find_workers(process):
    """The processes that a process has started for its tasks."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def wait_for_parts(process, folder, wanted):
    while len(list((folder / "candidates").rglob("part-*.parquet"))) < wanted:
        assert process.poll() is None
        time.sleep(0.002)


def hash_tables(folder):
    files = artifacts.hash_folder(folder / "candidates")
    return {name: digest for name, digest in files.items() if not name.endswith(artifacts.INPUTS)}


@pytest.fixture(scope="module")
def uninterrupted(nano, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(nano.folder, folder)
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
        wait_for_parts(process, folder, wanted)
        time.sleep(generator.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not list((folder / "candidates").glob("products/manifest.json"))
    assert list_in_a_process(folder).wait() == 0
    assert hash_tables(folder) == hash_tables(uninterrupted)


def test_workers_killed_at_random_change_nothing(nano, uninterrupted, tmp_path):
    folder, generator = tmp_path / "run", random.Random(7)
    shutil.copytree(nano.folder, folder)
    shutil.rmtree(folder / "candidates")
    process = list_in_a_process(folder, num_workers=2)
    num_parts = len(list((uninterrupted / "candidates").rglob("part-*.parquet")))
    for wanted in sorted(generator.sample(range(1, num_parts - 3), 2)):
        wait_for_parts(process, folder, wanted)
        while not (workers := find_workers(process)):
            assert process.poll() is None
        os.kill(generator.choice(workers), signal.SIGKILL)
    assert process.wait() == 0
    assert hash_tables(folder) == hash_tables(uninterrupted)
    manifest = artifacts.read_json(folder / "candidates/products/manifest.json")
    lists = pl.read_parquet(folder / "candidates/products/part-*.parquet")
    assert manifest["num_users"] == manifest["cost"]["num_users"] == lists["user_id"].n_unique()
    sizes = [path.stat().st_size for path in (folder / "candidates/products").glob("[!im]*")]
    assert manifest["cost"]["bytes_written"] == sum(sizes)
    assert manifest["cost"]["num_workers"] == 2 and manifest["cost"]["core_seconds"] > 0


def test_nobody_is_missing_and_nobody_is_there_twice(nano, uninterrupted):
    everyone = pl.read_parquet(nano.folder / "candidates/advertisers/part-*.parquet")["user_id"].unique()
    for plural in ("advertisers", "products"):
        lists = pl.read_parquet(uninterrupted / "candidates" / plural / "part-*.parquet")
        assert set(lists["user_id"]) == set(everyone)
        assert not lists.select("user_id", "rank").is_duplicated().any()
