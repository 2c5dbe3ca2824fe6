"""What follows what, some places apart: transitions that skip, decayed by distance and by recency."""

from typing import Any

import numpy as np

from forecart.baselines.conversions import Conversions
from forecart.baselines.linear import LinearBaseline
from forecart.sequences.successors import (
    DECAY,
    NUM_LATEST,
    NUM_PLACES,
    ROW_POWER,
    count_successors,
    read_latest,
    transition_weights,
)


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
        self,
        decay: float = DECAY,
        num_places: int = NUM_PLACES,
        num_latest: int = NUM_LATEST,
        row_power: float = ROW_POWER,
    ) -> None:
        self.decay = decay
        self.num_places = num_places
        self.num_latest = num_latest
        self.row_power = row_power

    def queries(self, conversions: Conversions) -> Any:
        """Returns the decayed latest rows of each user."""
        ordered = _in_order(conversions)
        latest, decayed = read_latest(ordered.user, num_latest=self.num_latest, decay=self.decay)
        return ordered.at(latest).pair_sums(decayed)

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
        return transition_weights(weight_NN, self.row_power)


def _in_order(conversions: Conversions) -> Conversions:
    return conversions.at(np.lexsort((conversions.occurred_us, conversions.user)))
