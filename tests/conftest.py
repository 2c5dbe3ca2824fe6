"""What every test stands on: the same examples in every run, and one finished nano run for all."""

import fcntl
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("forecart", deadline=None, derandomize=True, database=None)
settings.load_profile("forecart")


@dataclass(frozen=True)
class Finished:
    """A command that has run: where, and what it said."""

    folder: Path
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """`forecart demo --config nano`, run once for all test processes; nobody may change its folder."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder, stdout, stderr = root / "nano", root / "nano.out", root / "nano.err"
    with (root / "nano.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stdout.exists():
            command = [sys.executable, "-m", "forecart", "demo", "--config", "nano", "--output", str(folder)]
            result = subprocess.run(
                command,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert result.returncode == 0, result.stderr
            stderr.write_text(result.stderr)
            stdout.write_text(result.stdout)
    return Finished(folder, stdout.read_text(), stderr.read_text())


@pytest.fixture(scope="session")
def s3():
    """An S3-compatible server over HTTP, at which this process and those that it starts are pointed."""
    from tests.s3_server import running_s3

    with running_s3() as server:
        yield server


@pytest.fixture
def place(s3):
    """A place on that server where nothing is yet."""
    return s3.place(uuid.uuid4().hex)
