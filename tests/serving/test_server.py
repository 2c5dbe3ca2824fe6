"""One `forecart serve` to a port, and no worker without its parent: with real processes that are killed."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.serving.server_process import PATIENCE_S, find_free_port, serving, wait_until

from forecart.errors import ConfigError
from forecart.serving.launch import Launch
from forecart.serving.server import Listen, _hold_port, serve


def is_alive(process_id):
    """Whether a process runs; one that nobody has buried yet does not."""
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def is_free(port):
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def serve_beside(port, folder):
    command = [sys.executable, "-m", "forecart", "serve", "--port", str(port), "--releases", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_a_port_has_one_server_and_its_workers_end_with_it(tmp_path):
    with serving(tmp_path, "--releases", tmp_path, "--workers", 2) as server:
        wait_until(lambda: server.log.read_text().count('"serving"') == 2)
        second = serve_beside(server.port, tmp_path)
        assert second.returncode == 2
        assert second.stderr.count("\n") == 1 and f"port {server.port}" in second.stderr
        assert server.client.get("/healthz").status_code == 200
        workers = server.workers()
        assert len(workers) == 2
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(PATIENCE_S)
        wait_until(lambda: not any(is_alive(one) for one in workers), patience_s=15)
        assert is_free(server.port)


def test_a_port_is_taken_before_anybody_listens():
    listen = Listen(port=find_free_port())
    with _hold_port(listen):
        with pytest.raises(ConfigError, match="must be free"), _hold_port(listen):
            pass
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind((listen.host, listen.port))
            worker.listen()
            socket.create_connection((listen.host, listen.port), 5).close()
    with _hold_port(listen):
        pass


def test_an_address_of_nobody_s_is_told():
    with pytest.raises(ConfigError, match="nowhere to listen"), _hold_port(Listen(host="192.0.2.1")):
        pass


def test_pinned_workers_have_a_core_each(tmp_path):
    cores = sorted(os.sched_getaffinity(0))[:2]
    with serving(tmp_path, "--releases", tmp_path, "--workers", len(cores), "--pin") as server:
        wait_until(lambda: server.log.read_text().count('"serving"') == len(cores))
        assert server.client.get("/healthz").status_code == 200
        threads = [task.name for one in server.workers() for task in Path(f"/proc/{one}/task").iterdir()]
        of_each = [os.sched_getaffinity(int(thread)) for thread in threads]
        assert len(of_each) > len(cores)
        assert sorted(set().union(*of_each)) == cores and all(len(one) == 1 for one in of_each)
        if len(cores) > 1:  # whoever replaces a worker has its core
            killed = server.workers()[0]
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda: server.log.read_text().count('"serving"') == len(cores) + 1)
            now = [os.sched_getaffinity(one) for one in server.workers()]
            assert sorted(core for one in now for core in one) == cores


def test_a_reload_of_workers_on_every_core_ends_on_every_core(tmp_path):
    cores = os.sched_getaffinity(0)
    with serving(tmp_path, "--releases", tmp_path, "--workers", len(cores), "--pin") as server:
        wait_until(lambda: server.log.read_text().count('"serving"') == len(cores))
        before = set(server.workers())
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not before & set(server.workers()), patience_s=60)

        def has_a_core_each():
            return sorted(map(tuple, map(os.sched_getaffinity, server.workers()))) == [
                (one,) for one in sorted(cores)
            ]

        wait_until(has_a_core_each)
        assert server.client.get("/healthz").status_code == 200


def test_more_pinned_workers_than_cores_are_told(tmp_path):
    num = len(os.sched_getaffinity(0)) + 1
    with pytest.raises(ConfigError, match=f"{num} workers for {num - 1} cores"):
        serve(Launch(tmp_path), Listen(port=find_free_port(), workers=num, pinned=True))


def test_a_stop_is_told_before_connections_close(tmp_path):
    with serving(tmp_path / "server", "--releases", tmp_path, settings="drain_s = 3\n") as server:
        assert "connection" not in server.client.get("/healthz").headers
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.client.get("/readyz").json()["problem"] == "stopping")
        told = server.client.get("/readyz")
        assert told.status_code == 503 and told.headers["connection"] == "close"
        assert server.client.get("/healthz").status_code == 200
        assert server.process.wait(PATIENCE_S) == 0


def test_it_drains_and_stops_after_its_temporary_folder_was_tidied_away(tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with serving(tmp_path / "server", "--releases", tmp_path, settings="drain_s = 3\n") as server:
        (folder,) = temporary.glob("forecart-serve-*")
        folder.rmdir()
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.client.get("/readyz").json()["problem"] == "stopping")
        assert server.process.wait(PATIENCE_S) == 0
