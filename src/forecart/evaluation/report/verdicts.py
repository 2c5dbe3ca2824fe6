"""Who wins: the model against a baseline, from the interval of the paired difference alone.

Ahead: the whole interval is above 0. Behind: it is below 0. Level: it includes 0. The best baseline of a
table is the one with the highest value of the metric there, chosen with hindsight, so against it the model
has the hardest case. A system whose name holds `no_encoder` is an ablation of the model, and `reranked` its
own lists chosen anew: neither is a baseline.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from forecart.evaluation.report.numbers import mapping, number

MODEL: Final = "model"
ABLATION: Final = "no_encoder"
RERANKED: Final = "reranked"
POOLS: Final = ("all", "novel", "repeat")
Table = Mapping[str, Any]
_RECALL: Final = re.compile(r"^recall_at_(\d+)$")


class Verdict(StrEnum):
    """How the model stands against a baseline."""

    AHEAD = "ahead"
    LEVEL = "level"
    BEHIND = "behind"


@dataclass(frozen=True)
class Difference:
    """Model minus baseline, with its 95 % interval."""

    mean: float
    ci_low: float
    ci_high: float
    minimum_detectable: float | None = None

    @property
    def verdict(self) -> Verdict:
        """What the interval says."""
        if self.ci_low > 0:
            return Verdict.AHEAD
        return Verdict.BEHIND if self.ci_high < 0 else Verdict.LEVEL


@dataclass(frozen=True)
class Comparison:
    """The model beside one baseline in one metric; no difference where the report has none."""

    metric: str
    baseline: str
    model_value: float
    baseline_value: float | None
    difference: Difference | None


def is_ablation(name: str) -> bool:
    """Returns whether a system is the model with its sequence encoder removed."""
    return ABLATION in name


def is_baseline(name: str) -> bool:
    """Returns whether a system is neither the model nor made of it."""
    return name not in (MODEL, RERANKED) and not is_ablation(name)


def role_of(name: str, best: str | None) -> str:
    """Returns what a system is: `model`, `best` (baseline), `ablation` or `other`."""
    if name == MODEL:
        return "model"
    if is_ablation(name):
        return "ablation"
    return "best" if name == best else "other"


def value_of(table: Table, name: str, metric: str) -> float | None:
    """Returns a system's value of a metric, or None."""
    values = table.get(MODEL) if name == MODEL else mapping(table.get("baselines")).get(name)
    return number(mapping(values).get(metric))


def read_difference(table: Table, metric: str, baseline: str) -> Difference | None:
    """Returns model minus that baseline, or None if the table lacks it or one of its bounds."""
    entry = mapping(mapping(mapping(table.get("difference")).get(metric)).get(baseline))
    mean, low, high = (number(entry.get(key)) for key in ("mean", "ci_low", "ci_high"))
    if mean is None or low is None or high is None:
        return None
    return Difference(mean, low, high, number(entry.get("minimum_detectable")))


def best_baseline(table: Table, metric: str) -> str | None:
    """Returns the baseline with the highest value, equals by name; None without any."""
    found = [(name, value_of(table, name, metric)) for name in mapping(table.get("baselines"))]
    ranked = [(-value, name) for name, value in found if value is not None and is_baseline(name)]
    return min(ranked)[1] if ranked else None


def compare(table: Table, metric: str, baseline: str | None) -> Comparison | None:
    """Returns the model beside a baseline; None if either is missing."""
    model_value = value_of(table, MODEL, metric)
    if model_value is None or baseline is None:
        return None
    return Comparison(
        metric,
        baseline,
        model_value,
        value_of(table, baseline, metric),
        read_difference(table, metric, baseline),
    )


def differences(table: Table, metric: str) -> list[tuple[str, Difference]]:
    """Returns every baseline's difference in a metric, the hardest to beat first."""
    names = mapping(mapping(table.get("difference")).get(metric))
    found = [(name, read_difference(table, metric, name)) for name in names]
    return sorted(
        ((name, difference) for name, difference in found if difference is not None),
        key=lambda entry: (entry[1].mean, entry[0]),
    )


def recall_depths(table: Table) -> list[int]:
    """Returns every K that a system of the table has Recall@K at, ascending."""
    systems = [mapping(table.get(MODEL)), *map(mapping, mapping(table.get("baselines")).values())]
    return sorted(
        {int(match[1]) for values in systems for metric in values if (match := _RECALL.match(metric))}
    )


def pool_tables(level: Table) -> dict[str, Table]:
    """Returns the tables by pool, in order, of the pools that have a figure in them."""
    tables = {pool: mapping(level.get(pool)) for pool in POOLS}
    return {pool: table for pool, table in tables.items() if table.get(MODEL) or table.get("baselines")}
