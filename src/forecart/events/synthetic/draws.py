"""Random numbers that are a function of (seed, user, stream, position), and exact draws from tables.

Takes counters, gives uniforms. A draw depends on nothing drawn before it, so that users can be generated in
chunks of any size, in any order, and always come out the same. The mixing is the finaliser of SplitMix64
(Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)
_UNIT: Final = 2.0**-53

Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def _mix(state: Keys) -> Keys:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))


def stream_keys(seed: int, user: Indices, stream: int) -> Keys:
    """One key per user for one stream of draws: unrelated between users, streams and seeds."""
    start = _mix(np.array([seed, stream + 1], dtype=np.uint64) * _GOLDEN)
    return _mix(_mix(user.astype(np.uint64) * _GOLDEN + start[0]) + start[1])


def uniforms(keys: Keys, position: Keys) -> Floats:
    """Uniform numbers in [0, 1) of the shape that `keys` and `position` (not a scalar) broadcast to."""
    bits = _mix(keys + (position + np.uint64(1)) * _GOLDEN)
    return (bits >> np.uint64(11)).astype(np.float64) * _UNIT


@dataclass(frozen=True)
class AliasTable:
    """Draws from one of many discrete distributions in constant time (Walker 1977, Vose 1991)."""

    accept: Floats
    """[R, C] the probability that column c of row r stays c."""
    alias: Indices
    """[R, C] what column c of row r becomes otherwise."""

    def draw(self, row: Indices, uniform: Floats) -> Indices:
        """One column index per (row, uniform)."""
        width = self.accept.shape[1]
        scaled = uniform * width
        column = scaled.astype(np.int64)
        cell = row * width + column
        drawn: Indices = np.where(
            scaled - column < self.accept.ravel()[cell], column, self.alias.ravel()[cell]
        )
        return drawn


def build_alias_table(probability: Floats) -> AliasTable:
    """The alias table of the rows of `probability` [R, C], each of which sums to one."""
    accept = np.ones_like(probability)
    alias = np.tile(np.arange(probability.shape[1], dtype=np.int64), (len(probability), 1))
    for row, weights in enumerate(probability):
        _fill_alias_row((weights / weights.sum()) * len(weights), accept[row], alias[row])
    return AliasTable(accept=accept, alias=alias)


def _fill_alias_row(scaled: Floats, accept: Floats, alias: Indices) -> None:
    left = scaled.tolist()
    small = [column for column, share in enumerate(left) if share < 1.0]
    large = [column for column, share in enumerate(left) if share >= 1.0]
    while small and large:
        low, high = small.pop(), large[-1]
        accept[low], alias[low] = left[low], high
        left[high] -= 1.0 - left[low]
        if left[high] < 1.0:
            small.append(large.pop())
    # What rounding leaves over in `small` owns its column, unless it can never be drawn.
    heaviest = int(np.argmax(scaled))
    for column in small:
        accept[column], alias[column] = (0.0, heaviest) if scaled[column] == 0.0 else (1.0, column)
