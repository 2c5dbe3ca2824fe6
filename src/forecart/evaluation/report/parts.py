"""The parts that sections are put together from: chapters, cards, tables, tabs, badges.

Every chart stands in a `card`, and has the figures it shows in a `figures` table that opens below it.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from forecart.evaluation.report.markup import Child, Html, join, tag
from forecart.evaluation.report.verdicts import Verdict

SIGNS: Final = {Verdict.AHEAD: "▲", Verdict.LEVEL: "○", Verdict.BEHIND: "▼"}


def chapter(anchor: str, title: str, lead: Child, *body: Child) -> Html:
    """Returns a chapter of the page."""
    head = tag("header", tag("h2", title), tag("p", lead, class_="lead") if lead else None)
    return tag("section", head, *body, id=anchor, class_="chapter")


def block(title: str, lead: Child, *body: Child) -> Html:
    """Returns a titled part of a chapter."""
    note = tag("p", lead, class_="note") if lead else None
    return tag("div", tag("h3", title), note, *body, class_="block")


def card(title: Child, note: Child, *body: Child, class_: str = "card") -> Html:
    """Returns a box with a small title and a note beside it."""
    head = tag("h4", title, tag("small", note) if note else None)
    return tag("div", head, *body, class_=class_)


def grid(cards: Iterable[Html], class_: str = "three") -> Html:
    """Returns cards beside each other where there is room, else below each other."""
    return tag("div", *cards, class_=f"grid {class_}")


def badge(verdict: Verdict) -> Html:
    """Returns the verdict as a sign, a word and a colour."""
    mark = tag("span", SIGNS[verdict], aria_hidden="true")
    return tag("span", mark, " ", str(verdict), class_=f"badge {verdict}")


def table(
    headers: Sequence[Child],
    rows: Iterable[Sequence[Child]],
    *,
    caption: str,
    strong: frozenset[str] = frozenset(),
) -> Html:
    """Returns a table whose first column names the row; rows named in `strong` stand out."""
    head = tag("tr", *(tag("th", header, scope="col") for header in headers))
    body = [
        tag(
            "tr",
            tag("th", first, scope="row"),
            *(tag("td", cell) for cell in rest),
            class_="strong" if first in strong else None,
        )
        for first, *rest in rows
    ]
    content = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return tag("div", content, class_="scroll", tabindex="0", role="region", aria_label=caption)


def figures(*tables: Html) -> Html:
    """Returns tables that open on demand below the chart they belong to."""
    return tag("details", tag("summary", "Figures as a table"), *tables, class_="figures")


def tabs(panels: Sequence[tuple[str, Html]], *, label: str, chosen: str | None = None) -> Html:
    """Returns panels of which the page shows one; without a script, and on paper, all with their names."""
    shown = [
        tag("div", tag("h4", name, class_="panel-name"), body, class_="panel", data_tab=name)
        for name, body in panels
    ]
    return tag("div", *shown, class_="tabs", data_label=label, data_chosen=chosen)


def bar(part: float, whole: float, role: str = "other", start: float = 0.0) -> Html:
    """Returns a horizontal bar as long as `part` is of `whole`, beginning at `start`; only to look at."""
    width, left = (100 * max(0.0, min(1.0, size / whole)) if whole > 0 else 0.0 for size in (part, start))
    style = f"width:{width:.2f}%;margin-left:{left:.2f}%"
    return tag("span", tag("span", class_=f"fill {role}", style=style), class_="bar", aria_hidden="true")


def tiles(entries: Iterable[tuple[str, str]]) -> Html:
    """Returns large figures with what they count."""
    pairs = [tag("div", tag("dt", name), tag("dd", value)) for name, value in entries]
    return tag("dl", *pairs, class_="tiles")


def legend(entries: Iterable[tuple[str, str]]) -> Html:
    """Returns what the roles in charts stand for: (role, name)."""
    keys = [
        tag("span", tag("i", class_=f"key {role}", aria_hidden="true"), name, class_="entry")
        for role, name in entries
    ]
    return tag("p", join(keys), class_="legend")


def verdict_legend() -> Html:
    """Returns what the three signs stand for."""
    meaning = {
        Verdict.AHEAD: "the whole 95 % interval is above 0",
        Verdict.LEVEL: "the interval includes 0",
        Verdict.BEHIND: "the whole interval is below 0",
    }
    entries = [tag("span", badge(verdict), " ", words, class_="entry") for verdict, words in meaning.items()]
    return tag("p", join(entries), class_="legend")
