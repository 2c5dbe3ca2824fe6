"""Where the model wins and where not: cut by cut, by size of the candidate, and over the catalogue."""

from collections.abc import Mapping
from typing import Any, Final

from forecart.evaluation.report.headline import POOL_NAMES
from forecart.evaluation.report.interval_charts import across, forest, interval_text
from forecart.evaluation.report.line_charts import Pair, Spot, dumbbells, scatter
from forecart.evaluation.report.markup import Html, untrusted
from forecart.evaluation.report.numbers import count, mapping, metric_label, share, when
from forecart.evaluation.report.parts import bar, block, card, figures, grid, legend, table, verdict_legend
from forecart.evaluation.report.verdicts import (
    MODEL,
    Comparison,
    Table,
    best_baseline,
    compare,
    read_difference,
    role_of,
    value_of,
)

_METRIC: Final = "recall_at_10"
_SLICE_METRICS: Final = ("recall_at_10", "recall_at_100")
_EXPOSURE: Final = ("p90_coverage", "catalogue_coverage", "gini")
_SLICE_NAMES: Final = {
    "head": "head: half of conversions",
    "torso": "torso: next 40 %",
    "tail": "tail: last 10 %",
    "without_dominant": "without the largest",
    "repeat": "repeat",
    "novel": "novel",
    "cold_users": "users with a short past",
    "unseen": "unseen before the cut-off",
}


def cuts_block(level: Mapping[str, Any], tables: Mapping[str, Table]) -> Html | None:
    """Returns the difference to the best baseline at each cut, a chart per pool."""
    per_cut = mapping(level.get("per_cut"))
    cards = []
    for pool, pooled in tables.items():
        best = best_baseline(pooled, _METRIC)
        at_cut = [(when(cut), mapping(mapping(per_cut[cut]).get(pool))) for cut in sorted(per_cut)]
        found = [(cut, one, read_difference(one, _METRIC, best)) for cut, one in at_cut if best]
        known = [(cut, one, difference) for cut, one, difference in found if difference]
        if best and known:
            chart = across(
                [(cut, difference) for cut, _, difference in known],
                pooled=read_difference(pooled, _METRIC, best),
                label=f"{metric_label(_METRIC)}, {pool}: model minus {best} at each cut",
            )
            rows = [
                [
                    cut,
                    share(value_of(one, MODEL, _METRIC)),
                    share(value_of(one, best, _METRIC)),
                    interval_text(d),
                ]
                for cut, one, d in known
            ]
            headers = ["Cut", "Model", untrusted(best), "Difference"]
            shown = figures(table(headers, rows, caption=f"{metric_label(_METRIC)} by cut"))
            cards.append(card(POOL_NAMES[pool], f"model minus {best}", chart, shown))
    if not cards:
        return None
    lead = f"{metric_label(_METRIC)}, model minus the best baseline. The band is the interval over all cuts."
    return block("Cut by cut", lead, verdict_legend(), grid(cards))


def slices_block(slices: Mapping[str, Any]) -> Html | None:
    """Returns the model beside the best baseline of each slice of the positives, values and differences."""
    order = [*(key for key in _SLICE_NAMES if key in slices), *sorted(set(slices) - set(_SLICE_NAMES))]
    tables = {name: mapping(slices[name]) for name in order}
    cards = [_slice_values(tables), *(_slice_differences(tables, metric) for metric in _SLICE_METRICS)]
    shown = [one for one in cards if one is not None]
    if not shown:
        return None
    lead = (
        "Recall of only these positives, in the lists of the pool of all candidates. Candidates by their "
        "number of conversions before the cut-off: the largest, who hold half of all, are the head."
    )
    key = legend([("dot-model", "model"), ("dot-best", "best baseline of that slice")])
    return block("By size of the candidate, and by past", lead, key, grid(shown))


def _compare_slices(tables: Mapping[str, Table], metric: str) -> list[tuple[str, Comparison]]:
    found = [(name, compare(one, metric, best_baseline(one, metric))) for name, one in tables.items()]
    return [(name, comparison) for name, comparison in found if comparison is not None]


def _slice_values(tables: Mapping[str, Table]) -> Html | None:
    pairs = []
    for name, found in _compare_slices(tables, _METRIC):
        if found.baseline_value is not None:
            values = f"{share(found.model_value)}, {share(found.baseline_value)}"
            tip = f"{name}: model {share(found.model_value)}, {found.baseline} {share(found.baseline_value)}"
            pairs.append(
                Pair(_SLICE_NAMES.get(name, name), values, found.model_value, found.baseline_value, tip)
            )
    if not pairs:
        return None
    chart = dumbbells(pairs, label=f"{metric_label(_METRIC)} by slice of the positives")
    return card(metric_label(_METRIC), "model, best baseline", chart)


def _slice_differences(tables: Mapping[str, Table], metric: str) -> Html | None:
    compared = _compare_slices(tables, metric)
    known = [(_SLICE_NAMES.get(name, name), one.difference) for name, one in compared if one.difference]
    if not known:
        return None
    rows = [
        [
            untrusted(_SLICE_NAMES.get(name, name)),
            count(tables[name].get("num_relevant")),
            share(one.model_value),
            share(one.baseline_value),
            untrusted(one.baseline),
            f"{interval_text(one.difference)} {one.difference.verdict}" if one.difference else share(None),
        ]
        for name, one in compared
    ]
    headers = ["Positives", "Number", "Model", "Best baseline", "which is", "Difference"]
    chart = forest(known, label=f"{metric_label(metric)}: model minus the best baseline of each slice")
    shown = figures(table(headers, rows, caption=metric_label(metric)))
    return card(f"{metric_label(metric)}, difference", "model minus best baseline", chart, shown)


def exposure_block(one: Table) -> Html | None:
    """Returns how widely each list spreads over the catalogue, beside how much it finds."""
    best = best_baseline(one, _METRIC)
    names = [MODEL, *mapping(one.get("baselines"))]
    measured = [
        name for name in names if any(value_of(one, name, metric) is not None for metric in _EXPOSURE)
    ]
    if not measured:
        return None
    spots = [
        Spot(name, role_of(name, best), x, y)
        for name in measured
        if (x := value_of(one, name, "p90_coverage")) is not None
        and (y := value_of(one, name, "recall_at_100")) is not None
    ]
    rows = [
        [untrusted(name), *(_barred(value_of(one, name, metric), name, best) for metric in _EXPOSURE)]
        for name in measured
    ]
    headers = ["List", *map(metric_label, _EXPOSURE)]
    spread = table(headers, rows, caption="Spread of the lists", strong=frozenset({untrusted(MODEL)}))
    cards = (
        [card("Recall beside coverage", "up and to the right is better", _spread_chart(spots))]
        if spots
        else []
    )
    lead = (
        "A list of bestsellers for everyone can have good recall and show almost nothing of the catalogue. "
        "P90 coverage: the share of all candidates that makes up 90 % of what is listed."
    )
    cards.append(card("Spread of the lists", "gini 0: all candidates listed alike", spread))
    return block("Coverage and popularity", lead, grid(cards, "two"))


def _spread_chart(spots: list[Spot]) -> Html:
    label = "Recall@100 over P90 coverage, a spot per list"
    return scatter(spots, label=label, x_name="P90 coverage", y_name="Recall@100")


def _barred(value: float | None, name: str, best: str | None) -> Html | str:
    if value is None:
        return share(None)
    return Html(f"{share(value)}{bar(value, 1.0, role_of(name, best))}")


def index_block(level: Mapping[str, Any], one: Table) -> Html | None:
    """Returns recall against a random index, the protocol of the reference system."""
    source = mapping(level.get("random_index")) or one
    names = [MODEL, *mapping(source.get("baselines"))]
    values = [mapping(source.get(MODEL)), *map(mapping, mapping(source.get("baselines")).values())]
    metrics = sorted(
        {m for value in values for m in value if m.startswith("index_recall_at_")},
        key=lambda metric: (len(metric), metric),
    )
    if not metrics:
        return None
    best = best_baseline(source, metrics[-1])
    rows = [
        [untrusted(name), *(_barred(value_of(source, name, metric), name, best) for metric in metrics)]
        for name in names
        if any(value_of(source, name, metric) is not None for metric in metrics)
    ]
    lead = (
        "Each positive is ranked among candidates drawn at random, not among all: easier by far, comparable "
        "only between rows of this table."
    )
    headers, strong = ["List", *map(metric_label, metrics)], frozenset({untrusted(MODEL)})
    shown = table(headers, rows, caption="Index recall", strong=strong)
    return block("Against a random index", lead, card("Index recall", None, shown))
