"""The log-log plot of the growth benchmark: an SVG of its own, the same bytes for the same rows.

Points are what was measured, filled where a law was fitted to them; lines are the laws, over their range.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from xml.sax.saxutils import escape

from forecart.planning.laws import read_law

WIDTH: Final = 780
HEIGHT: Final = 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 220, 20, 50
_COLOURS: Final = ("#0b6e99", "#b3541e", "#3c7a3c", "#7a3c7a", "#8a6d00", "#444444", "#a02050")
_STYLE: Final = "text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}.law{fill:none;stroke-width:1.5}"


@dataclass(frozen=True)
class Series:
    """The points (size, CPU seconds) of one law."""

    name: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class _Frame:
    """Where a size and a time lie, by powers of ten."""

    x: tuple[int, int]
    y: tuple[int, int]

    def place(self, size: float, cpu_s: float) -> tuple[float, float]:
        across = (math.log10(size) - self.x[0]) / (self.x[1] - self.x[0])
        up = (math.log10(cpu_s) - self.y[0]) / (self.y[1] - self.y[0])
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)


def draw(series: list[Series], laws: dict[str, Any], *, least_cpu_s: float) -> str:
    """Returns the picture.

    Args:
        series: the points of each law.
        laws: as they are stored, by the names of the series; a series without one has points alone.
        least_cpu_s: points below it are hollow: no law was fitted to them.
    """
    points = [point for one in series for point in one.points]
    frame = _Frame(_powers(size for size, _ in points), _powers(cpu_s for _, cpu_s in points))
    marks = [*_grid(frame)]
    for number, one in enumerate(series):
        colour = _COLOURS[number % len(_COLOURS)]
        marks += [_dot(frame.place(*point), colour, is_full=point[1] >= least_cpu_s) for point in one.points]
        name = one.name
        if one.name in laws:
            law = read_law(laws, one.name)
            ends = [frame.place(size, law.cpu_s(size)) for size in (law.smallest, law.largest)]
            marks.append(_line(*ends, f'class="law" stroke="{colour}"'))
            name += f": n^{law.power:.2f}"
        y = _TOP + 14 + 20 * number
        marks += [
            _dot((WIDTH - _RIGHT + 16, y - 4), colour, is_full=True),
            _text(WIDTH - _RIGHT + 26, y, name),
        ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    title = "<title>CPU seconds of each stage against what it grows with</title>"
    return "\n".join([head, title, f"<style>{_STYLE}</style>", *marks, "</svg>\n"])


def _powers(values: Iterator[float]) -> tuple[int, int]:
    logs = [math.log10(value) for value in values]
    low = math.floor(min(logs))
    return low, max(low + 1, math.ceil(max(logs)))


def _grid(frame: _Frame) -> Iterator[str]:
    for power in range(frame.x[0], frame.x[1] + 1):
        top, bottom = (frame.place(10.0**power, 10.0**y) for y in reversed(frame.y))
        yield _line(top, bottom, 'class="grid"')
        yield _text(bottom[0], bottom[1] + 18, f"10^{power}", "middle")
    for power in range(frame.y[0], frame.y[1] + 1):
        left, right = (frame.place(10.0**x, 10.0**power) for x in frame.x)
        yield _line(left, right, 'class="grid"')
        yield _text(left[0] - 8, left[1] + 4, f"{10.0**power:g} s", "end")
    yield _text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 10, "events, users or items", "middle")


def _dot(place: tuple[float, float], colour: str, *, is_full: bool) -> str:
    fill = colour if is_full else "none"
    return f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="4" fill="{fill}" stroke="{colour}"/>'


def _line(start: tuple[float, float], end: tuple[float, float], attributes: str) -> str:
    return f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" {attributes}/>'


def _text(x: float, y: float, content: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'
