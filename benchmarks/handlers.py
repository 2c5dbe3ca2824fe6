"""What a request costs before the network: `python -m benchmarks.handlers [--users 200000]`.

Calls the application of `benchmarks.serving` in this process, as the server does, with requests of the
advertiser lookup (eligibility on) and of `/bare` in turns of 200, and says the CPU time of one of each. No
socket, no second thread: on a machine that other work keeps busy it says what a change of the code is worth,
where the throughput of a server says what the others do. Writes `results/handlers.json`.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks import publishing
from benchmarks.figures import RESULTS
from benchmarks.serving import ask, load_with_bare, write_inventory
from forecart import artifacts
from forecart.evaluation.provenance import read_provenance
from forecart.publish.embedded import EmbeddedStore
from forecart.publish.publisher import Publisher
from forecart.serving.asgi import HttpApp
from forecart.serving.launch import Launch

NUM_TURNS: Final = 100
TURN: Final = 200
HEADERS: Final = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"80")]


async def call(app: HttpApp, path: str, body: bytes) -> dict[str, Any]:
    """Returns the last message of a reply."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app({"type": "http", "path": path, "method": "POST", "headers": HEADERS}, receive, send)
    assert sent[0]["status"] == 200, sent
    return sent[1]


async def live(app: HttpApp, num_users: int) -> dict[str, list[float]]:
    """Begins to serve, measures, and stops."""
    said, heard = asyncio.Queue[dict[str, Any]](), asyncio.Queue[dict[str, Any]]()
    life = asyncio.create_task(app({"type": "lifespan"}, said.get, heard.put))
    await said.put({"type": "lifespan.startup"})
    await heard.get()
    cpu_us = await measure(app, num_users)
    await said.put({"type": "lifespan.shutdown"})
    await life
    return cpu_us


async def measure(app: HttpApp, num_users: int) -> dict[str, list[float]]:
    """Returns microseconds a request by turn, for each path."""
    generator = random.Random(0)
    makers = {"/v1/advertisers": ask, "/bare": str.encode}
    cpu_us: dict[str, list[float]] = {path: [] for path in makers}
    for _ in range(NUM_TURNS):
        users = [f"user-{generator.randrange(num_users)}" for _ in range(TURN)]
        for path, make in makers.items():
            bodies = [make(user) for user in users]
            begin = time.process_time()
            for body in bodies:
                await call(app, path, body)
            cpu_us[path].append((time.process_time() - begin) * 1e6 / TURN)
    return cpu_us


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures are written")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, ads = Path(folder) / "releases", Path(folder) / "ads"
        write_inventory(ads)
        parts = publishing.make_parts(asked.users)
        Publisher(root, EmbeddedStore(root)).publish(lambda suppressed: parts)
        app = load_with_bare(Launch(root, inventory=ads, clock="as-of"))
        cpu_us = asyncio.run(live(app, asked.users))
    figures = {
        path: {"least": min(turns), "median": statistics.median(turns)} for path, turns in cpu_us.items()
    }
    print(json.dumps(figures, indent=2))
    result = {"provenance": read_provenance(), "num_users": asked.users, "cpu_us_a_request": figures}
    artifacts.write_json(asked.results / "handlers.json", result)


if __name__ == "__main__":
    main()
