"""Charts of values: curves, pairs of dots, a scatter with names, columns over time.

Data in, SVG out. The model is always the strong line, the best baseline the second; all others stay grey.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from forecart.evaluation.report.marks import below, beside, line, path, picture, text
from forecart.evaluation.report.markup import Html, clip, join, tag
from forecart.evaluation.report.numbers import count, share
from forecart.evaluation.report.scales import Scale, round_limits, round_ticks

WIDTH: Final = 360
WIDE: Final = 560
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: whose line it is.
        role: `model`, `best`, `ablation` or `other`; a class of the page's style.
        points: (x, y), by x.
        tips: what each point says, one per point.
        band: (x, low, high), the interval around the line; may be empty.
    """

    name: str
    role: str
    points: Sequence[Point]
    tips: Sequence[str]
    band: Sequence[tuple[float, float, float]] = ()


def curves(
    series: Sequence[Series], *, label: str, ticks: Sequence[float], is_log: bool, from_zero: bool
) -> Html:
    """Returns lines over a common x axis with the marks given; the first series is drawn on top."""
    height, left, right, top, bottom = 230, 46, WIDTH - 12, 10, 200
    values = [y for one in series for _, y in one.points]
    low, high = round_limits(0.0 if from_zero else min(values), max(values))
    across = Scale(min(ticks), max(ticks), left + 4, right - 4, is_log=is_log)
    up = Scale(low, high, bottom, top)
    axes = [beside(up, round_ticks(low, high), left=left, right=right)]
    axes.append(below(across, ticks, top=bottom, bottom=bottom))
    return picture(WIDTH, height, label, *axes, *(_curve(one, across, up) for one in reversed(series)))


def _curve(series: Series, across: Scale, up: Scale) -> Html:
    places = [(across(x), up(y)) for x, y in series.points]
    upper = [(across(x), up(high)) for x, _, high in series.band]
    lower = [(across(x), up(low)) for x, low, _ in reversed(series.band)]
    area = path(upper + lower, "band", is_closed=True) if series.band else None
    dots = [
        tag("g", tag("circle", cx=x, cy=y, r=9, class_="hover"), tag("circle", cx=x, cy=y, r=3), data_tip=tip)
        for (x, y), tip in zip(places, series.tips, strict=True)
    ]
    return tag("g", area, path(places, "course"), *dots, class_=f"series {series.role}")


@dataclass(frozen=True)
class Pair:
    """The model and a baseline beside each other in one measure."""

    name: str
    note: str
    model: float
    baseline: float
    tip: str


def dumbbells(pairs: Sequence[Pair], *, label: str) -> Html:
    """Returns a row per pair on a common scale from 0: a disc for the model, a square for the baseline."""
    step = 42
    bottom = 4 + step * len(pairs)
    low, high = round_limits(0.0, max(max(pair.model, pair.baseline) for pair in pairs))
    scale = Scale(low, high, 10, WIDTH - 14)
    marks = [below(scale, round_ticks(low, high), top=4, bottom=bottom)]
    for at, pair in enumerate(pairs):
        y = 4 + step * at
        model, baseline = scale(pair.model), scale(pair.baseline)
        row = [
            tag("rect", x=0, y=y, width=WIDTH, height=step, class_="hover"),
            text((0, y + 15), pair.name, "name"),
            text((WIDTH, y + 15), pair.note, "value", text_anchor="end"),
            line((baseline, y + 29), (model, y + 29), "link"),
            tag("rect", x=baseline - 4.5, y=y + 24.5, width=9, height=9, class_="dot best"),
            tag("circle", cx=model, cy=y + 29, r=5, class_="dot model"),
        ]
        marks.append(tag("g", *row, data_tip=pair.tip, class_="row"))
    return picture(WIDTH, bottom + 22, label, *marks)


@dataclass(frozen=True)
class Spot:
    """A named place of a scatter."""

    name: str
    role: str
    x: float
    y: float


def scatter(spots: Sequence[Spot], *, label: str, x_name: str, y_name: str) -> Html:
    """Returns named places over two measures, x from 0; a name that finds no room is only a tooltip."""
    height, left, right, top, bottom = 450, 46, WIDE - 14, 26, 402
    x_high = round_limits(0.0, max(spot.x for spot in spots))[1]
    low, high = round_limits(min(spot.y for spot in spots), max(spot.y for spot in spots))
    across, up = Scale(0.0, x_high, left, right), Scale(low, high, bottom, top)
    marks = [
        beside(up, round_ticks(low, high), left=left, right=right),
        below(across, round_ticks(0.0, x_high), top=top, bottom=bottom),
        text((left - 40, 12), f"↑ {y_name}", "axis"),
        text((right, height - 12), f"{x_name} →", "axis", text_anchor="end"),
    ]
    places = [(across(spot.x), up(spot.y)) for spot in spots]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    for spot, place in zip(spots, places, strict=True):
        tip = f"{spot.name}: {x_name} {share(spot.x)}, {y_name} {share(spot.y)}"
        dot = tag("circle", cx=place[0], cy=place[1], r=6 if spot.role == "model" else 4.5)
        name = _place_name(spot.name, place, taken, right)
        marks.append(tag("g", dot, name, class_=f"spot {spot.role}", data_tip=tip))
    return picture(WIDE, height, label, *marks)


_Box = tuple[float, float, float, float]


def _place_name(name: str, place: Point, taken: list[_Box], right: float) -> Html | None:
    """Returns the name at the first side of the place that is free, and takes it."""
    shown, (x, y) = clip(name, 26), place
    size = 6.3 * len(shown)
    for left, baseline in (
        (x + 9, y + 4),
        (x - 9 - size, y + 4),
        (x - size / 2, y - 10),
        (x - size / 2, y + 18),
    ):
        box = (left, baseline - 9, left + size, baseline + 2)
        is_inside = left > 48 and left + size < right + 8
        if is_inside and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return text((left, baseline), shown, "name")
    return None


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def columns(bars: Sequence[tuple[str, float]], *, label: str, unit: str) -> Html:
    """Returns a column per entry, left to right, with a name under a few of them."""
    height, left, right, top, bottom = 200, 46, WIDE - 10, 10, 170
    high = round_limits(0.0, max([1.0, *(value for _, value in bars)]), about=4)[1]
    up = Scale(0.0, high, bottom, top)
    step = (right - left) / len(bars)
    every = max(1, -(-len(bars) // 6))
    marks = [beside(up, round_ticks(0.0, high, about=4), left=left, right=right)]
    for at, (name, value) in enumerate(bars):
        x, gap = left + step * at, min(2.0, step / 5)
        bar = tag(
            "rect", x=x + gap / 2, y=up(value), width=step - gap, height=bottom - up(value), class_="column"
        )
        zone = tag("rect", x=x, y=top, width=step, height=bottom - top, class_="hover")
        marks.append(tag("g", zone, bar, data_tip=f"{name}: {count(value)} {unit}"))
        if at % every == 0:
            marks.append(text((x, bottom + 18), clip(name, 10), "tick"))
    return picture(WIDE, height, label, join(marks))
