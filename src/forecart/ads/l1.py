"""The first ranker behind candidate generation: what an impression is worth, on one scale for all sources.

`L1Ranker` is the place to put a ranker of your own: arrays in, values out, called once for each list of a
request. The default turns a candidate's score into a probability of conversion, by a curve that was fitted on
validation for each source, and multiplies it with the bid (docs/adr/0014).
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from forecart.ads.expansion import CandidateAds
from forecart.ads.request import AdRequest
from forecart.ads.snapshot import Snapshot
from forecart.metrics.calibration import Calibration

FloatArray = npt.NDArray[np.float64]


class L1Ranker(Protocol):
    """Says what showing each ad is worth, in dollars: bids are made at it (`serving/openrtb.py`)."""

    def value(self, request: AdRequest, snapshot: Snapshot, ads: CandidateAds) -> FloatArray:
        """Returns the worth of each ad, [n], larger is better; of ads of other sources on the same scale."""
        ...


class CalibratedBid:
    """Probability of conversion times bid, in dollars; the default `L1Ranker`.

    Without a calibration of a source its scores go through the logistic function, whose order is right and
    whose size is not: `is_calibrated` says which sources have one. An answer with ads of others says
    `uncalibrated`, and nothing is bid on it.

    Args:
        calibrations: by source.
    """

    def __init__(self, calibrations: Mapping[str, Calibration] | None = None) -> None:
        self._calibrations = dict(calibrations or {})

    def value(self, request: AdRequest, snapshot: Snapshot, ads: CandidateAds) -> FloatArray:
        """Returns dollars an impression, [n]."""
        value: FloatArray = self.probability(ads) * snapshot.bid_usd_A[ads.place]
        return value

    def probability(self, ads: CandidateAds) -> FloatArray:
        """Returns the probability of a conversion, [n]."""
        score, calibration = ads.score.astype(np.float64), self._calibrations.get(ads.source)
        if calibration is None:
            return np.asarray((1 + np.tanh(score / 2)) / 2)  # the logistic function, without overflow
        return calibration.apply(score)

    def is_calibrated(self, source: str) -> bool:
        """Says whether the probabilities of a source are more than an order."""
        return source in self._calibrations
