"""Killed and failing publishers: readers see the old release or the new one, and the next run converges."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.publish.crashing import NUM_USERS, before_each_step, check_here, read_everyone
from tests.publish.small_release import make_parts

from forecart.publish import publisher as publisher_module
from forecart.publish.embedded import EmbeddedStore
from forecart.publish.publisher import Publisher

ROOT = Path(__file__).parents[2]


def run_crashes(root, times, stride):
    command = [sys.executable, "-m", "tests.publish.crashing", str(root), str(times), str(stride)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_killed_at_every_step_no_reader_sees_half_a_release(tmp_path):
    stride = int(os.environ.get("FORECART_KILL_STRIDE", "5"))
    found = run_crashes(tmp_path, 0, stride)
    assert found["broken"] is None and found["reader"] == 0
    assert found["killed"] > 80 // stride and found["reads"] > 0


def test_killed_at_random_no_reader_sees_half_a_release(tmp_path):
    times = int(os.environ.get("FORECART_KILLS", "10"))
    found = run_crashes(tmp_path, times, 1)
    assert found["broken"] is None and found["reader"] == 0
    assert found["killed"] >= times // 2 and found["reads"] > 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_whatever_write_fails_the_old_release_is_served(tmp_path, monkeypatch, code):
    monkeypatch.setattr(publisher_module, "check_in_fresh_process", check_here)
    store = EmbeddedStore(tmp_path)
    publisher = Publisher(tmp_path, store)
    publisher.publish(lambda suppressed: make_parts(0, num_users=NUM_USERS))
    generation, fail_at, num_failed, num_steps = 1, 1, 0, 1
    while num_steps >= fail_at - 1:  # else the last one had fewer steps: none failed
        served, num_steps = store.pointer(), 0

        def fail(at=fail_at):
            nonlocal num_steps
            num_steps += 1
            if num_steps == at:
                raise OSError(code, os.strerror(code))

        restore = before_each_step(fail)
        try:
            publisher.publish(lambda suppressed, g=generation: make_parts(g, num_users=NUM_USERS))
        except OSError as error:
            assert error.errno == code
            num_failed += 1
        finally:
            restore()
        # Some failures are of what need not succeed, and some come after the pointer has moved.
        is_moved = store.pointer() != served
        assert read_everyone(tmp_path, EmbeddedStore(tmp_path)) == generation - (not is_moved)
        generation += is_moved
        fail_at += 1
    assert num_failed > 40
    publisher.publish(lambda suppressed: make_parts(generation, num_users=NUM_USERS))
    assert read_everyone(tmp_path, EmbeddedStore(tmp_path)) == generation
