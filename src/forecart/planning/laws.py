"""Cost laws T = a n^b fitted to measured sizes; they travel in the package beside where they were measured.

Takes (size, CPU seconds) points; gives a law that knows the range it was measured in, so that whoever uses it
can say how far beyond it an answer lies. Units: CPU seconds of one core, sizes in rows.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any, Final

import numpy as np

from forecart.errors import ConfigError

LAWS_FILE: Final = "cost_laws.json"


@dataclass(frozen=True)
class Law:
    """T = factor n^power.

    Attributes:
        factor: CPU seconds at n = 1.
        power: the slope of log T against log n.
        smallest: least n that was measured.
        largest: greatest n that was measured.
        num_sizes: how many.
        residual: the largest relative distance of a measurement from the law.
    """

    factor: float
    power: float
    smallest: float
    largest: float
    num_sizes: int
    residual: float

    def cpu_s(self, size: float) -> float:
        """Returns the CPU seconds of a size, beyond the largest never less than in proportion.

        A slope below one is a fixed cost that larger sizes share, and of that there is no more to save.
        """
        if size <= 0:
            return 0.0
        within = min(size, self.largest)
        return self.factor * math.pow(within, self.power) * math.pow(size / within, max(self.power, 1.0))

    def beyond(self, size: float) -> float:
        """Returns how many times the size exceeds what was measured; 1 within the range and below it."""
        return max(1.0, size / self.largest)

    def to_facts(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


def fit_law(points: Sequence[tuple[float, float]]) -> Law:
    """Returns the least squares line through the logarithms of the points.

    Args:
        points: (size, CPU seconds), both above zero.

    Raises:
        ValueError: fewer than two sizes.
    """
    size, cpu_s = np.array(points, float).T
    if len(np.unique(size)) < 2:
        raise ValueError(
            f"a law needs at least two sizes, {len(np.unique(size))} arrived: measure another one"
        )
    power, constant = np.polyfit(np.log(size), np.log(cpu_s), 1)
    residual = np.abs(cpu_s / np.exp(constant + power * np.log(size)) - 1).max()
    return Law(
        math.exp(constant),
        float(power),
        float(size.min()),
        float(size.max()),
        len(np.unique(size)),
        float(residual),
    )


@dataclass(frozen=True)
class Line:
    """M = base + slope n, peak memory in GB.

    Attributes:
        base_gb: of a process that has nothing to do.
        bytes_each: the slope.
        largest: greatest n that was measured.
    """

    base_gb: float
    bytes_each: float
    largest: float

    def gb(self, size: float) -> float:
        """Returns the memory of a size."""
        return self.base_gb + self.bytes_each * size / 1e9

    def to_facts(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


def fit_line(points: Sequence[tuple[float, float]]) -> Line:
    """Returns the line through the two largest of (size, GB); memory never falls with the size.

    What a stage holds of one block grows until there is more than one, so small sizes say too much.
    """
    (size, low_gb), (largest, high_gb) = sorted(points)[-2:]
    slope = max(0.0, (high_gb - low_gb) / (largest - size))
    return Line(max(0.0, high_gb - slope * largest), slope * 1e9, largest)


def load_laws() -> dict[str, Any]:
    """Returns the file of the package: `laws` by name, `sizes` that were measured, and where."""
    text = resources.files("forecart.planning").joinpath(LAWS_FILE).read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def read_law(laws: dict[str, Any], name: str) -> Law:
    """Returns a law by name.

    Raises:
        ConfigError: there is none of that name.
    """
    return Law(**_find(laws, name))


def read_line(lines: dict[str, Any], name: str) -> Line:
    """Returns a line of memory by name; raises as `read_law`."""
    return Line(**_find(lines, name))


def _find(found: dict[str, Any], name: str) -> Any:
    if name not in found:
        raise ConfigError(f"a cost law is one of {', '.join(sorted(found))}, {name!r} arrived")
    return found[name]
