"""A plan as Markdown, for people and for docs/scaling.md."""

from collections.abc import Iterable, Iterator
from typing import Final

from forecart.planning.plan import Limit, Part, Plan

_OFFLINE: Final = (
    "stage",
    "grows with",
    "core-hours",
    "memory, GB",
    "disk, GB",
    "machines",
    "beyond measured",
)
_SERVING: Final = ("serving", "grows with", "cores", "memory, GB", "machines")
_LIMITS: Final = ("what breaks", "needed", "breaks at", "times", "then")


def render_plan(plan: Plan) -> str:
    """Returns the bill, what breaks first, and where the laws come from."""
    demand, machine = plan.demand, plan.machine
    broken = [limit for limit in plan.limits if limit.times > 1]
    blocks = [
        f"{demand.num_items:,.0f} items, {demand.num_users:,.0f} users, {demand.events_per_day:,.0f} "
        f"events a day kept for {demand.history_days:,.0f} days; machines of {machine.cores:g} cores and "
        f"{machine.memory_gb:g} GB, a rebuild within {machine.hours:g} hours.",
        f"Set `events.num_partitions` to {plan.num_partitions:,}.",
        _table(_OFFLINE, (_offline(part) for part in plan.offline)),
        _table(_SERVING, (_serving(part) for part in plan.serving)),
        _verdict(broken),
    ]
    if broken:
        blocks.append(_table(_LIMITS, (_limit(limit) for limit in broken)))
    blocks.append(f"Laws measured on {plan.measured['machine']}; commit {plan.measured['commit']}.")
    return "\n\n".join(blocks)


def _verdict(broken: list[Limit]) -> str:
    if not broken:
        return "Nothing breaks: every part fits one machine's memory and the formats."
    return f"What breaks first: {broken[0].name}, {broken[0].times:,.1f} times what there is."


def _offline(part: Part) -> Iterator[str]:
    beyond = "within" if part.beyond <= 1 else f"{part.beyond:,.0f} times"
    yield from (part.name, f"{part.size:.3g} {part.driver}", _number(part.core_hours))
    yield from (_number(part.memory_gb), _number(part.disk_gb), f"{part.machines:,}", beyond)


def _serving(part: Part) -> Iterator[str]:
    yield from (part.name, f"{part.size:.3g} {part.driver}", _number(part.cores))
    yield from (_number(part.memory_gb), f"{part.machines:,}")


def _limit(limit: Limit) -> Iterator[str]:
    numbers = (f"{value:,.4g} {limit.unit}" for value in (limit.needed, limit.at))
    yield from (limit.name, *numbers, f"{limit.times:,.1f}", limit.remedy)


def _number(value: float) -> str:
    return "-" if value == 0 else f"{value:,.0f}" if value >= 100 else f"{value:,.2g}"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
