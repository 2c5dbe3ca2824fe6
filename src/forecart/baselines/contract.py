"""What every baseline can do, and the adaptor that fits one at each cut that is asked for."""

from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from forecart.baselines.conversions import ConversionLog
from forecart.sequences.histories import Histories


class Baseline(Protocol):
    """A recommender that is fitted on the conversions before a cut; tests/contracts runs against every one.

    It reads no row that arrived at the cut or later, and of other users' rows none that arrived at
    `learn_until_us` or later. It gives the same scores each time, and gives a user without conversions the
    popular candidates. The size of the score has no meaning, only its order.
    """

    @property
    def name(self) -> str:
        """The name in tables and files; holds `ease` where EASE is in the score."""

    def fit(self, log: ConversionLog) -> Self:
        """Learns from the rows of the log that arrived before its cut and returns itself."""

    def score(self, user_index: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Returns the score of every candidate for each user, [B, N], finite, higher is better."""


@dataclass
class BaselineScorer:
    """A baseline as a scorer of the evaluation: fitted anew at each cut.

    Attributes:
        baseline: fitted and scored; the scorer has its name.
        histories: read up to each cut.
        level: `advertiser` or `item`.
        num_candidates: N.
        conversion_codes: the event types that count as conversions.
        learn_until_us: as in `ConversionLog`.
    """

    baseline: Baseline
    histories: Histories
    level: str
    num_candidates: int
    conversion_codes: frozenset[int]
    learn_until_us: int | None = None
    _fitted_cut_us: int | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        """The baseline's name."""
        return self.baseline.name

    def score_at(self, cut_us: int, user_index: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Returns the scores at a cut, [B, N]; calls with the same cut in a row share one fit."""
        if self._fitted_cut_us != cut_us:
            self.baseline.fit(
                ConversionLog(
                    self.histories,
                    cut_us,
                    self.level,
                    self.num_candidates,
                    self.conversion_codes,
                    self.learn_until_us,
                )
            )
            self._fitted_cut_us = cut_us
        return self.baseline.score(user_index)
