"""What the figures stand on: the size of the log, its course over time, and every row that was left out."""

from collections.abc import Mapping
from typing import Any, Final

from forecart.evaluation.report.line_charts import columns
from forecart.evaluation.report.markup import Html, tag, untrusted
from forecart.evaluation.report.numbers import count, mapping, number, percent, sequence, when
from forecart.evaluation.report.parts import bar, card, chapter, figures, grid, table, tiles

_COUNTS: Final = (
    ("num_users", "users"),
    ("num_advertisers", "advertisers"),
    ("num_items", "products"),
    ("num_events", "events"),
)


def data(report: Mapping[str, Any]) -> Html | None:
    """Returns the chapter of the data, or None if the report says nothing about it."""
    known = mapping(report.get("data"))
    if not known:
        return None
    facts = [(name, count(known[key])) for key, name in _COUNTS if number(known.get(key)) is not None]
    span = [
        (name, when(known[key]))
        for key, name in (("first_event_at", "first event"), ("last_event_at", "last event"))
        if known.get(key)
    ]
    charts = [_weeks(known), _types(mapping(known.get("events_by_type")))]
    course = [one for one in charts if one is not None]
    halves = [_funnel(mapping(known.get("events"))), tag("div", *course, class_="stack") if course else None]
    shown = [one for one in halves if one is not None]
    lead = "Every row that was read is accounted for: taken, or left out for a reason that is counted here."
    return chapter("data", "Data", lead, tiles([*facts, *span]), grid(shown, "two"))


def _funnel(events: Mapping[str, Any]) -> Html | None:
    total = number(events.get("rows_read"))
    if total is None:
        return None
    drops = [("duplicates", "duplicates of an event id", number(events.get("duplicates")))]
    for key in ("filtered", "rejected"):
        reasons = mapping(events.get(key))
        drops += [(key, f"{key}: {reason}", number(reasons[reason])) for reason in sorted(reasons)]
    rows = [_step("rows read", total, total, 0.0, "other")]
    left = total
    for role, name, size in drops:
        if size is not None:
            left -= size
            rows.append(_step(name, size, total, max(0.0, left), role))
    accepted = number(events.get("accepted"))
    if accepted is not None:
        rows.append(_step("accepted", accepted, total, 0.0, "model"))
    headers = ["Rows", "Number", "Of those read", ""]
    body = table(headers, rows, caption="From rows read to events", strong=frozenset({untrusted("accepted")}))
    return card("From rows read to events", _balance(events, drops), body, class_="card funnel")


def _step(name: str, size: float, total: float, start: float, role: str) -> list[Html | str]:
    return [untrusted(name), count(size), percent(size, total), bar(size, total, role, start)]


def _balance(events: Mapping[str, Any], drops: list[tuple[str, str, float | None]]) -> str | None:
    accepted, total = number(events.get("accepted")), number(events.get("rows_read"))
    if accepted is None or total is None:
        return None
    told = accepted + sum(size for _, _, size in drops if size is not None)
    return (
        "the counts add up" if told == total else f"the counts do not add up: {count(told)} of {count(total)}"
    )


def _weeks(known: Mapping[str, Any]) -> Html | None:
    entries = [entry for entry in sequence(known.get("events_by_week")) if len(sequence(entry)) == 2]
    weeks = [(when(week), size) for week, value in entries if (size := number(value)) is not None]
    if not weeks:
        return None
    chart = columns(weeks, label="Events by week", unit="events")
    rows = [[week, count(size)] for week, size in weeks]
    return card(
        "Events by week", None, chart, figures(table(["Week of", "Events"], rows, caption="Events by week"))
    )


def _types(by_type: Mapping[str, Any]) -> Html | None:
    known = [(str(kind), size) for kind, value in by_type.items() if (size := number(value)) is not None]
    if not known:
        return None
    known.sort(key=lambda entry: (-entry[1], entry[0]))
    total, most = sum(size for _, size in known), known[0][1]
    rows = [
        [untrusted(kind), count(size), percent(size, total), bar(size, most, "model")] for kind, size in known
    ]
    body = table(["Event type", "Events", "Share", ""], rows, caption="Events by type")
    return tag("div", tag("h4", "Events by type"), body, class_="card funnel")
