"""A plan against sums by hand from laws that are round numbers."""

import json
import math

import pytest

from forecart.errors import ConfigError
from forecart.planning import sizes
from forecart.planning.demand import Demand, Machine
from forecart.planning.laws import Law, Line, load_laws
from forecart.planning.plan import MAX_IDS, MAX_PARTITIONS, make_plan
from forecart.planning.table import render_plan

LAW = Law(1e-6, 1.0, 1e5, 1e8, 4, 0.01).to_facts()
DEAR = Law(1e-3, 1.0, 1e4, 1e6, 4, 0.01).to_facts()
LINE = Line(0.5, 30.0, 1e8).to_facts()
RATE = {"value": 1000.0, "size": 1_000_000, "machine": "a machine", "commit": "abc"}
FOUND = {
    "laws": {
        "events by events": LAW,
        "sequences by events": Law(1e-6, 1.1, 1e5, 1e8, 4, 0.01).to_facts(),
        "items by items": LAW,
        "training by events": LAW,
        "training by users": LAW,
        "candidates by events": LAW,
        "candidates by users": DEAR,
    },
    "memory": {
        "sequences by users": LINE,
        "items by items": LINE,
        "training by events": LINE,
        "candidates by events": LINE,
    },
    "bytes": {"stored_event": 25.0, "candidate_row": 6.0, "partition_row": 1000.0},
    "rates": dict.fromkeys(
        (
            "index_build_per_cpu_s",
            "item_lists_per_cpu_s",
            "publish_per_cpu_s",
            "index_disk_bytes_an_item",
            "index_memory_bytes_an_item",
            "request_cpu_us",
        ),
        RATE,
    ),
    "measured": {"machine": "a machine", "commit": "abc"},
}
DEMAND = Demand(num_items=1e6, num_users=3.6e6, events_per_day=3.6e7, history_days=10)
MACHINE = Machine(cores=10, memory_gb=16, hours=1)


def parts_of(demand=DEMAND, machine=MACHINE):
    made = make_plan(demand, machine, FOUND)
    return {part.name: part for part in [*made.offline, *made.serving]}


def test_time_disk_and_machines_are_sums_by_hand():
    events = parts_of()["events"]
    assert events.size == 3.6e8 and events.core_hours == pytest.approx(0.1)
    assert events.disk_gb == pytest.approx(9.0) and events.beyond == pytest.approx(3.6)
    assert events.machines == 1
    candidates = parts_of()["candidates"]
    assert candidates.driver == "users", "3.6e6 users at 1 ms are more than 3.6e8 events at 1 us"
    assert candidates.core_hours == pytest.approx(1.0) and candidates.beyond == pytest.approx(3.6)
    lists = 3.6e6 * 100 * 6 + 3.6e6 * 64 * 2
    assert candidates.disk_gb == pytest.approx(lists / 1e9)
    # An hour of ten cores is ten core-hours; 3.6e9 users take a thousand.
    many = parts_of(Demand(num_items=1, num_users=3.6e9, events_per_day=1))["candidates"]
    assert many.core_hours == pytest.approx(1000) and many.machines == 100


def test_the_power_of_a_law_is_used():
    assert parts_of()["sequences"].core_hours == pytest.approx(1e-6 * 3.6e8**1.1 / 3600)


def test_a_partition_grows_when_there_may_be_no_further_one():
    small, large = parts_of(), parts_of(Demand(num_items=1, num_users=1, events_per_day=1e12, history_days=1))
    assert small["events"].memory_gb == pytest.approx((1 << 20) * 1000 / 1e9)
    assert large["events"].memory_gb == pytest.approx(1e12 / MAX_PARTITIONS * 1000 / 1e9)


def test_memory_is_the_line_and_exact_sizes_are_the_formats():
    parts = parts_of()
    assert parts["training"].memory_gb == pytest.approx(0.5 + 30 * 3.6e8 / 1e9)
    # Its users, beside one partition of the log.
    assert parts["sequences"].memory_gb == pytest.approx(0.5 + 30 * 3.6e6 / 1e9 + (1 << 20) * 1000 / 1e9)
    # 36 bytes, 200 candidates of 9 bytes and 64 dimensions of 2.
    assert parts["user records"].disk_gb == pytest.approx(3.6e6 * (36 + 9 * 200 + 128) / 1e9)
    assert parts["sequences"].disk_gb == pytest.approx(
        (3.6e8 * 29 + 3.6e6 * 16 + sizes.vocabulary_bytes(3.6e6, 16)) / 1e9
    )


def test_requests_take_cores():
    requests = parts_of()["requests"]
    assert requests.cores == pytest.approx(10_000 * 1000 / 1e6) and requests.machines == 1


def test_what_breaks_first_stands_first():
    huge = make_plan(Demand(num_items=1e10, num_users=1e6, events_per_day=1e6), MACHINE, FOUND)
    times = [limit.times for limit in huge.limits]
    assert times == sorted(times, reverse=True)
    # The same index, where lists are made and where it is served.
    assert [limit.name.partition(":")[0] for limit in huge.limits[:2]] == ["item lists", "item index"]
    assert huge.limits[0].times == pytest.approx(1e10 * 1000 / 1e9 / 16)
    indices = next(limit for limit in huge.limits if limit.name == "items: 32-bit indices")
    assert indices.times == pytest.approx(1e10 / MAX_IDS)
    said = render_plan(huge)
    assert "Set `events.num_partitions` to 29." in said  # 30 days of a million events, 2^20 a partition
    assert "What breaks first: item lists: memory of one machine, 625.0 times" in said
    assert "| items: 32-bit indices | 1e+10 ids | 2.147e+09 ids | 4.7 |" in said


def test_a_plan_that_fits_says_so():
    made = make_plan(Demand(num_items=100, num_users=100, events_per_day=100), MACHINE, FOUND)
    said = render_plan(made)
    assert "Nothing breaks" in said and "What breaks first" not in said
    assert all(part.beyond == 1 for part in made.offline)
    assert "| events | 3e+03 events | " in said and "| within |" in said


def test_facts_are_json_and_hold_every_part():
    facts = json.loads(json.dumps(make_plan(DEMAND, MACHINE, FOUND).to_facts()))
    assert [part["name"] for part in facts["offline"]][:3] == ["events", "sequences", "items"]
    assert facts["demand"]["num_items"] == 1e6 and facts["limits"][0]["times"] > 0


@pytest.mark.parametrize("bad", [0, -1, math.nan])
def test_a_demand_of_nothing_is_refused(bad):
    with pytest.raises(ConfigError, match="num_users must be at least 1"):
        Demand(num_items=1, num_users=bad, events_per_day=1)
    with pytest.raises(ConfigError, match="cores must be above 0"):
        Machine(cores=min(bad, 0))


def test_the_laws_of_the_package_make_a_plan():
    made = make_plan(DEMAND, MACHINE, load_laws())
    assert all(part.core_hours > 0 for part in made.offline)
    assert all(part.machines >= 1 for part in made.offline)
