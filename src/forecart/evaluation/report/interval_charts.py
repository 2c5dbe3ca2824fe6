"""Charts of differences with their 95 % intervals: forest plot, one strip, side by side.

Data in, SVG out. The line at 0 is where model and baseline are level; an interval that touches it is level.
"""

from collections.abc import Sequence
from typing import Final

from forecart.evaluation.report.marks import below, beside, line, picture, sign, text, whiskers
from forecart.evaluation.report.markup import Html, clip, tag
from forecart.evaluation.report.numbers import signed
from forecart.evaluation.report.scales import Scale, round_limits, round_ticks
from forecart.evaluation.report.verdicts import Difference

WIDTH: Final = 360
_ROW: Final = 37
# A baseline that is this many times further off than the nearest one is drawn as an arrow at the edge:
# otherwise the comparisons that matter shrink to dots at 0.
_FAR: Final = 10


def interval_text(difference: Difference) -> str:
    """Returns `+.0024 [+.0008, +.0041]`; the bounds stay on one line."""
    bounds = f"[{signed(difference.ci_low)},\N{NO-BREAK SPACE}{signed(difference.ci_high)}]"
    return f"{signed(difference.mean)} {bounds}"


def describe(name: str, difference: Difference) -> str:
    """Returns a difference as a sentence for a tooltip."""
    return f"model minus {name}: {interval_text(difference)}, {difference.verdict}"


def forest(rows: Sequence[tuple[str, Difference]], *, label: str) -> Html:
    """Returns a forest plot: a row per baseline, in the order given, all on one scale around 0."""
    low, high = _near_limits([difference for _, difference in rows])
    scale = Scale(low, high, 14, WIDTH - 14)
    bottom = 6 + _ROW * len(rows)
    marks = [below(scale, round_ticks(low, high, about=4), top=6, bottom=bottom)]
    for at, (name, difference) in enumerate(rows):
        top = 6 + at * _ROW
        row = [
            tag("rect", x=0, y=top, width=WIDTH, height=_ROW, class_="hover"),
            text((0, top + 14), clip(name, 30), "name"),
            text((WIDTH, top + 14), interval_text(difference), "value", text_anchor="end"),
            tag("rect", x=0, y=top + 18, width=WIDTH, height=16, rx=3, class_="lane"),
            line((scale(0), top + 18), (scale(0), top + 34), "zero"),
            whiskers(scale, difference, top + 26),
        ]
        marks.append(tag("g", *row, data_tip=describe(name, difference), class_="row"))
    return picture(WIDTH, bottom + 22, label, *marks)


def strip(difference: Difference, *, limit: float, label: str) -> Html:
    """Returns one difference on a scale from -limit to limit, without numbers."""
    width, height = 180, 20
    scale = Scale(-limit, limit, 6, width - 6)
    return picture(
        width,
        height,
        label,
        line((6, height / 2), (width - 6, height / 2), "grid"),
        line((scale(0), 1), (scale(0), height - 1), "zero"),
        whiskers(scale, difference, height / 2),
    )


def across(entries: Sequence[tuple[str, Difference]], *, pooled: Difference | None, label: str) -> Html:
    """Returns differences beside each other, in the order given; the pooled interval, if any, as a band."""
    height, left, right, top, bottom = 210, 48, WIDTH - 10, 12, 180
    known = [difference for _, difference in entries] + ([pooled] if pooled else [])
    low, high = round_limits(
        min(0.0, *(difference.ci_low for difference in known)),
        max(0.0, *(difference.ci_high for difference in known)),
        about=4,
    )
    scale = Scale(low, high, bottom, top)
    marks = [beside(scale, round_ticks(low, high, about=4), left=left, right=right)]
    if pooled:
        place, size = scale(pooled.ci_high), scale(pooled.ci_low) - scale(pooled.ci_high)
        marks.append(tag("rect", x=left, y=place, width=right - left, height=size, class_="band"))
    marks.append(line((left, scale(0)), (right, scale(0)), "zero"))
    step = (right - left) / len(entries)
    every = -(-int(6.5 * max(len(clip(name, 10)) for name, _ in entries)) // int(step))
    for at, (name, difference) in enumerate(entries):
        x = left + step * (at + 0.5)
        bar = line(
            (x, scale(difference.ci_low)), (x, scale(difference.ci_high)), f"whisker {difference.verdict}"
        )
        zone = tag("rect", x=x - step / 2, y=top, width=step, height=bottom - top, class_="hover")
        tip = f"{name}: {interval_text(difference)}, {difference.verdict}"
        marks.append(tag("g", zone, bar, sign(difference.verdict, (x, scale(difference.mean))), data_tip=tip))
        if at % every == 0:
            marks.append(text((x, bottom + 18), clip(name, 10), "tick", text_anchor="middle"))
    return picture(WIDTH, height, label, *marks)


def _near_limits(known: Sequence[Difference]) -> tuple[float, float]:
    """Returns the limits that hold 0 and every interval that is not far off beside the nearest."""
    reach = [max(abs(difference.ci_low), abs(difference.ci_high)) for difference in known]
    limit = _FAR * max(min(reach, default=0.0), max(reach, default=0.0) / 100)
    near = [difference for difference, far in zip(known, reach, strict=True) if far <= limit]
    low = min([0.0, *(difference.ci_low for difference in near)])
    high = max([0.0, *(difference.ci_high for difference in near)])
    margin = (high - low) / 12 or 0.001
    return low - margin, high + margin
