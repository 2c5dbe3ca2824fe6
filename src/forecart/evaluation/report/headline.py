"""The top of the page: does the model win? One card per target, the same words for winning and losing."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from forecart.evaluation.report.interval_charts import describe, interval_text, strip
from forecart.evaluation.report.markup import Html, join, tag, untrusted
from forecart.evaluation.report.numbers import count, mapping, metric_label, number, sequence, share, when
from forecart.evaluation.report.parts import SIGNS, badge
from forecart.evaluation.report.verdicts import (
    MODEL,
    POOLS,
    Comparison,
    Difference,
    Verdict,
    best_baseline,
    compare,
    differences,
    is_ablation,
    is_baseline,
    pool_tables,
    value_of,
)

LEVELS: Final = {"next_advertiser": "Next advertiser", "next_product": "Next product"}
POOL_NAMES: Final = {
    "all": "All candidates",
    "novel": "Novel: not converted with before",
    "repeat": "Repeat: converted with before",
}
HEADLINE_K: Final = (10, 100)
_VERBS: Final = {
    Verdict.AHEAD: "is ahead of the best baseline",
    Verdict.LEVEL: "is level with the best baseline",
    Verdict.BEHIND: "loses to the best baseline",
}


def headline(report: Mapping[str, Any]) -> Html:
    """Returns title, what was measured, and a verdict card per target."""
    cards = [_card(mapping(report.get(key)), title) for key, title in LEVELS.items() if report.get(key)]
    empty = tag("p", "This report has no measures: the evaluation has not run.", class_="lead")
    return tag(
        "section",
        tag("p", "forecart report", class_="kicker"),
        tag("h1", untrusted(report.get("name") or "untitled run")),
        tag("p", join(_setting(report), " · "), class_="lead"),
        tag("div", *cards, class_="grid two") if cards else empty,
        id="result",
        class_="chapter hero",
    )


def _setting(report: Mapping[str, Any]) -> list[str]:
    data, cuts = mapping(report.get("data")), [when(cut) for cut in sequence(report.get("cuts"))]
    parts = [f"learned from what arrived before {when(report['as_of'])}"] if report.get("as_of") else []
    if cuts:
        between = cuts[0] if len(cuts) == 1 else f"{cuts[0]} to {cuts[-1]}"
        parts.append(f"measured at {len(cuts)} {'cut' if len(cuts) == 1 else 'cuts'}, {between}")
    if report.get("label_window_days") is not None:
        parts.append(f"on the conversions of the following {count(report['label_window_days'])} days")
    for key, noun in (("num_users", "users"), ("num_advertisers", "advertisers"), ("num_items", "products")):
        if number(data.get(key)) is not None:
            parts.append(f"{count(data[key])} {noun}")
    return parts


def _card(level: Mapping[str, Any], title: str) -> Html:
    tables = pool_tables(level)
    first = next(iter(tables.values()), {})
    if not first.get(MODEL):
        words = "The report has no model for this target: only baselines were measured."
        return tag("article", tag("h2", title), tag("p", words), class_="verdict-card")
    compared = {
        (pool, k): compare(table, f"recall_at_{k}", best_baseline(table, f"recall_at_{k}"))
        for pool, table in tables.items()
        for k in HEADLINE_K
    }
    known = {key: comparison for key, comparison in compared.items() if comparison}
    limit = _limit([comparison.difference for comparison in known.values()])
    pools = [
        _pool(pool, table, [known[pool, k] for k in HEADLINE_K if (pool, k) in known], limit)
        for pool, table in tables.items()
    ]
    main = known.get((next(iter(tables)), HEADLINE_K[0]))
    verdict = main.difference.verdict if main and main.difference else None
    return tag(
        "article",
        tag("h2", title),
        _sentence(main, next(iter(tables))),
        *pools,
        _tally(first),
        _encoder(tables),
        _seeds(first),
        class_=f"verdict-card {verdict or ''}".rstrip(),
    )


def _limit(known: list[Difference | None]) -> float:
    reach = [max(abs(one.ci_low), abs(one.ci_high)) for one in known if one]
    return 1.1 * max([1e-9, *reach])


def _sentence(main: Comparison | None, pool: str) -> Html | None:
    if main is None:
        return None
    figures = [f"{metric_label(main.metric)}, pool {pool}: model {share(main.model_value)}, "]
    figures.append(f"{main.baseline} {share(main.baseline_value)}")
    if main.difference is None:
        claim: Html | str = "The report has no interval for this difference"
    else:
        verdict = main.difference.verdict
        mark = tag("span", SIGNS[verdict], class_=f"ink {verdict}", aria_hidden="true")
        claim = join([mark, " The model ", tag("span", _VERBS[verdict], class_=f"ink {verdict}")])
        figures.append(f"; difference {interval_text(main.difference)}")
    return join([tag("p", claim, class_="claim"), tag("p", "".join(figures), class_="note")])


def _pool(pool: str, table: Mapping[str, Any], cells: list[Comparison], limit: float) -> Html:
    sizes = [
        f"{count(table[key])} {noun}"
        for key, noun in (("num_users", "users"), ("num_relevant", "positives"))
        if number(table.get(key)) is not None
    ]
    head = tag("h3", POOL_NAMES[pool], tag("small", ", ".join(sizes)) if sizes else None)
    return tag(
        "div", head, tag("div", *(_cell(cell, limit) for cell in cells), class_="cells"), class_="pool"
    )


def _cell(cell: Comparison, limit: float) -> Html:
    name, difference = untrusted(cell.baseline, limit=60), cell.difference
    value = tag("p", tag("b", share(cell.model_value)), tag("small", metric_label(cell.metric)), class_="big")
    against = tag("p", "best baseline ", tag("b", share(cell.baseline_value)), " ", name, class_="note")
    if difference is None:
        return tag("div", value, against, tag("p", "no interval in the report", class_="note"), class_="cell")
    tip = describe(cell.baseline, difference)
    return tag(
        "div",
        value,
        against,
        strip(difference, limit=limit, label=tip),
        tag("p", badge(difference.verdict), f" {interval_text(difference)}", class_="outcome"),
        _doubt(difference),
        class_=f"cell {difference.verdict}",
        data_tip=tip,
    )


def _doubt(difference: Difference) -> Html | None:
    """Returns what a level result leaves open."""
    if difference.verdict is not Verdict.LEVEL:
        return None
    if difference.minimum_detectable is None:
        return tag("p", "the interval includes 0")
    smallest = share(difference.minimum_detectable)
    return tag("p", f"the interval includes 0; smallest detectable difference {smallest}")


def _tally(table: Mapping[str, Any]) -> Html | None:
    metric = f"recall_at_{HEADLINE_K[0]}"
    known = [(name, one) for name, one in differences(table, metric) if is_baseline(name)]
    if not known:
        return None
    by_verdict = Counter(difference.verdict for _, difference in known)
    words = {Verdict.AHEAD: "ahead of", Verdict.LEVEL: "level with", Verdict.BEHIND: "behind"}
    told = ", ".join(f"{words[verdict]} {by_verdict[verdict]}" for verdict in Verdict)
    signs = [
        tag("span", SIGNS[one.verdict], class_=f"ink {one.verdict}", data_tip=describe(name, one))
        for name, one in reversed(known)
    ]
    row = tag("span", join(signs, " "), class_="signs", aria_hidden="true")
    noun = "baseline" if len(known) == 1 else "baselines"
    return tag("p", row, f" {metric_label(metric)} against {len(known)} {noun}: {told}.", class_="tally")


def _encoder(tables: Mapping[str, Mapping[str, Any]]) -> Html | None:
    """Returns what the sequence encoder adds by itself, in the pools of record."""
    metric = f"recall_at_{HEADLINE_K[0]}"
    told: list[Html] = []
    for pool in POOLS[:2]:
        for name, one in differences(tables.get(pool, {}), metric):
            if is_ablation(name):
                told.append(join([badge(one.verdict), f" {pool} {interval_text(one)}"]))
    if not told:
        return None
    words = f"The sequence encoder's own gain, {metric_label(metric)}, against the system without it: "
    return tag("p", words, join(told, "; "), class_="tally")


def _seeds(table: Mapping[str, Any]) -> Html | None:
    """Returns the seed-to-seed spread of the headline's measures."""
    seeds = mapping(table.get("seeds"))
    told, size = [], 0
    for metric in (f"recall_at_{k}" for k in HEADLINE_K):
        mean = number(mapping(mapping(seeds.get("mean")).get(MODEL)).get(metric))
        deviation = number(mapping(mapping(seeds.get("standard_deviation")).get(MODEL)).get(metric))
        values = sequence(mapping(mapping(seeds.get("values")).get(MODEL)).get(metric))
        if mean is not None and deviation is not None and value_of(table, MODEL, metric) is not None:
            told.append(f"{metric_label(metric)} {share(mean)}, standard deviation {share(deviation)}")
            size = len(values)
    if not told:
        return None
    return tag(
        "p",
        f"Mean over {size} seeds: " if size else "Mean over seeds: ",
        "; ".join(told),
        ".",
        class_="tally",
    )
