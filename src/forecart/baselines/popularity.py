"""Popularity: the same list for everyone, by the share of users who converted with a candidate."""

from typing import Self

import numpy as np
import numpy.typing as npt

from forecart.baselines.conversions import ConversionLog, Conversions


class Popularity:
    """Share of users in the last days, ties by the share of all time.

    score = pop_recent + .001 pop_all, or pop_all alone without `last_days`.

    Args:
        last_days: how far back; None for all time.
    """

    def __init__(self, last_days: int | None = 7) -> None:
        self.last_days = last_days
        self.name = "popularity_all" if last_days is None else f"popularity_{last_days}d"

    def fit(self, log: ConversionLog) -> Self:
        """Counts users; see `Baseline.fit`."""
        conversions = log.read_learned()
        self._score_N = popular_shares(conversions, self.last_days).astype(np.float32)
        return self

    def score(self, user_index: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Returns the one list for each user, [B, N]."""
        return np.repeat(self._score_N[None, :], len(user_index), axis=0)


def popular_shares(conversions: Conversions, last_days: int | None) -> npt.NDArray[np.float64]:
    """Returns pop_recent + .001 pop_all, [N], or pop_all alone without `last_days`."""
    share_N = conversions.user_share()
    if last_days is None:
        return share_N
    return conversions.user_share(last_days=last_days) + 0.001 * share_N
