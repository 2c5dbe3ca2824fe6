"""A few users: what they did before the cut beside what they would be shown, and what came true."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from forecart.evaluation.report.markup import Html, join, tag, untrusted
from forecart.evaluation.report.numbers import count, mapping, number, plain, sequence, share, when
from forecart.evaluation.report.parts import bar, chapter, tabs

_SHOWN_EVENTS: Final = 16
_SHOWN_CANDIDATES: Final = 10
_KINDS: Final = (("advertisers", "Advertisers", "advertiser_id"), ("products", "Products", "item_id"))


def people(report: Mapping[str, Any]) -> Html | None:
    """Returns the chapter of example users, or None if the report has none."""
    examples = [example for example in map(mapping, sequence(report.get("examples"))) if example]
    if not examples:
        return None
    lead = (
        "At the left what a user did until the cut, the latest first. At the right the first candidates of "
        "the model at that moment. A tick: the user converted with it in the label window that followed."
    )
    panels = [(_tab_name(example, at), _person(example)) for at, example in enumerate(examples)]
    return chapter("users", "Users beside their candidates", lead, tabs(panels, label="User"))


def _tab_name(example: Mapping[str, Any], at: int) -> str:
    user = example.get("user_id")
    return f"User {str(user)[:40] if user is not None else at + 1}"


def _person(example: Mapping[str, Any]) -> Html:
    candidates = [
        _candidates(sequence(example.get(key)), title, id_key)
        for key, title, id_key in _KINDS
        if sequence(example.get(key))
    ]
    columns = [_history(example), *candidates]
    return tag("div", *columns, class_=f"grid person with-{len(candidates)}")


def _history(example: Mapping[str, Any]) -> Html:
    events = [mapping(event) for event in sequence(example.get("events"))]
    events.sort(key=lambda event: str(event.get("occurred_at") or ""), reverse=True)
    note = f"until {when(example['as_of'])}" if example.get("as_of") else None
    rows = [_event(event) for event in events[:_SHOWN_EVENTS]]
    more = len(events) - _SHOWN_EVENTS
    rest = tag("p", f"and {count(more)} earlier events", class_="note") if more > 0 else None
    body = tag("ol", *rows, class_="history") if rows else tag("p", "No event before the cut.", class_="note")
    return tag("div", tag("h4", "History", tag("small", note) if note else None), body, rest, class_="card")


def _event(event: Mapping[str, Any]) -> Html:
    kind = str(event.get("event_type") or "event")
    subject = event.get("title") or event.get("item_id")
    value = number(event.get("value"))
    amount = tag("span", plain(value), class_="amount") if value is not None else None
    by = untrusted(event["advertiser_id"], limit=60) if event.get("advertiser_id") is not None else None
    what = untrusted(subject, limit=80) if subject is not None else None
    return tag(
        "li",
        tag("time", when(event.get("occurred_at"))),
        tag("span", kind.replace("_", " ")[:24], class_=f"kind {_kind_class(kind)}"),
        tag("span", join([part for part in (what, by) if part], " · "), class_="what"),
        amount,
    )


def _kind_class(kind: str) -> str:
    return kind if kind in {"checkout", "add_to_cart", "signup", "view"} else "other"


def _candidates(candidates: Sequence[Any], title: str, id_key: str) -> Html:
    known = [mapping(candidate) for candidate in candidates]
    hits = sum(bool(candidate.get("converted")) for candidate in known)
    shown = known[:_SHOWN_CANDIDATES]
    scores = [score for one in shown if (score := number(one.get("score"))) is not None]
    low, high = min(scores, default=0.0), max(scores, default=1.0)
    rows = [_candidate(one, id_key, low, high) for one in shown]
    note = f"{hits} of {len(known)} listed here converted in the window"
    head = tag("h4", title, tag("small", note))
    return tag("div", head, tag("ol", *rows, class_="candidates"), class_="card")


def _candidate(one: Mapping[str, Any], id_key: str, low: float, high: float) -> Html:
    known = one.get(id_key)
    name = untrusted("?" if known is None else known, limit=60)
    title = one.get("title")
    label = join([untrusted(title, limit=80), tag("small", name)], " ") if title else name
    score = number(one.get("score"))
    has_converted = bool(one.get("converted"))
    # Scores have no zero of their own: the bar runs from a little below the lowest shown.
    floor = low - 0.15 * ((high - low) or 1.0)
    length = (
        bar(score - floor, high - floor, "model" if has_converted else "other") if score is not None else None
    )
    badges = [
        tag("span", "↻ repeat", class_="chip repeat") if one.get("is_repeat") else None,
        tag("span", "✓ converted in the window", class_="chip hit") if has_converted else None,
    ]
    return tag(
        "li",
        tag("span", count(one.get("rank")), class_="rank"),
        tag("span", label, *badges, class_="what"),
        tag("span", share(score) if score is not None else None, class_="amount"),
        length,
        class_="hit" if has_converted else None,
    )
