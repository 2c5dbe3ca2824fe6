"""How fast the service answers: `python -m benchmarks.serving [ROW ...] [--users 200000] [--quick]`.

Publishes a synthetic release (100 advertisers a user) into the embedded store, starts one process of the
service with an inventory on a free port, and sends it requests from this process (`serving.load`). Rows:

L1  advertiser lookups with consent and eligibility among 20,000 ads at open-loop Poisson moments, in turns
    with `/bare`, an endpoint of the same server that only reads the store and returns the bytes; then the
    peak of both in a closed loop, in turns too, with the CPU that the server spends on a request.
L1-pinned  those peaks again of a server whose process stays on a core (`forecart serve --pin`).
L5  three times the peak of `/v1/candidates`: what is still answered, how fast the rest is refused, memory.
L6  releases published and rolled back under load.
L7  SIGTERM under load.
L8  lookups for long: the slope of memory after a minute (Theil-Sen, which no single step tilts), descriptors
    and threads at rest before and after (only where it is named).

A latency counts from the moment a request was due. `lag_ms` is how late the generator itself sent: what it
adds to the latencies of both. Writes `results/serving.json`.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks import publishing
from benchmarks.figures import RESULTS
from benchmarks.process_memory import read_memory_kb
from forecart import artifacts
from forecart.evaluation.provenance import read_provenance
from forecart.publish.embedded import EmbeddedStore
from forecart.publish.publisher import Publisher
from forecart.publish.release import ReleaseParts
from forecart.serving.app import build_app
from forecart.serving.asgi import HttpApp, Incoming, Reply, Route
from forecart.serving.launch import Launch
from forecart.serving.load import LoadReport, Target, build_request, drive_closed, drive_open, quantiles
from forecart.serving.parts import build_parts
from forecart.serving.server import Listen, serve

RATE: Final = 300.0
CONNECTIONS: Final = 32
COUNTRIES: Final = ("DE", "FR", "US", "GB", "JP")
OVERLOAD: Final = 3.0
NUM_REQUESTS: Final = 20_000
SMALL_USERS: Final = 2000
NUM_SWITCHES: Final = 20
SOAK_RATE: Final = 200.0
REST_S: Final = 2.0
PINNED: Final = "L1-pinned"
ROWS: Final = ("L1", PINNED, "L5", "L6", "L7")


@dataclass(frozen=True)
class World:
    """What is measured.

    Attributes:
        root: of the releases.
        num_users: in the release.
        port: of the server.
        process: of the server.
    """

    root: Path
    num_users: int
    port: int
    process: "subprocess.Popen[bytes]"

    def target(self, path: str, make_body: Callable[[str], bytes], **options: Any) -> Target:
        """Requests for random users, made beforehand: making them is not what is measured."""
        generator = random.Random(0)
        users = [f"user-{generator.randrange(self.num_users)}" for _ in range(NUM_REQUESTS)]
        requests = [build_request("localhost", path, make_body(user)) for user in users]
        return Target("127.0.0.1", self.port, itertools.cycle(requests), **options)

    def memory_mb(self) -> float:
        """Resident memory of the processes that serve."""
        children = _children(self.process.pid)
        return sum(read_memory_kb("VmRSS", pid=child)["VmRSS"] for child in children) / 1024

    def cpu_s(self) -> float:
        """Processor time of the processes that serve."""
        ticks = 0
        for child in _children(self.process.pid):
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def count_resources(self) -> tuple[int, int]:
        """Open descriptors and threads of the processes that serve."""
        children = [Path(f"/proc/{child}") for child in _children(self.process.pid)]
        return tuple(sum(len(list((one / kind).iterdir())) for one in children) for kind in ("fd", "task"))  # type: ignore[return-value]


def write_inventory(folder: Path) -> None:
    """Writes four ads of each advertiser; a third of the ad groups target two countries."""
    generator = random.Random(0)
    rows: dict[str, list[dict[str, Any]]] = {"campaigns": [], "ad_groups": [], "ads": []}
    for number in range(publishing.NUM_ADVERTISERS):
        campaign = {"campaign_id": f"c{number}", "advertiser_id": f"advertiser-{number}", "status": "active"}
        group = {"ad_group_id": f"g{number}", "campaign_id": f"c{number}", "status": "active"}
        countries = {"countries": generator.sample(COUNTRIES, 2)} if number % 3 == 0 else {}
        rows["campaigns"].append(campaign)
        rows["ad_groups"].append(group | countries)
        rows["ads"] += [
            {
                "ad_id": f"a{number}-{place}",
                "ad_group_id": f"g{number}",
                "status": "active",
                "bid_usd": generator.random(),
            }
            for place in range(4)
        ]
    folder.mkdir()
    for name, found in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))


def ask(user: str) -> bytes:
    return json.dumps({"user_id": user, "consent": {"opt_out": False}, "country": "DE"}).encode()


def load_with_bare(launch: Launch) -> HttpApp:
    """The service with an endpoint that does nothing but read the store."""
    parts = build_parts(launch)

    async def read_only(incoming: Incoming) -> Reply:
        """The bytes of the store."""
        current = parts.follower.served.current
        assert current is not None
        payload = parts.store.read(current.release.release_id, incoming.body.decode()).payload
        return Reply(payload or b"", media_type=b"application/octet-stream")

    return build_app(parts, more=[Route("POST", "/bare", read_only)])


@contextmanager
def serving(root: Path, num_users: int, folder: Path, *, pinned: bool = False) -> Iterator[World]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "benchmarks.serving",
        "--serve",
        str(root),
        str(folder / "ads"),
        str(port),
        "pinned" if pinned else "free",
    ]
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    world = World(root, num_users, port, process)
    try:
        while not is_ready(world):
            if process.poll() is not None:
                raise RuntimeError((folder / "serve.log").read_text())
            time.sleep(0.1)
        yield world
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def is_ready(world: World) -> bool:
    request = itertools.repeat(build_request("localhost", "/readyz", method="GET"))
    target = Target("127.0.0.1", world.port, request)
    report = asyncio.run(drive_open(target, rate=20, duration_s=0.2))
    return set(report.latency_ms) == {200} and not report.errors


def make_lookups(world: World) -> dict[str, Target]:
    """Lookups and bare reads; pages and code are warm afterwards."""
    kinds = {
        "advertisers": world.target("/v1/advertisers", ask),
        "bare": world.target("/bare", str.encode),
    }
    for target in kinds.values():
        asyncio.run(drive_closed(target, connections=CONNECTIONS, duration_s=2))
    return kinds


def measure_l1(world: World, *, seconds: float) -> dict[str, Any]:
    """Lookups beside bare reads, in turns of a few seconds."""
    kinds = make_lookups(world)
    num_turns = 6
    reports: dict[str, list[LoadReport]] = {name: [] for name in kinds}
    for turn in range(num_turns):
        for name, target in kinds.items():
            turn_s = seconds / num_turns
            reports[name].append(asyncio.run(drive_open(target, rate=RATE, duration_s=turn_s, seed=turn)))
    open_loop = {name: merge(found) for name, found in reports.items()}
    return {
        "rate": RATE,
        "open_loop": {name: report.describe() for name, report in open_loop.items()},
        "p99_ratio": p99_of(open_loop["advertisers"]) / p99_of(open_loop["bare"]),
        "p99_ratio_by_turn": [
            round(p99_of(ours) / p99_of(bare), 2)
            for ours, bare in zip(reports["advertisers"], reports["bare"], strict=True)
        ],
        **measure_peaks(world, kinds),
    }


def measure_peaks(world: World, kinds: dict[str, Target]) -> dict[str, Any]:
    """The most requests a second of both, in turns, with the processor time of one."""
    peaks: dict[str, list[float]] = {name: [] for name in kinds}
    cpu_us: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(10):
        for name, target in kinds.items():
            before_s = world.cpu_s()
            report = asyncio.run(drive_closed(target, connections=CONNECTIONS, duration_s=2))
            peaks[name].append(report.rate())
            cpu_us[name].append((world.cpu_s() - before_s) * 1e6 / report.num_answers)
    return {
        # What else the machine does only takes away: the best of ten turns is the peak.
        "peak_rps": {name: max(found) for name, found in peaks.items()},
        "peak_ratio": max(peaks["advertisers"]) / max(peaks["bare"]),
        "median_ratio": statistics.median(peaks["advertisers"]) / statistics.median(peaks["bare"]),
        "rps_by_turn": {name: [round(one) for one in found] for name, found in peaks.items()},
        "cpu_us_a_request": {name: min(found) for name, found in cpu_us.items()},
    }


def measure_l5(world: World, *, seconds: float) -> dict[str, Any]:
    """Three times the peak: goodput, the time of a refusal, memory, and how it is afterwards."""
    target = world.target("/v1/candidates", ask)

    def find_peak() -> float:
        return asyncio.run(drive_closed(target, connections=CONNECTIONS, duration_s=5)).rate()

    find_peak()  # pages and code are warm afterwards
    before, before_mb = find_peak(), world.memory_mb()
    rate = OVERLOAD * before
    report = asyncio.run(drive_open(target, rate=rate, duration_s=seconds, max_connections=2000))
    during_mb = world.memory_mb()
    time.sleep(1)
    afterwards = asyncio.run(drive_open(target, rate=before / 4, duration_s=5))
    after = find_peak()
    return {
        "peak_rps": [before, after],
        "offered_rps": report.num_answers / report.duration_s,
        # What else the machine does changes meanwhile: the peak is that of before and after.
        "goodput_share": report.rate(200) / statistics.mean([before, after]),
        "overload": report.describe(),
        "memory_growth_mb": during_mb - before_mb,
        "afterwards": afterwards.describe(),
    }


def measure_l6(world: World, *, num_switches: int) -> dict[str, Any]:
    """Releases come and go: answers that failed, or whose list is not the release's."""
    publisher = Publisher(world.root, EmbeddedStore(world.root))
    scores: dict[str, float] = {}
    wrong: Counter[str] = Counter()
    seen: set[str] = set()

    def check(status: int, body: bytes) -> str | None:
        answer = json.loads(body)
        if status != 200:
            return f"status {status}"
        seen.add(answer["release"])
        first = answer["advertisers"][0]["scores"][0]
        if answer["source"] == "advertisers" and first != scores[answer["release"]]:
            wrong["mixed"] += 1
        elif answer["source"] != "advertisers":
            wrong[answer["source"]] += 1
        return None

    def switch() -> None:
        for number in range(1, num_switches + 1):
            if number % 4 == 0:
                publisher.roll_back()
            else:
                publish_marked(publisher, number, scores)
            done.append(number)

    done: list[int] = []
    publish_marked(publisher, 0, scores)
    while read_release(world) not in scores:
        time.sleep(0.1)
    target = world.target("/v1/advertisers", ask, check=check)
    thread = threading.Thread(target=switch)
    thread.start()
    reports = []
    while thread.is_alive():
        reports.append(asyncio.run(drive_open(target, rate=RATE / 3, duration_s=2, seed=len(reports))))
    thread.join()
    report = merge(reports)
    return {"switches": len(done), "releases_seen": len(seen), "wrong": dict(wrong), **report.describe()}


def read_release(world: World) -> str | None:
    """The release that the server answers from."""
    seen: list[str | None] = []

    def check(status: int, body: bytes) -> None:
        seen.append(json.loads(body)["release"])

    asyncio.run(
        drive_closed(world.target("/v1/advertisers", ask, check=check), connections=1, duration_s=0.01)
    )
    return seen[-1]


def publish_marked(publisher: Publisher, number: int, scores: dict[str, float]) -> None:
    """Publishes a release whose every first score is the number of its publishing."""
    # Its id is known before anybody answers from it.
    source = {"number": str(number), "time": str(time.time())}

    def make(suppressed: Any) -> ReleaseParts:
        parts = publishing.make_parts(SMALL_USERS)

        def blocks() -> Iterator[Any]:
            for records in publishing.make_blocks(SMALL_USERS):
                records["advertiser_score"][:] = float(number + 1)
                yield records

        return replace(
            parts,
            blocks=blocks(),
            as_of_us=publishing.AS_OF_US + (number + 1) * 1_000_000,
            source=source,
        )

    scores[make(None).release_id] = float(number + 1)
    publisher.publish(make)


def measure_l7(world: World) -> dict[str, Any]:
    """SIGTERM while requests come: the exit code, how long it took, and what was dropped.

    Connections that are refused come after the end: the generator goes on.
    """
    target = world.target("/v1/advertisers", ask)
    report: list[LoadReport] = []
    thread = threading.Thread(
        target=lambda: report.append(asyncio.run(drive_open(target, rate=RATE, duration_s=4)))
    )
    thread.start()
    time.sleep(2)
    begin = time.perf_counter()
    world.process.send_signal(signal.SIGTERM)
    code = world.process.wait(60)
    stop_s = time.perf_counter() - begin
    thread.join()
    return {"exit_code": code, "stop_s": stop_s, **report[0].describe()}


def measure_l8(world: World, *, seconds: float) -> dict[str, Any]:
    """A steady load: memory, looked at every few seconds, and what is open at rest before and after."""
    target = world.target("/v1/advertisers", ask)
    looks: list[tuple[float, float, int, int]] = []
    is_over = threading.Event()

    def look() -> None:
        begin = time.perf_counter()
        while not is_over.wait(2):
            looks.append((time.perf_counter() - begin, world.memory_mb(), *world.count_resources()))

    asyncio.run(drive_closed(target, connections=CONNECTIONS, duration_s=5))  # opens what it opens once
    time.sleep(REST_S)
    before = world.count_resources()
    thread = threading.Thread(target=look)
    thread.start()
    report = asyncio.run(drive_open(target, rate=SOAK_RATE, duration_s=seconds))
    is_over.set()
    thread.join()
    time.sleep(REST_S)
    after = world.count_resources()
    warm = [one for one in looks if one[0] > min(60, seconds / 2)]
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for earlier, later in itertools.combinations(warm, 2)
    ]
    return {
        "memory_mb": [warm[0][1], warm[-1][1]],
        "memory_mb_per_hour": statistics.median(slopes) * 3600,
        "descriptors": [before[0], after[0]],
        "threads": [before[1], after[1]],
        "descriptors_under_load": [min(one[2] for one in warm), max(one[2] for one in warm)],
        **report.describe(),
    }


def merge(reports: Sequence[LoadReport]) -> LoadReport:
    whole = LoadReport()
    for report in reports:
        whole.duration_s += report.duration_s
        whole.lag_ms += report.lag_ms
        whole.errors += report.errors
        for status, latencies in report.latency_ms.items():
            whole.latency_ms.setdefault(status, []).extend(latencies)
    return whole


def p99_of(report: LoadReport) -> float:
    return quantiles(report.latency_ms[200])["p99"]


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; all by default")
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument(
        "--seconds", type=float, default=60, help="of L1 for each endpoint; a third of it for L5"
    )
    parser.add_argument("--soak", type=float, default=300, help="seconds of L8")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures are written")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        root, ads, port, pinning = asked.serve
        launch = Launch(Path(root), inventory=Path(ads), clock="as-of")
        serve(launch, Listen(port=int(port), pinned=pinning == "pinned"), load=load_with_bare)
        return
    rows = asked.rows or list(ROWS)
    measures: dict[str, Callable[[World], dict[str, Any]]] = {
        "L1": lambda world: measure_l1(world, seconds=asked.seconds),
        PINNED: lambda world: measure_peaks(world, make_lookups(world)),
        "L5": lambda world: measure_l5(world, seconds=asked.seconds / 3),
        "L6": lambda world: measure_l6(world, num_switches=NUM_SWITCHES),
        "L7": measure_l7,
        "L8": lambda world: measure_l8(world, seconds=asked.soak),
    }
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_inventory(Path(folder) / "ads")
        roots = {}
        for num_users in {asked.users, SMALL_USERS}:
            root = roots[num_users] = Path(folder) / str(num_users)
            parts = publishing.make_parts(num_users)
            Publisher(root, EmbeddedStore(root)).publish(lambda suppressed, parts=parts: parts)  # type: ignore[misc]
        for row in rows:
            num_users = SMALL_USERS if row == "L6" else asked.users
            with serving(roots[num_users], num_users, Path(folder), pinned=row == PINNED) as world:
                figures[row] = measures[row](world)
            print(row, json.dumps(figures[row], indent=2), flush=True)
    load = os.getloadavg()
    result = {"provenance": read_provenance(), "num_users": asked.users, "load_average": load, **figures}
    artifacts.write_json(asked.results / "serving.json", result)


if __name__ == "__main__":
    main()
