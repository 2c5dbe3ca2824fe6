"""How a figure is written: the same number of decimals and the same signs everywhere on the page.

A missing figure (None, NaN, not a number) is a dash, never a zero.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

MISSING: Final = "–"
_MINUS: Final = "\N{MINUS SIGN}"
_MIDNIGHT: Final = re.compile(r"^(\d{4}-\d\d-\d\d)(?:[T ]00:00(?::00(?:\.0+)?)?(?:Z|\+00:00)?)?$")
_MOMENT: Final = re.compile(r"^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)")


def number(value: object) -> float | None:
    """Returns the value as a finite float, or None if it is not one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def mapping(value: object) -> Mapping[str, Any]:
    """Returns the value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: object) -> Sequence[Any]:
    """Returns the value if it is a list, else an empty one."""
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()


def share(value: object) -> str:
    """Returns a share or a measure between 0 and 1 with four decimals, `.3667`; six where it is tiny."""
    figure = number(value)
    if figure is None:
        return MISSING
    return _decimals(figure, places=6 if 0 < abs(figure) < 0.0005 else 4)


def signed(value: object) -> str:
    """Returns a difference with its sign, `+.0024`; the sign stays where the decimals round to 0."""
    figure = number(value)
    if figure is None:
        return MISSING
    mark = "+" if figure > 0 else _MINUS if figure < 0 else ""
    return mark + _decimals(abs(figure), places=4)


def count(value: object) -> str:
    """Returns a whole number with its thousands apart: `67,851`."""
    figure = number(value)
    if figure is None:
        return MISSING
    return f"{figure:,.0f}" if figure == int(figure) else plain(figure)


def plain(value: object) -> str:
    """Returns a figure of any size with four significant digits: `4.912`, `12,300`."""
    figure = number(value)
    if figure is None:
        return MISSING
    text = f"{figure:,.0f}" if abs(figure) >= 1000 else f"{figure:.4g}"
    return text.replace("-", _MINUS, 1) if text.startswith("-") else text


def percent(part: object, whole: object) -> str:
    """Returns part of whole in percent: `3.1 %`, `< .1 %`; a dash where the whole is 0 or missing."""
    numerator, denominator = number(part), number(whole)
    if numerator is None or not denominator:
        return MISSING
    value = 100 * numerator / denominator
    if 0 < value < 0.1:
        return "< .1 %"
    return f"{value:.1f} %"


def when(value: object) -> str:
    """Returns a moment as `2017-12-01`, or `2017-12-01 14:05` where it is not midnight UTC."""
    text = value if isinstance(value, str) else MISSING
    if match := _MIDNIGHT.match(text):
        return match[1]
    if match := _MOMENT.match(text):
        return f"{match[1]} {match[2]}"
    return text


def metric_label(metric: str) -> str:
    """Returns a metric's name as the page writes it: `recall_at_10` is `Recall@10`."""
    name, _, depth = metric.partition("_at_")
    words = {"ndcg": "NDCG", "mrr": "MRR", "p90_coverage": "P90 coverage", "loss": "Loss"}
    label = words.get(name, name.replace("_", " ").capitalize())
    return f"{label}@{depth}" if depth else label


def _decimals(figure: float, *, places: int) -> str:
    text = f"{abs(figure):.{places}f}"
    text = text[1:] if text.startswith("0.") else text
    return (_MINUS if figure < 0 else "") + text
