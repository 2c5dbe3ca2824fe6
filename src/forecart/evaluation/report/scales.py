"""From values to places on a chart, and the round values that an axis is marked at."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Scale:
    """A map from [low, high] to [start, end], linear or logarithmic.

    Attributes:
        low: the value at `start`.
        high: the value at `end`; equal to `low` puts every value in the middle.
        start: pixels.
        end: pixels; may be less than `start`.
        is_log: both values are positive.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Returns the place of a value, also of one outside the range."""
        low, high = self._stretch(self.low), self._stretch(self.high)
        if high == low:
            return (self.start + self.end) / 2
        return self.start + (self._stretch(value) - low) / (high - low) * (self.end - self.start)

    def _stretch(self, value: float) -> float:
        return math.log10(value) if self.is_log else value


def round_ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Returns round values inside [low, high], `about` as many as asked for; one where both are equal."""
    if not high > low:
        return [low]
    step = _round_step((high - low) / about)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(at * step, 12) for at in range(first, last + 1)]


def round_limits(low: float, high: float, *, about: int = 5) -> tuple[float, float]:
    """Returns the range widened to round values, so that an axis begins and ends at a mark."""
    if not high > low:
        return (low - 0.5, high + 0.5) if low == 0 else (low - abs(low) / 10, high + abs(high) / 10)
    step = _round_step((high - low) / about)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Returns the marks as text with as many decimals as tell them apart, without a leading zero."""
    gap = min((b - a for a, b in pairwise(ticks)), default=abs(ticks[0]) if ticks else 1.0)
    places = max(0, -math.floor(math.log10(gap) + 1e-9)) if gap > 0 else 0
    return [_tick_label(tick, places) for tick in ticks]


def _tick_label(tick: float, places: int) -> str:
    if abs(tick) >= 10_000 and places == 0:
        for unit, size in (("M", 1e6), ("k", 1e3)):
            if abs(tick) >= size:
                return f"{tick / size:g}{unit}"
    text = f"{abs(tick):,.{places}f}"
    text = text[1:] if text.startswith("0.") else text
    return ("\N{MINUS SIGN}" if tick < 0 else "") + text


def _round_step(rough: float) -> float:
    magnitude = 10.0 ** math.floor(math.log10(rough))
    return next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * (1 - 1e-9))
