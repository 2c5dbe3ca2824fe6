"""From a demand to a bill: memory, disk, core-hours and machines of every stage and part of serving.

Takes a `Demand`, a `Machine` and the measured laws; gives a row per part, and the limits of the system in the
order in which the demand meets them. Exact sizes come from the formats, all else from laws and rates that
know where they were measured; each row says how far beyond that it lies.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final

from forecart.planning import sizes
from forecart.planning.demand import Demand, Machine
from forecart.planning.laws import read_law, read_line

MAX_PARTITIONS: Final = 4096
"""Of an event store (`EventsConfig.num_partitions`)."""
ROWS_A_PARTITION: Final = 1 << 20
"""What the growth benchmark gives a partition as long as there may be another one."""
MAX_IDS: Final = 2**31 - 3
"""Of a vocabulary: indices are 32 bits."""
_HOUR_S: Final = 3600
_GB: Final = 1e9
_REMEDIES: Final = {
    "events": "more memory, or a log of fewer days: a partition is sorted as a whole",
    "sequences": "more memory, or runs over shards of the users: their ids are sorted as a whole",
    "items": "more memory: item facts are built in one process",
    "training": "learn from a sample of the users: one process holds the order of their events",
    "candidates": "list shards of the users in turn: one process holds the order of their events",
    "item lists": "search the shards of the index one after the other, and merge the lists",
    "index build": "build the index in shards, each on its own (retrieval/index/shards.py)",
    "user records": "spread the users over a server store, or let the system map what is read",
    "user ids": "spread the users over a server store",
    "item index": "spread the shards of the index over machines",
}


@dataclass(frozen=True)
class Part:
    """What one stage, or one part of serving, takes.

    Attributes:
        name: of it.
        driver: what its cost grows with.
        size: how much of that there is.
        core_hours: of one rebuild; 0 for what only holds something.
        cores: that are busy all the time; 0 for a stage.
        memory_gb: of one process that does all of it.
        disk_gb: of what it leaves.
        machines: that do it within the given hours, or hold it.
        beyond: how many times the size exceeds what was measured; 1 within that.
    """

    name: str
    driver: str
    size: float
    core_hours: float
    cores: float
    memory_gb: float
    disk_gb: float
    machines: int
    beyond: float


@dataclass(frozen=True)
class Limit:
    """Something that ends at a size.

    Attributes:
        name: what breaks.
        unit: of both numbers.
        needed: by the demand.
        at: where it breaks.
        remedy: what to do then.
    """

    name: str
    unit: str
    needed: float
    at: float
    remedy: str

    @property
    def times(self) -> float:
        """How many times the demand exceeds it; at most 1 where it does not."""
        return self.needed / self.at


@dataclass(frozen=True)
class Plan:
    """A bill, and where it fails.

    Attributes:
        demand: what for.
        machine: on what.
        offline: the stages of a rebuild.
        serving: what holds and answers.
        limits: what breaks, the first one first.
        num_partitions: for `events.num_partitions`, so that one fits in memory.
        measured: where the laws come from.
    """

    demand: Demand
    machine: Machine
    offline: list[Part]
    serving: list[Part]
    limits: list[Limit]
    num_partitions: int
    measured: dict[str, Any]

    def to_facts(self) -> dict[str, Any]:
        """Returns plain values."""
        limits = [{**asdict(limit), "times": limit.times} for limit in self.limits]
        return {**asdict(self), "limits": limits}


def make_plan(demand: Demand, machine: Machine, found: dict[str, Any]) -> Plan:
    """Returns the bill of a demand.

    Args:
        demand: what for.
        machine: on what.
        found: the file of laws (`load_laws`).
    """
    bill = _Bill(demand, machine, found)
    offline, serving = list(bill.offline()), list(bill.serving())
    limits = sorted(_limits(demand, machine, [*offline, *serving]), key=lambda limit: -limit.times)
    return Plan(demand, machine, offline, serving, limits, _count_partitions(demand), found["measured"])


def _count_partitions(demand: Demand) -> int:
    return min(MAX_PARTITIONS, math.ceil(demand.num_events / ROWS_A_PARTITION))


def _limits(demand: Demand, machine: Machine, parts: list[Part]) -> Iterator[Limit]:
    for part in parts:
        if part.memory_gb:
            remedy = _REMEDIES.get(part.name, "more memory")
            yield Limit(
                f"{part.name}: memory of one machine", "GB", part.memory_gb, machine.memory_gb, remedy
            )
    for name, size in (("users", demand.num_users), ("items", demand.num_items)):
        yield Limit(f"{name}: 32-bit indices", "ids", size, MAX_IDS, f"runs over shards of the {name}")


@dataclass(frozen=True)
class _Bill:
    """The rows of a plan."""

    demand: Demand
    machine: Machine
    found: dict[str, Any]

    def offline(self) -> Iterator[Part]:
        """Returns the stages of a rebuild."""
        d, measured = self.demand, self.found["bytes"]
        # A chunk of the log is in memory too, so never less than a partition of the size that was measured.
        rows = max(ROWS_A_PARTITION, d.num_events / _count_partitions(d))
        partition_gb = rows * measured["partition_row"] / _GB
        users, items = (sizes.vocabulary_bytes(n, d.bytes_an_id) for n in (d.num_users, d.num_items))
        histories = sizes.histories_bytes(d.num_events, d.num_users)
        lists = d.num_users * d.top_k * measured["candidate_row"]
        vectors = sizes.user_vectors_bytes(d.num_users, d.width)
        scored_gb = sizes.scored_vectors_bytes(d.num_items, d.width) / _GB
        facts = d.num_items * sizes.BYTES_AN_ITEM_FACT
        yield self._stage("events", ["events"], partition_gb, d.num_events * measured["stored_event"])
        survey_gb = partition_gb + self._memory("sequences by users")
        yield self._stage("sequences", ["events"], survey_gb, histories + users)
        yield self._stage("items", ["items"], self._memory("items by items"), facts + items)
        for name, disk in (("training", 0.0), ("candidates", lists + vectors)):
            # A user costs, and so does an event: whichever law says more.
            yield self._stage(name, ["users", "events"], self._memory(f"{name} by events"), disk)
        yield self._rated(
            "index build", "items", scored_gb, d.num_items * self._rate("index_disk_bytes_an_item")
        )
        yield self._rated("item lists", "users", self._index_gb, lists)
        yield self._rated("publish", "users", 0.0, sizes.records_bytes(d.num_users, d.layout))

    def serving(self) -> Iterator[Part]:
        """Returns what holds and answers."""
        d = self.demand
        records, ids = (
            sizes.records_bytes(d.num_users, d.layout),
            sizes.vocabulary_bytes(d.num_users, d.bytes_an_id),
        )
        yield self._holder("user records", "users", d.num_users, records / _GB)
        yield self._holder("user ids", "users", d.num_users, ids / _GB)
        yield self._holder("item index", "items", d.num_items, self._index_gb)
        cores = d.requests_per_s * self._rate("request_cpu_us") / 1e6
        machines = math.ceil(cores / self.machine.cores)
        yield Part("requests", "requests/s", d.requests_per_s, 0.0, cores, 0.0, 0.0, machines, 1.0)

    @cached_property
    def _sizes(self) -> dict[str, float]:
        d = self.demand
        return {"events": d.num_events, "users": d.num_users, "items": d.num_items}

    @cached_property
    def _index_gb(self) -> float:
        return self.demand.num_items * self._rate("index_memory_bytes_an_item") / _GB

    def _rate(self, name: str) -> float:
        return float(self.found["rates"][name]["value"])

    def _memory(self, name: str) -> float:
        axis = name.rpartition(" ")[2]
        return read_line(self.found["memory"], name).gb(self._sizes[axis])

    def _stage(self, name: str, axes: list[str], memory_gb: float, disk_bytes: float) -> Part:
        laws = {axis: read_law(self.found["laws"], f"{name} by {axis}") for axis in axes}
        cpu_s = {axis: law.cpu_s(self._sizes[axis]) for axis, law in laws.items()}
        axis = max(cpu_s, key=lambda one: cpu_s[one])
        beyond = laws[axis].beyond(self._sizes[axis])
        return self._part(name, axis, cpu_s[axis] / _HOUR_S, (memory_gb, disk_bytes / _GB), beyond)

    def _rated(self, name: str, axis: str, memory_gb: float, disk_bytes: float) -> Part:
        """A part of which a rate at one size is known, taken as proportional."""
        rate = self.found["rates"][f"{name.replace(' ', '_')}_per_cpu_s"]
        core_hours, beyond = (
            self._sizes[axis] / rate["value"] / _HOUR_S,
            max(1.0, self._sizes[axis] / rate["size"]),
        )
        return self._part(name, axis, core_hours, (memory_gb, disk_bytes / _GB), beyond)

    def _part(self, name: str, axis: str, core_hours: float, gb: tuple[float, float], beyond: float) -> Part:
        by_time = core_hours / (self.machine.cores * self.machine.hours)
        machines = math.ceil(max(by_time, gb[0] / self.machine.memory_gb))
        return Part(name, axis, self._sizes[axis], core_hours, 0.0, *gb, machines, beyond)

    def _holder(self, name: str, axis: str, size: float, gb: float) -> Part:
        return Part(name, axis, size, 0.0, 0.0, gb, gb, math.ceil(gb / self.machine.memory_gb), 1.0)
