"""One process works on a run at a time: who is refused, who waits, and what a watcher sees."""

import fcntl
import threading
import time

import pytest
from tests.cli.commands import forecart

import forecart as package
from forecart.days import alone, is_worked_on
from forecart.errors import ConflictError
from forecart.workflow import Workflow


def test_a_watcher_that_looks_at_the_lock_refuses_nobody(tmp_path):
    """`is_worked_on` holds the lock of the file for an instant; here for a third of a second."""
    with alone(tmp_path):
        pass
    handle = (tmp_path / ".run.lock").open()
    fcntl.flock(handle, fcntl.LOCK_SH)
    release = threading.Timer(0.3, handle.close)
    release.start()
    with alone(tmp_path):
        assert is_worked_on(tmp_path)
    release.join()
    assert not is_worked_on(tmp_path)


def test_who_comes_second_is_refused_within_seconds(tmp_path):
    with alone(tmp_path):
        start_s = time.monotonic()
        with pytest.raises(ConflictError, match=f"one process works on a run at a time.*{tmp_path}"):
            alone(tmp_path).__enter__()
        assert 0.9 < time.monotonic() - start_s < 10
    with alone(tmp_path):
        pass


def test_a_first_run_has_no_folder_yet(tmp_path):
    assert not is_worked_on(tmp_path / "runs" / "new")
    with alone(tmp_path / "runs" / "new"):
        assert is_worked_on(tmp_path / "runs" / "new")


def test_a_whole_run_is_seen_at_work(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Workflow, "run", lambda self: seen.append(is_worked_on(self.folder)))
    package.run("nano", folder=tmp_path / "run")
    assert seen == [True] and not is_worked_on(tmp_path / "run")


@pytest.mark.parametrize("words", ["run", "train", "evaluate", "candidates generate", "events validate"])
def test_a_command_leaves_a_run_alone_that_another_works_on(words, tmp_path, monkeypatch):
    monkeypatch.setattr(Workflow, "events", lambda self: pytest.fail("it must not begin"))
    with alone(tmp_path / "run"):
        said = forecart(*words.split(), "nano", "--output", tmp_path / "run", code=2).stderr
    assert f"another works on {tmp_path}/run now" in said
