"""Two Ray machines, played by processes of this one, write what one process writes, also when some die."""

import logging
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from tests.e2e.test_candidates_killed import hash_tables, make_workflow
from tests.engine import checks
from tests.engine.preparation import prepare, write_files

from forecart import artifacts
from forecart.engine.contract import one_thread_environment
from forecart.engine.ray import opened_ray
from forecart.errors import EngineError
from forecart.observe import SilentReporter

MACHINE = {"num_cpus": 1, "object_store_memory": 100 << 20}
QUIET = {"include_dashboard": False, "include_log_monitor": False}


@pytest.fixture
def cluster(monkeypatch):
    """Two machines of a core each."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else a token is left in the home folder
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    logging.getLogger("ray").setLevel(logging.ERROR)
    with one_thread_environment():
        cluster = Cluster(initialize_head=True, head_node_args={**MACHINE, **QUIET, "no_monitor": True})
        cluster.add_node(**MACHINE, **QUIET)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


class Killer(SilentReporter):
    """Kills a worker after some parts, and a whole machine after some more."""

    def __init__(self, cluster):
        self.cluster, self.num_told, self.killed = cluster, 0, []

    def progress(self, label, done, total, note=""):
        self.num_told += label == "listing candidates"
        if self.num_told == 3:
            self.killed.append(kill_worker(self.cluster))
        elif self.num_told == 8:
            (second,) = self.cluster.worker_nodes
            self.killed.append(second)
            self.cluster.remove_node(second, allow_graceful=False)


def kill_worker(cluster):
    """Kills a process that has a task in hand."""
    while True:
        for node in cluster.list_all_nodes():
            (raylet,) = node.all_processes["raylet"]
            for worker in children_of(raylet.process.pid):
                with suppress(OSError):
                    if b"listing" in Path(f"/proc/{worker}/cmdline").read_bytes():
                        os.kill(worker, signal.SIGKILL)
                        return worker


def children_of(pid):
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def test_a_cluster_does_what_one_process_does(nano, cluster, tmp_path, monkeypatch, subtests):
    with opened_ray(num_workers=None, address=cluster.address) as engine:
        assert engine.num_workers == 2
        for check in (*checks.IN_ANY_PROCESS, *checks.IN_WORKERS):
            with subtests.test(check.__name__):
                folder = tmp_path / check.__name__
                folder.mkdir()
                check(engine, folder)
        with subtests.test("files and partitions"):
            monkeypatch.chdir(tmp_path)
            names = write_files(tmp_path)
            assert prepare(names, tmp_path / "ray", engine=engine) == prepare(names, tmp_path / "alone")
            one = prepare(names[:1], tmp_path / "one-file", engine=engine)
            assert one == prepare(names[:1], tmp_path / "one-file-alone")
        with subtests.test("a run, with a worker and then a machine killed"):
            check_run(nano, cluster, engine, tmp_path)


def check_run(nano, cluster, engine, tmp_path):
    wanted, folder = tmp_path / "wanted", tmp_path / "run"
    shutil.copytree(nano.folder, wanted)
    make_workflow(wanted).list_candidates()
    shutil.copytree(nano.folder, folder)
    for stage in ("events", "sequences", "candidates"):
        shutil.rmtree(folder / stage)
    workflow = make_workflow(folder, engine)
    workflow.reporter = killer = Killer(cluster)
    workflow.run()
    assert len(killer.killed) == 2 and killer.num_told > 20
    assert hash_tables(folder) == hash_tables(wanted)
    for stage in ("events", "sequences"):
        assert artifacts.hash_folder(folder / stage) == artifacts.hash_folder(nano.folder / stage)
    cost = artifacts.read_json(folder / "candidates/products/manifest.json")["cost"]
    assert (cost["engine"], cost["num_workers"]) == ("ray", 2) and cost["peak_worker_bytes"] > 100e6


def test_no_cluster_at_the_address(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    nowhere = opened_ray(num_workers=1, address="127.0.0.1:1")
    with pytest.raises(EngineError, match=r"expected at 127\.0\.0\.1:1, none answers .* `ray start"), nowhere:
        pass
