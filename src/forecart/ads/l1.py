"""The first ranker behind candidate generation: what an impression is worth, on one scale for all sources.

`L1Ranker` is the place to put a ranker of your own: arrays in, values out, called once a request. The
default turns a candidate's score into a probability of conversion, by a table that was fitted on validation
for each source, and multiplies it with the bid.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from forecart import artifacts
from forecart.ads.expansion import CandidateAds
from forecart.ads.request import AdRequest
from forecart.ads.snapshot import Snapshot
from forecart.errors import ArtifactError, DataError

FloatArray = npt.NDArray[np.float64]
_MAX_KNOTS: Final = 200


class L1Ranker(Protocol):
    """Says what showing each ad is worth."""

    def value(self, request: AdRequest, snapshot: Snapshot, ads: CandidateAds) -> FloatArray:
        """Returns the worth of each ad, [n], larger is better; of ads of other sources on the same scale."""
        ...


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
        if not (is_curve and is_rising):
            raise DataError(
                "a calibration rises through scores and probabilities from 0 to 1, this one does not"
            )


class CalibratedBid:
    """Probability of conversion times bid, in dollars; the default `L1Ranker`.

    Without a calibration of a source its scores go through the logistic function, whose order is right and
    whose size is not: `is_calibrated` says which sources have one.

    Args:
        calibrations: by source.
    """

    def __init__(self, calibrations: Mapping[str, Calibration] | None = None) -> None:
        self._tables = {
            source: (np.array(one.score), np.array(one.probability))
            for source, one in (calibrations or {}).items()
        }

    def value(self, request: AdRequest, snapshot: Snapshot, ads: CandidateAds) -> FloatArray:
        """Returns dollars an impression, [n]."""
        value: FloatArray = self.probability(ads) * snapshot.bid_usd_A[ads.place]
        return value

    def probability(self, ads: CandidateAds) -> FloatArray:
        """Returns the probability of a conversion, [n]."""
        score = ads.score.astype(np.float64)
        if ads.source not in self._tables:
            return np.asarray((1 + np.tanh(score / 2)) / 2)  # the logistic function, without overflow
        return np.asarray(np.interp(score, *self._tables[ads.source]))

    def is_calibrated(self, source: str) -> bool:
        """Says whether the probabilities of a source are more than an order."""
        return source in self._tables

    @classmethod
    def read(cls, path: Path) -> "CalibratedBid":
        """Reads what `write_calibrations` wrote.

        Raises:
            ArtifactError: it is missing or no table of calibrations.
        """
        return cls(read_calibrations(path))


def read_calibrations(path: Path) -> dict[str, Calibration]:
    """Returns the calibrations by source that `write_calibrations` wrote.

    Raises:
        ArtifactError: the file is missing or no table of calibrations.
    """
    value = artifacts.read_json(path)
    try:
        return {source: Calibration(**_tuples(table)) for source, table in value.items()}
    except (AttributeError, TypeError, DataError) as error:
        raise ArtifactError(f"{path} must hold calibrations, it does not: {error}") from None


def write_calibrations(path: Path, calibrations: Mapping[str, Calibration]) -> None:
    """Writes calibrations by source as JSON."""
    tables = {
        source: {"score": one.score, "probability": one.probability} for source, one in calibrations.items()
    }
    artifacts.write_json(path, tables)


def fit_calibration(score: FloatArray, converted: npt.NDArray[np.bool_]) -> Calibration:
    """Returns the isotonic regression of conversions on scores, in at most 200 knots.

    Args:
        score: [n] of validation candidates.
        converted: [n], whether the user converted with the candidate in the label window.

    Raises:
        DataError: there is nothing to fit.

    Source:
        Zadrozny and Elkan 2002, by scikit-learn.
    """
    # Imported here: scikit-learn is part of the training extra only.
    from sklearn.isotonic import IsotonicRegression  # type: ignore[import-untyped, unused-ignore]

    if len(score) == 0 or len(score) != len(converted):
        raise DataError(f"a calibration is fitted on pairs, {len(score)} and {len(converted)} arrived")
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit(score, converted.astype(np.float64))
    knots, probability = fitted.X_thresholds_, fitted.y_thresholds_
    if len(knots) > _MAX_KNOTS:
        kept = np.unique(np.linspace(0, len(knots) - 1, _MAX_KNOTS).astype(int))
        knots, probability = knots[kept], probability[kept]
    knots, first = np.unique(knots, return_index=True)
    return Calibration(tuple(knots.tolist()), tuple(probability[first].tolist()))


def _tuples(table: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(float(one) for one in values) for name, values in table.items()}
