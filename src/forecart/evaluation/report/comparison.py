"""The chapter of one target: the model against every baseline, and what stays the same over K, pool, cut.

Every block leaves itself out where the report lacks its figures.
"""

from collections.abc import Mapping
from typing import Any, Final

from forecart.evaluation.report.breakdown import cuts_block, exposure_block, index_block, slices_block
from forecart.evaluation.report.frontier import frontier_block
from forecart.evaluation.report.headline import POOL_NAMES
from forecart.evaluation.report.interval_charts import across, forest, interval_text
from forecart.evaluation.report.line_charts import Series, curves
from forecart.evaluation.report.markup import Child, Html, join, untrusted
from forecart.evaluation.report.numbers import count, mapping, metric_label, number, share
from forecart.evaluation.report.parts import (
    SIGNS,
    block,
    card,
    chapter,
    figures,
    grid,
    legend,
    table,
    tabs,
    verdict_legend,
)
from forecart.evaluation.report.verdicts import (
    MODEL,
    Table,
    best_baseline,
    differences,
    is_ablation,
    pool_tables,
    read_difference,
    recall_depths,
    role_of,
    value_of,
)

_DEFAULT_K: Final = 10
_OTHER_METRICS: Final = ("ndcg_at_10", "hit_rate_at_10", "capped_recall_at_10", "mrr")


def comparison(key: str, level: Mapping[str, Any], *, title: str) -> Html | None:
    """Returns the chapter of one target, or None if the report has no table for it."""
    tables = pool_tables(level)
    if not tables:
        return None
    blocks = [
        _forest_block(tables),
        _curves_block(tables),
        cuts_block(level, tables),
        slices_block(mapping(level.get("slices"))),
        exposure_block(next(iter(tables.values()))),
        frontier_block(level),
        index_block(level, next(iter(tables.values()))),
        _everything(tables),
    ]
    lead = (
        "Three pools beside each other. They answer different questions; how to read them is further below."
    )
    return chapter(key.replace("_", "-"), title, lead, *blocks)


def system_names(*tables: Table) -> list[str]:
    """Returns the systems of some tables: the model first, then the baselines in order."""
    names = {name: None for one in tables for name in mapping(one.get("baselines"))}
    has_model = any(one.get(MODEL) for one in tables)
    return [MODEL, *names] if has_model else list(names)


def pool_title(pool: str, one: Table) -> tuple[str, str | None]:
    """Returns the title of a pool's card and the number of rows its means are over."""
    rows = number(one.get("num_rows"))
    return POOL_NAMES[pool], f"{count(rows)} user-cut rows" if rows is not None else None


def _forest_block(tables: Mapping[str, Table]) -> Html | None:
    panels = []
    for k in recall_depths(next(iter(tables.values()))):
        metric = f"recall_at_{k}"
        known = {pool: differences(one, metric) for pool, one in tables.items()}
        if any(known.values()):
            cards = [
                card(
                    *pool_title(pool, tables[pool]),
                    forest(rows, label=f"{metric_label(metric)}, {pool}: model minus each baseline"),
                )
                for pool, rows in known.items()
                if rows
            ]
            panels.append((f"K = {k}", join([grid(cards), figures(_difference_table(tables, metric))])))
    if not panels:
        return None
    lead = (
        "Recall@K of the model minus that of each baseline, with the 95 % interval of the difference. "
        "The hardest to beat stands first; an arrow marks a baseline that is further off than the scale."
    )
    chosen = f"K = {_DEFAULT_K}"
    return block(
        "The model against every baseline", lead, verdict_legend(), tabs(panels, label="K", chosen=chosen)
    )


def _difference_table(tables: Mapping[str, Table], metric: str) -> Html:
    names = [name for name, _ in differences(next(iter(tables.values())), metric)]
    rows = [
        [untrusted(name), *(_difference_cell(one, metric, name) for one in tables.values())] for name in names
    ]
    caption = f"{metric_label(metric)}: model minus baseline, 95 % interval"
    return table(["Baseline", *tables], rows, caption=caption)


def _difference_cell(one: Table, metric: str, name: str) -> Child:
    difference = read_difference(one, metric, name)
    if difference is None:
        return share(None)
    return f"{SIGNS[difference.verdict]} {interval_text(difference)} {difference.verdict}"


def _curves_block(tables: Mapping[str, Table]) -> Html | None:
    depths = recall_depths(next(iter(tables.values())))
    if len(depths) < 2:
        return None
    best = best_baseline(next(iter(tables.values())), f"recall_at_{_DEFAULT_K}")
    cards = []
    for pool, one in tables.items():
        series = _recall_series(one, depths, best)
        if series:
            label = f"Recall by K, {pool}"
            chart = curves(series, label=label, ticks=[float(k) for k in depths], is_log=True, from_zero=True)
            cards.append(card(*pool_title(pool, one), chart, figures(_recall_table(one, depths))))
    systems = system_names(*tables.values())
    entries = [("model", "model, with its 95 % interval")] if MODEL in systems else []
    if best:
        entries.append(("best", f"best baseline at K = {_DEFAULT_K}: {best}"))
    if any(map(is_ablation, systems)):
        entries.append(("ablation", "model without its sequence encoder"))
    entries.append(("other", "other baselines; point at a line for its name"))
    lead = "The share of what users converted with that is among the first K candidates; K is on a log axis."
    return block(
        "Recall by length of the list", lead, legend(entries), grid(cards), _by_depth(tables, depths)
    )


def _by_depth(tables: Mapping[str, Table], depths: list[int]) -> Html | None:
    """Returns the difference to the best baseline of each K, which curves this close do not show."""
    cards = []
    for pool, one in tables.items():
        entries = []
        for metric in (f"recall_at_{k}" for k in depths):
            best = best_baseline(one, metric)
            difference = read_difference(one, metric, best) if best else None
            if difference:
                entries.append((metric.removeprefix("recall_at_"), difference))
        if entries:
            label = f"Recall by K, {pool}: model minus the best baseline at each K"
            title = "The same, model minus best baseline"
            cards.append(card(title, "of each K", across(entries, pooled=None, label=label)))
    return grid(cards) if cards else None


def _recall_series(one: Table, depths: list[int], best: str | None) -> list[Series]:
    found = []
    for name in system_names(one):
        known = [(k, value) for k in depths if (value := value_of(one, name, f"recall_at_{k}")) is not None]
        if known:
            tips = [f"{name}: Recall@{k} {share(value)}" for k, value in known]
            points = [(float(k), value) for k, value in known]
            found.append(Series(name, role_of(name, best), points, tips, _band(one, name, depths)))
    order = ("model", "best", "ablation", "other")
    return sorted(found, key=lambda series: order.index(series.role))


def _band(one: Table, name: str, depths: list[int]) -> list[tuple[float, float, float]]:
    if name != MODEL:
        return []
    intervals = mapping(mapping(one.get("interval")).get(name))
    entries = [(k, mapping(intervals.get(f"recall_at_{k}"))) for k in depths]
    bounds = [(float(k), number(entry.get("ci_low")), number(entry.get("ci_high"))) for k, entry in entries]
    return [(k, low, high) for k, low, high in bounds if low is not None and high is not None]


def _recall_table(one: Table, depths: list[int]) -> Html:
    return _value_table(one, [f"recall_at_{k}" for k in depths], caption="Recall@K")


def _value_table(one: Table, metrics: list[str], *, caption: str) -> Html:
    rows = [
        [untrusted(name), *(share(value_of(one, name, metric)) for metric in metrics)]
        for name in system_names(one)
    ]
    headers = ["List", *map(metric_label, metrics)]
    return table(headers, rows, caption=caption, strong=frozenset({untrusted(MODEL)}))


def _everything(tables: Mapping[str, Table]) -> Html | None:
    """Returns the remaining ranking measures of all lists, a table per pool."""
    found = []
    for pool, one in tables.items():
        systems = system_names(one)
        metrics = [m for m in _OTHER_METRICS if any(value_of(one, name, m) is not None for name in systems)]
        if metrics:
            found.append(_value_table(one, metrics, caption=POOL_NAMES[pool]))
    return block("Other ranking measures", None, grid(found)) if found else None
