"""A real `forecart serve` on a free port, and a real Valkey, for the tests that need them."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

PATIENCE_S = 60
ALLOWED = {"opt_out": False}


@dataclass
class Server:
    """A process that serves, and a client of it."""

    process: subprocess.Popen[bytes]
    port: int
    client: httpx.Client
    log: Path

    def post(self, path, body, **options):
        return self.client.post(path, json=body, **options)

    def advertisers(self, user_id, **fields):
        reply = self.post("/v1/advertisers", {"user_id": user_id, "consent": ALLOWED} | fields)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def workers(self):
        """Process ids of the workers."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
        # The resource tracker of multiprocessing is a child too.
        return [one for one in children if "resource_tracker" not in Path(f"/proc/{one}/cmdline").read_text()]

    def memory_mb(self):
        """Resident memory of the processes that serve."""
        kib = [
            int(line.split()[1])
            for child in self.workers()
            for line in Path(f"/proc/{child}/status").read_text().splitlines()
            if line.startswith("VmRSS")
        ]
        return sum(kib) / 1024

    def stop(self):
        """Sends SIGTERM and returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


def ids_of(lists):
    """The ids of an answer's lists, one after the other."""
    return [one for part in lists for one in part["ids"]]


def find_free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(is_true, patience_s=PATIENCE_S):
    """Waits for something to become true, and fails where it does not."""
    end = time.monotonic() + patience_s
    while not is_true():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.02)


@contextmanager
def serving(folder, *options, settings=None):
    """Serves with these options of `forecart serve`; `settings` is TOML."""
    port = find_free_port()
    command = [sys.executable, "-m", "forecart", "serve", "--port", str(port), *map(str, options)]
    folder.mkdir(parents=True, exist_ok=True)
    if settings is not None:
        (folder / "serve.toml").write_text(settings)
        command += ["--settings", str(folder / "serve.toml")]
    log = folder / "serve.log"
    with log.open("wb") as handle:
        process = subprocess.Popen(command, stdout=handle, stderr=handle, env=os.environ)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False) as client:
        server = Server(process, port, client, log)
        try:
            wait_until(lambda: answers(server))
            yield server
        finally:
            if process.poll() is None:
                server.stop()


def answers(server):
    assert server.process.poll() is None, server.log.read_text()
    try:
        return server.client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False
