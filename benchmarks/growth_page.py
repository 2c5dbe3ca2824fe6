"""docs/scaling.md, from what is stored: the run from raw log to lists, the laws, and a worked plan."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from forecart.planning.demand import Demand, Machine
from forecart.planning.laws import Law
from forecart.planning.plan import make_plan
from forecart.planning.table import render_plan

PLANS: Final = {
    "A hundred million events in 8 GB": (
        "forecart plan --items 1e6 --users 1562500 --events-per-day 1562500 --history-days 64 "
        "--machine-cores 2 --machine-memory-gb 8 --hours 2",
        Demand(1e6, 1_562_500, 1_562_500, history_days=64),
        Machine(cores=2, memory_gb=8, hours=2),
    ),
    "A plan that fits": (
        "forecart plan --items 1e6 --users 1e7 --events-per-day 1e8 --machine-memory-gb 512",
        Demand(1e6, 1e7, 1e8),
        Machine(memory_gb=512),
    ),
    "A plan that breaks": (
        "forecart plan --items 1e9 --users 1e8 --events-per-day 1e10",
        Demand(1e9, 1e8, 1e10),
        Machine(),
    ),
}
"""By heading: the command, and what it asks for."""
_MOST: Final = {"events": 1.10, "sequences": 1.10}
"""Of the slope: where there is a sort; everything else is to be linear."""
_LINEAR: Final = 1.05


def render(result: dict[str, Any], found: dict[str, Any]) -> str:
    """Returns the page.

    Args:
        result: the rows that were measured.
        found: the laws of the package.
    """
    blocks = [
        _HEAD,
        _provenance(result),
        "## From raw log to lists",
        *_largest(result["rows"]),
        "## Growth",
        _GROWTH,
        _laws(found["laws"]),
        "## Rates of one size",
        _RATES,
        _rates(found["rates"]),
    ]
    for title, (command, demand, machine) in PLANS.items():
        plan = render_plan(make_plan(demand, machine, found))
        blocks += [f"## {title}", f"```console\n$ {command}\n```", plan]
    return "\n\n".join([*blocks, _TAIL]) + "\n"


def _provenance(result: dict[str, Any]) -> str:
    facts, commits = result["provenance"], sorted({row["commit"] for row in result["rows"]})
    return f"Measured on {facts['machine']}; Python {facts['python']}; commits {', '.join(commits)}."


def _largest(rows: list[dict[str, Any]]) -> Iterator[str]:
    along = [row for row in rows if row["axis"] == "events"]
    num_events = max(row["num_events"] for row in along)
    largest = [row for row in along if row["num_events"] == num_events]
    sizes = largest[-1]
    yield (
        f"{num_events:,} events of {sizes['num_users']:,} users with {sizes['num_items']:,} items of "
        f"{sizes['num_advertisers']:,} advertisers over 64 days, in {sizes['num_partitions']} partitions; "
        "each stage in a process of its own. *Own* memory is what nobody can take back; *resident* also "
        "counts pages of mapped files, which the system may drop at any time."
    )
    header = ["stage", "wall, s", "core-seconds", "own peak, GB", "resident peak, GB", "on disk, GB"]
    body = [
        [
            row["stage"],
            f"{row['wall_s']:,.0f}",
            f"{row['cpu_s']:,.0f}",
            f"{row['own_gb']:.2f}",
            f"{row['resident_gb']:.2f}",
            f"{row['disk_bytes'] / 1e9:.2f}" if "disk_bytes" in row else "-",
        ]
        for row in largest
    ]
    yield _table(header, body)
    most = max(largest, key=lambda row: row["resident_gb"])
    yield f"The most that is resident, mapped pages counted: {most['resident_gb']:.2f} GB ({most['stage']})."
    yield _SHARED


def _laws(laws: dict[str, Any]) -> str:
    header = [
        "law",
        "T, CPU seconds",
        "slope",
        "at most",
        "measured",
        "sizes",
        "largest distance from the law",
    ]
    body = []
    for name, facts in laws.items():
        law, most = Law(**facts), _MOST.get(name.partition(" ")[0], _LINEAR)
        verdict = "" if law.power <= most else ", **missed**"
        body.append(
            [
                name,
                f"{law.factor:.2e} n^{law.power:.3f}",
                f"{law.power:.3f}{verdict}",
                f"{most:.2f}",
                f"{law.smallest:,.0f} to {law.largest:,.0f}",
                str(law.num_sizes),
                f"{law.residual:.1%}".replace("%", " %"),
            ]
        )
    return _table(header, body)


def _rates(rates: dict[str, Any]) -> str:
    body = [
        [
            name.replace("_", " "),
            f"{rate['value']:,.4g}",
            f"{rate['size']:,}",
            rate["machine"],
            rate["commit"],
        ]
        for name, rate in rates.items()
    ]
    return _table(["what", "value", "at", "machine", "commit"], body)


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_HEAD: Final = """\
# Scaling

What grows with what, where that was measured, and what a size of business costs. This page is
written by `python -m benchmarks.growth --render` from `benchmarks/results/scale-growth.json` and
from the laws that travel in the package; the plans below are what the commands above them print.
The decision: [ADR 0020](adr/0020-planning-laws.md); the files: [artifacts](artifacts.md); other
figures: [benchmarks](benchmarks.md)."""
_SHARED: Final = """\
Training is bounded: one epoch over one cut whose label window is a day, small towers (width 32, one
layer, 20 events), no co-conversion vectors. Candidates are the top 100 of 5,000 advertisers for
**everybody**, by exact search. The log is synthetic with Zipf popularity and no structure
(`benchmarks/raw_log.py`): it says what stages cost and nothing of quality. The machine was shared
with other work, more at some times than at others: core-seconds say what the work is, wall time says
how long it had to wait too. Beside many processes the same work takes up to a third more
core-seconds."""
_GROWTH: Final = """\
![CPU seconds of each stage](scaling.svg)

Laws T = a n^b are least squares through the logarithms of the sizes that took at least two CPU
seconds; hollow points took less. Along *events* a user has 64 of them, so users grow too; along
*users* everyone has 10; along *items* a catalogue grows beside a log of 20,000 events: reading the
feed and building the vocabulary, together. Linear stages may have a slope of 1.05. Where a stage
sorts it may have 1.10: *events* sorts each partition by user and arrival, *sequences* sorts ids by
first arrival and by hash. Training and candidates sort each user's own events, whose number does
not grow."""
_RATES: Final = """\
These were measured at one size, most of them by other benchmarks; a plan takes them as proportional
and says how far it goes beyond."""
_TAIL: Final = """\
## What a plan does not know

- Where a part can be spread: *machines* is what its time and memory divide into. Whatever one
process must hold, a log of pairs or the facts of all items, stands among what breaks.
- Pages of mapped files: memory is what a process holds of its own. The histories are mapped, 29
bytes an event; a machine that has no room for them beside reads them from its disk again.
- What the allocator keeps: the steps of a training leave up to 2 GB of holes with it, within some
200 steps; the line through two sizes takes that for a cost of events.
- Network and object stores: reading a day's log from elsewhere, moving releases to servers.
- A training that is long enough to be good: the law is of one epoch over one cut. Multiply.
- Other machines: a core is one of the machine above; memory bandwidth that many cores share is
not in it.
- Replicas: serving rows are for one copy of everything."""
