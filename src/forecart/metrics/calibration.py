"""From scores to probabilities of conversion, and how far such probabilities can be believed.

Takes scores of candidates and whether their users converted; gives a curve that rises (isotonic regression),
and for predicted probabilities a table of what was predicted and what came. One curve a source puts the
scores of different models on one scale.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from forecart.errors import DataError
from forecart.metrics.significance import bootstrap_by_user

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
MAX_KNOTS: Final = 200
PAIRS_A_KNOT: Final = 50
"""Fewer would let a handful of pairs at the highest scores say that everybody converts."""
NUM_BINS: Final = 20


@dataclass(frozen=True)
class Calibration:
    """A rising curve through (score, probability), flat beyond its ends.

    Attributes:
        score: ascending.
        probability: of a conversion at that score, not falling, from 0 to 1.
    """

    score: tuple[float, ...]
    probability: tuple[float, ...]

    def __post_init__(self) -> None:
        score, probability = np.array(self.score), np.array(self.probability)
        is_curve = len(score) == len(probability) > 0 and bool((np.diff(score) > 0).all())
        is_rising = bool((np.diff(probability) >= 0).all()) and bool(
            ((probability >= 0) & (probability <= 1)).all()
        )
        if not (is_curve and is_rising and np.isfinite(score).all()):
            raise DataError(
                "a calibration rises through scores and probabilities from 0 to 1, this one does not"
            )

    def apply(self, score: npt.NDArray[np.floating]) -> FloatArray:
        """Returns the probability at each score, [n]: linear between the points of the curve."""
        return np.asarray(np.interp(score, *self._curve), np.float64)

    @cached_property
    def _curve(self) -> tuple[FloatArray, FloatArray]:
        return np.array(self.score), np.array(self.probability)


def describe_calibrations(calibrations: Mapping[str, Calibration]) -> dict[str, dict[str, list[float]]]:
    """Returns calibrations by source as plain values, which `parse_calibrations` reads."""
    return {
        source: {"score": list(one.score), "probability": list(one.probability)}
        for source, one in calibrations.items()
    }


def parse_calibrations(value: Any) -> dict[str, Calibration]:
    """Returns calibrations by source from plain values.

    Raises:
        DataError: they are no calibrations, or one that does not rise is among them.
    """
    try:
        return {
            source: Calibration(**{name: tuple(map(float, values)) for name, values in table.items()})
            for source, table in value.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(
            f"calibrations are a score and a probability by source, others arrived: {error}"
        ) from None


def fit_calibration(
    score: FloatArray, converted: BoolArray, *, pairs_a_knot: int = PAIRS_A_KNOT
) -> Calibration:
    """Returns the isotonic regression of conversions on scores, in at most `MAX_KNOTS` knots.

    The pairs are first put together by score, from the highest down, `pairs_a_knot` or more to a group and
    equal scores in one; a knot stands at the mean score of a group. Fewer pairs than that make one group.

    Args:
        score: [n], finite.
        converted: [n], whether the user converted with the candidate in the label window.
        pairs_a_knot: pairs of a group at least.

    Raises:
        DataError: there is nothing to fit.

    Source:
        Zadrozny and Elkan, 2002, "Transforming classifier scores into accurate multiclass probability
        estimates"; the regression is scikit-learn's.
    """
    # Imported here: scikit-learn is part of the training extra only.
    from sklearn.isotonic import IsotonicRegression  # type: ignore[import-untyped, unused-ignore]

    if len(score) == 0 or len(score) != len(converted):
        raise DataError(f"a calibration is fitted on pairs, {len(score)} and {len(converted)} arrived")
    group = group_by_rank(score, size=max(pairs_a_knot, -(-len(score) // MAX_KNOTS)))
    size = np.bincount(group)
    mean_score = np.bincount(group, weights=score) / size
    rate = np.bincount(group, weights=converted) / size
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit(mean_score, rate, sample_weight=size)
    # Two groups may have one mean where scores differ by less than a float can tell.
    knots, first = np.unique(mean_score, return_index=True)
    return Calibration(tuple(knots.tolist()), tuple(fitted.predict(mean_score)[first].tolist()))


def group_by_rank(value: FloatArray, *, size: int) -> npt.NDArray[np.intp]:
    """Returns the group of each value, [n], numbered from 0 for the lowest.

    Groups are filled from the highest value down, equal values in one, and closed with `size` or more: only
    the lowest may be smaller.
    """
    distinct, rank, count = np.unique(value, return_inverse=True, return_counts=True)
    num_from_top = np.cumsum(count[::-1])
    last: list[int] = []
    num_taken = 0
    while num_taken < len(value):
        last.append(min(int(np.searchsorted(num_from_top, num_taken + size)), len(distinct) - 1))
        num_taken = int(num_from_top[last[-1]])
    from_top = np.searchsorted(last, len(distinct) - 1 - rank)
    return np.asarray(len(last) - 1 - from_top, np.intp)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Predicted against observed, by bins of the predicted probability, [bins] each, ascending.

    Attributes:
        predicted: mean of a bin.
        observed: share of its pairs that converted.
        ci_low: of the 95 % interval of the observed share, users drawn with all their pairs.
        ci_high: likewise.
        num_pairs: of a bin.
    """

    predicted: FloatArray
    observed: FloatArray
    ci_low: FloatArray
    ci_high: FloatArray
    num_pairs: npt.NDArray[np.int64]

    @property
    def expected_calibration_error(self) -> float:
        """Mean over pairs of |predicted - observed| of their bin, after Naeini and others, 2015."""
        error: float = np.average(np.abs(self.predicted - self.observed), weights=self.num_pairs)
        return error


def measure_reliability(
    probability: FloatArray,
    converted: BoolArray,
    user: npt.NDArray[np.integer],
    *,
    num_samples: int = 500,
    seed: int = 0,
) -> Reliability:
    """Returns what was predicted and what came, in `NUM_BINS` bins of as many pairs or fewer bins.

    Equal predictions are in one bin, so where a curve is flat there are fewer and larger bins.

    Args:
        probability: [n], predicted.
        converted: [n].
        user: [n], whose pair; pairs of one user move together in the intervals.
        num_samples: of the bootstrap.
        seed: of its draws.

    Raises:
        DataError: there is nothing to measure.
    """
    if len(probability) == 0:
        raise DataError("reliability is measured on pairs, none arrived")
    group = group_by_rank(probability, size=-(-len(probability) // NUM_BINS))
    num_pairs = np.bincount(group)
    intervals = [
        bootstrap_by_user(
            converted[is_in, None].astype(np.float64), user[is_in], num_samples=num_samples, seed=seed
        )
        for is_in in (group == one for one in range(len(num_pairs)))
    ]
    return Reliability(
        predicted=np.bincount(group, weights=probability) / num_pairs,
        observed=np.bincount(group, weights=converted) / num_pairs,
        ci_low=np.array([one.ci_low[0] for one in intervals]),
        ci_high=np.array([one.ci_high[0] for one in intervals]),
        num_pairs=num_pairs,
    )
