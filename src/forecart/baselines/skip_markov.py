"""What follows what, some places apart: transitions that skip, decayed by distance and by recency."""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp  # type: ignore[import-untyped, unused-ignore]

from forecart.baselines.conversions import Conversions
from forecart.baselines.linear import LinearBaseline
from forecart.sequences.pair_log import run_starts
from forecart.sequences.successors import count_successors


class SkipMarkov(LinearBaseline):
    """score = sum over the user's latest rows r = 1 .. 20 of .8^(r - 1) T(i_r, j) + 1e-6 pop(j).

    T(i, j) = W(i, j) / (W(i, .)^.7 W(., j)^.3); W(i, j) = sum of .8^(d - 1) over pairs of rows of one user in
    which j stands d = 1 .. 10 rows after i. Rows are in order of time, those of one time in order of arrival.
    On academic sequences this is the floor that a neural model must beat; it is fitted in seconds.

    Args:
        decay: of a place, in distance and in recency.
        num_places: how far apart a pair may stand.
        num_latest: rows of a user that are asked.
        row_power: of W(i, .); the rest to 1 is the power of W(., j).
    """

    name = "skip_markov"
    popularity_weight = 1e-6

    def __init__(
        self, decay: float = 0.8, num_places: int = 10, num_latest: int = 20, row_power: float = 0.7
    ) -> None:
        self.decay = decay
        self.num_places = num_places
        self.num_latest = num_latest
        self.row_power = row_power

    def queries(self, conversions: Conversions) -> Any:
        """Returns the decayed latest rows of each user."""
        ordered = _in_order(conversions)
        is_start = run_starts(ordered.user)
        start = np.flatnonzero(is_start)
        length = np.diff(start, append=len(ordered.user))
        row = np.arange(len(ordered.user))
        places_back = np.repeat(start + length, length) - 1 - row
        latest = np.flatnonzero(places_back < self.num_latest)
        return ordered.at(latest).pair_sums((self.decay ** places_back[latest]).astype(np.float64))

    def weights(self, conversions: Conversions) -> Any:
        """Returns T."""
        ordered = _in_order(conversions)
        weight_NN = count_successors(
            ordered.user,
            ordered.candidate,
            num_candidates=ordered.shape[1],
            num_places=self.num_places,
            decay=self.decay,
        )
        return (
            sp.diags(_inverse_power(weight_NN.sum(axis=1), self.row_power))
            @ weight_NN
            @ sp.diags(_inverse_power(weight_NN.sum(axis=0), 1 - self.row_power))
        ).tocsr()


def _in_order(conversions: Conversions) -> Conversions:
    return conversions.at(np.lexsort((conversions.occurred_us, conversions.user)))


def _inverse_power(total: Any, power: float) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = np.asarray(total, np.float64).ravel()
    return np.where(values > 0, np.maximum(values, 1e-12) ** -power, 0.0)
