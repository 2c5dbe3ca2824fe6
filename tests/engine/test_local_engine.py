"""The local engine against what every engine is held to, and what happens to its processes."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.engine import checks, tasks

from forecart.engine.choice import opened_engine
from forecart.engine.contract import ONE_THREAD, Work, one_thread_environment
from forecart.engine.cost import CostMeter, show_cost
from forecart.engine.local import LocalEngine
from forecart.errors import ConfigError, EngineError

CODE = """
import sys
from pathlib import Path
from tests.engine import tasks
from forecart.engine.contract import Work
from forecart.engine.local import LocalEngine

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    list(LocalEngine(2).run(Work("waiting", tasks.Opening(folder), tasks.wait_for_ever), range(4)))
"""


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("check", checks.IN_ANY_PROCESS)
def test_here_and_in_processes(check, num_workers, tmp_path):
    check(LocalEngine(num_workers), tmp_path)


@pytest.mark.parametrize("check", checks.IN_WORKERS)
def test_in_processes(check, tmp_path):
    check(LocalEngine(2), tmp_path)


def test_one_worker_or_one_task_is_this_process(tmp_path):
    for engine, numbers in ((LocalEngine(1), [1, 2]), (LocalEngine(2), [1])):
        found = list(engine.run(checks.work(tmp_path, tasks.square), numbers))
        assert {done.worker.split("/")[1] for done in found} == {str(os.getpid())}


def test_what_is_open_here_is_not_opened_again(tmp_path):
    work = Work("trying", tasks.Opening(tmp_path), tasks.square, here=tmp_path)
    assert [done.value for done in LocalEngine().run(work, [1, 2])] == [1, 4]
    assert not tasks.read_notes(tmp_path / "opened")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_one_that_started_them(how, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(CODE)
    process = subprocess.Popen(
        [sys.executable, script, tmp_path],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while len(workers := tasks.read_notes(tmp_path / "waiting")) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    # A key on the keyboard goes to all of them, a kill to one.
    os.killpg(process.pid, how) if how == signal.SIGINT else process.kill()
    said = process.communicate()[1].decode()
    assert process.returncode == -how and (how != signal.SIGINT or "KeyboardInterrupt" in said)
    while any(is_alive(int(worker)) for worker in workers):
        time.sleep(0.02)


def is_alive(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    return False


def test_the_environment_is_put_back(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with one_thread_environment():
        assert {name: os.environ[name] for name in ONE_THREAD} == ONE_THREAD
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ


def test_names_of_engines(monkeypatch):
    with opened_engine() as engine:
        assert (engine.name, engine.num_workers) == ("local", 1)
    with opened_engine("local", num_workers=0) as engine:
        assert engine.num_workers == len(os.sched_getaffinity(0))
    with pytest.raises(ConfigError, match="goes with the engine ray"), opened_engine(address="a:1"):
        pass


def test_ray_is_asked_for_where_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(EngineError, match=r"needs ray, .*pip install 'forecart\[ray\]'"),
        opened_engine("ray"),
    ):
        pass


def test_cost_counts_processes_apart_from_this_one(tmp_path):
    engine = LocalEngine(2)
    meter = CostMeter(engine)
    found = list(meter.watch(engine.run(checks.work(tmp_path, tasks.square), range(4))))
    cost = meter.describe(num_users=4, bytes_written=2_000_000)
    workers_s = sum(done.core_seconds for done in found)
    assert cost["core_seconds"] > workers_s > 0
    assert cost["core_seconds_per_million_users"] == pytest.approx(cost["core_seconds"] * 250_000)
    assert cost["peak_worker_bytes"] == max(done.peak_bytes for done in found)
    assert cost["users_per_s"] == pytest.approx(4 / cost["seconds"])
    assert "2.0 MB written" in show_cost(cost) and "(local, 2 at once)" in show_cost(cost)
    assert show_cost(meter.describe(num_users=0, bytes_written=0)) == "cost: every list was there already"
