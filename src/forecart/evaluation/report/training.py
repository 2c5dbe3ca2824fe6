"""How the models were trained: the loss and the validation measures along the way."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from forecart.evaluation.report.headline import LEVELS
from forecart.evaluation.report.line_charts import Series, curves
from forecart.evaluation.report.markup import Html
from forecart.evaluation.report.numbers import count, mapping, metric_label, number, plain, sequence, share
from forecart.evaluation.report.parts import block, card, chapter, figures, grid, table, tiles
from forecart.evaluation.report.scales import round_limits, round_ticks

_LAST: Final = (
    ("epoch", "epochs", count),
    ("elapsed_s", "seconds", plain),
    ("rows_per_s", "rows a second at the end", plain),
)
_SHOWN_METRICS: Final = 5


def training(report: Mapping[str, Any]) -> Html | None:
    """Returns the chapter of training curves, or None without any."""
    trained = mapping(report.get("training"))
    blocks = [_model(mapping(trained.get(key)), title) for key, title in LEVELS.items() if trained.get(key)]
    return chapter("training", "Training", None, *blocks) if blocks else None


def _model(one: Mapping[str, Any], title: str) -> Html:
    curve = [mapping(entry) for entry in sequence(one.get("curve"))]
    facts = []
    if number(one.get("num_parameters")) is not None:
        facts.append(("parameters", count(one["num_parameters"])))
    seeds = [plain(seed) for seed in sequence(one.get("seeds")) if number(seed) is not None]
    if seeds:
        facts.append(("seeds", ", ".join(seeds)))
    last = curve[-1] if curve else {}
    facts += [(name, write(last[key])) for key, name, write in _LAST if number(last.get(key)) is not None]
    metrics = list(dict.fromkeys(metric for entry in curve for metric in mapping(entry.get("validation"))))
    charts = [_chart(_course(curve, "loss"), "loss", plain)]
    charts += [_chart(_course(curve, metric), metric, share) for metric in metrics[:_SHOWN_METRICS]]
    cards = [one for one in charts if one is not None]
    shown = figures(_table(curve, metrics)) if curve else None
    return block(title, None, tiles(facts) if facts else None, grid(cards) if cards else None, shown)


def _course(curve: Sequence[Mapping[str, Any]], metric: str) -> list[tuple[float, float]]:
    """Returns (step, value) of the loss or of a validation measure, where both are known."""
    found = []
    for at, entry in enumerate(curve, start=1):
        step, values = (
            number(entry.get("step")),
            entry if metric == "loss" else mapping(entry.get("validation")),
        )
        value = number(values.get(metric))
        if value is not None:
            found.append((float(at) if step is None else step, value))
    return found


def _chart(course: list[tuple[float, float]], metric: str, write: Callable[[object], str]) -> Html | None:
    if not course:
        return None
    label = metric_label(metric)
    tips = [f"step {count(step)}: {label} {write(value)}" for step, value in course]
    series = Series(metric, "model", course, tips)
    ticks = _spanning_ticks(course[0][0], course[-1][0])
    chart = curves([series], label=f"{label} by step", ticks=ticks, is_log=False, from_zero=False)
    return card(label, "training, by step" if metric == "loss" else "validation, by step", chart)


def _spanning_ticks(first: float, last: float) -> list[float]:
    low, high = round_limits(first, last, about=4) if last > first else (first, last)
    return round_ticks(low, high, about=4)


def _table(curve: Sequence[Mapping[str, Any]], metrics: list[str]) -> Html:
    rows = [
        [
            count(entry.get("epoch")),
            count(entry.get("step")),
            plain(entry.get("loss")),
            *(share(mapping(entry.get("validation")).get(metric)) for metric in metrics),
            plain(entry.get("elapsed_s")),
            plain(entry.get("rows_per_s")),
        ]
        for entry in curve
    ]
    headers = ["Epoch", "Step", "Loss", *map(metric_label, metrics), "Seconds", "Rows a second"]
    return table(headers, rows, caption="Training, epoch by epoch")
