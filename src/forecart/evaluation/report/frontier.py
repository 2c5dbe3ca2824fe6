"""What choosing lists otherwise than by score costs in recall and gives in coverage, a mark per rule."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from forecart.evaluation.report.interval_charts import interval_text
from forecart.evaluation.report.line_charts import Spot, scatter
from forecart.evaluation.report.markup import Child, Html, untrusted
from forecart.evaluation.report.numbers import mapping, metric_label, number, sequence, share
from forecart.evaluation.report.parts import block, card, grid, legend, table
from forecart.evaluation.report.verdicts import Difference

_RECALL: Final = "recall_at_100"
_COVERAGE: Final = "p90_coverage"
_SHOWN: Final = ("recall_at_10", _RECALL, "recall_at_100_of_novel")
_SPREAD: Final = (_COVERAGE, "gini", "intra_list_similarity")


@dataclass(frozen=True)
class _Point:
    name: str
    role: str
    values: Mapping[str, Any]
    change: Difference | None

    @property
    def is_listed(self) -> bool:
        return self.role == "model"


def frontier_block(level: Mapping[str, Any]) -> Html | None:
    """Returns Recall@100 over P90 coverage of every rule that was measured, or None where none was."""
    points = _read_points(mapping(level.get("frontier")))
    if len(points) < 2:
        return None
    spots = [
        Spot(point.name, point.role, float(point.values[_COVERAGE]), float(point.values[_RECALL]))
        for point in points
    ]
    chart = scatter(
        spots,
        label="Recall@100 over P90 coverage, a spot per way to choose lists",
        x_name="P90 coverage",
        y_name="Recall@100",
    )
    headers: list[Child] = ["Lists", *map(_label, _SHOWN), "Change of Recall@100", *map(_label, _SPREAD)]
    shown = table(
        headers,
        [_row(point) for point in points],
        caption="Recall and spread by rule",
        strong=frozenset({untrusted(point.name) for point in points if point.is_listed}),
    )
    key = legend([("dot-model", "as lists are written in this run"), ("dot-best", "the rule as it comes")])
    lead = (
        "Lists chosen anew out of each user's best candidates: a price on popularity, or on similarity to "
        "what is listed above (MMR), below the share of the list that is kept. What is gained in coverage "
        "is paid in recall."
    )
    cards = [card("Recall against coverage", "up and to the right is better", chart)]
    cards.append(card("Recall and spread by rule", "changes with their 95 % intervals", shown))
    return block("Lists chosen anew", lead, key, grid(cards, "two"))


def _read_points(frontier: Mapping[str, Any]) -> list[_Point]:
    """Returns the points of which both measures of the picture are known."""
    found = []
    for entry in map(mapping, sequence(frontier.get("points"))):
        values = mapping(entry.get("values"))
        if number(values.get(_COVERAGE)) is None or number(values.get(_RECALL)) is None:
            continue
        role = "model" if entry.get("is_listed") else "best" if entry.get("is_default") else "other"
        found.append(_Point(str(entry.get("name")), role, values, _read_change(entry)))
    return found


def _read_change(entry: Mapping[str, Any]) -> Difference | None:
    change = mapping(mapping(entry.get("difference")).get(_RECALL))
    mean, low, high = (number(change.get(bound)) for bound in ("mean", "ci_low", "ci_high"))
    return None if mean is None or low is None or high is None else Difference(mean, low, high)


def _row(point: _Point) -> list[Child]:
    recall = [share(point.values.get(metric)) for metric in _SHOWN]
    spread = [share(point.values.get(metric)) for metric in _SPREAD]
    change = interval_text(point.change) if point.change else ""
    return [untrusted(point.name), *recall, change, *spread]


def _label(metric: str) -> str:
    if metric.endswith("_of_novel"):
        return f"{metric_label(metric.removesuffix('_of_novel'))} of novel"
    return metric_label(metric)
