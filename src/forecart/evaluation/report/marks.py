"""What charts are made of: the picture itself, axes, and the three signs of a verdict.

Charts are drawn at their natural size in pixels and colours come from the page's style by class name, so one
picture serves light, dark and paper. A shape always says the same as its colour.
"""

from collections.abc import Sequence

from forecart.evaluation.report.markup import Html, tag
from forecart.evaluation.report.scales import Scale, tick_labels
from forecart.evaluation.report.verdicts import Difference, Verdict


def picture(width: float, height: float, label: str, *marks: Html | None) -> Html:
    """Returns an SVG picture that says `label` to whoever does not see it."""
    return tag(
        "svg",
        *marks,
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_label=label,
    )


def text(place: tuple[float, float], content: str, class_: str = "", **attributes: str | float) -> Html:
    """Returns text at (x, y); `text_anchor` places it."""
    return tag("text", content, x=place[0], y=place[1], class_=class_ or None, **attributes)


def line(start: tuple[float, float], end: tuple[float, float], class_: str) -> Html:
    """Returns a straight line."""
    return tag("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=class_)


def path(places: Sequence[tuple[float, float]], class_: str, *, is_closed: bool = False) -> Html:
    """Returns a line through places, or the area inside it."""
    course = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in places) + ("Z" if is_closed else "")
    return tag("path", d=course, class_=class_)


def below(scale: Scale, ticks: Sequence[float], *, top: float, bottom: float) -> Html:
    """Returns a horizontal axis under a chart: faint lines through it and marks below."""
    marks = [line((scale(tick), top), (scale(tick), bottom), "grid") for tick in ticks]
    names = [
        text((scale(tick), bottom + 15), name, "tick", text_anchor="middle")
        for tick, name in zip(ticks, tick_labels(ticks), strict=True)
    ]
    return tag("g", *marks, *names)


def beside(scale: Scale, ticks: Sequence[float], *, left: float, right: float) -> Html:
    """Returns a vertical axis at the left of a chart: faint lines through it and marks beside."""
    marks = [line((left, scale(tick)), (right, scale(tick)), "grid") for tick in ticks]
    names = [
        text((left - 6, scale(tick) + 4), name, "tick", text_anchor="end")
        for tick, name in zip(ticks, tick_labels(ticks), strict=True)
    ]
    return tag("g", *marks, *names)


def sign(verdict: Verdict, place: tuple[float, float], size: float = 5.5) -> Html:
    """Returns the sign of a verdict: a triangle up, a ring, or a triangle down."""
    x, y = place
    if verdict is Verdict.LEVEL:
        return tag("circle", cx=x, cy=y, r=size - 1, class_=f"sign {verdict}")
    tip, foot = (-size, size * 0.8) if verdict is Verdict.AHEAD else (size, -size * 0.8)
    corners = [(x, y + tip), (x + size, y + foot), (x - size, y + foot)]
    return path(corners, f"sign {verdict}", is_closed=True)


def whiskers(scale: Scale, difference: Difference, y: float) -> Html:
    """Returns a difference with its interval on a horizontal scale; an arrow where it leaves the scale."""
    first, last = sorted((scale.start, scale.end))
    low, mean, high = (
        min(max(scale(value), first), last)
        for value in (difference.ci_low, difference.mean, difference.ci_high)
    )
    verdict = difference.verdict
    marks = [line((low, y), (high, y), f"whisker {verdict}")]
    if difference.mean > scale.high:
        marks.append(path([(last - 6, y - 5), (last, y), (last - 6, y + 5)], f"arrow {verdict}"))
        marks.append(line((last - 26, y), (last, y), f"whisker {verdict}"))
        mean = last - 30
    elif difference.mean < scale.low:
        marks.append(path([(first + 6, y - 5), (first, y), (first + 6, y + 5)], f"arrow {verdict}"))
        marks.append(line((first, y), (first + 26, y), f"whisker {verdict}"))
        mean = first + 30
    return tag("g", *marks, sign(verdict, (mean, y)))
