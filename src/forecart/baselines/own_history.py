"""The user's own past, then popularity: the baselines to beat where people return to the same advertisers.

Each is a weight per (user, candidate) summed over the user's rows, plus popularity for order among candidates
that are alike to the user. They differ in what a row weighs: one, less with age, or once a basket.
"""

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from forecart import columns
from forecart.baselines.conversions import ConversionLog, Conversions, dense_rows
from forecart.baselines.popularity import popular_shares


class OwnHistory:
    """A weight of the user's own rows per candidate + `popularity_weight` x share of users.

    Subclasses say what a row weighs in `own_weights`.

    Args:
        name: in tables and files; `_7d` and the like is added for popularity of the last days.
        popularity_weight: of the share of users.
        last_days: popularity of the last days (ties by all time); None for all time. Products come and go
            faster than advertisers: there the last week orders better.
    """

    def __init__(self, name: str, popularity_weight: float, last_days: int | None = None) -> None:
        self.name = name if last_days is None else f"{name}_{last_days}d"
        self.popularity_weight = popularity_weight
        self.last_days = last_days

    def fit(self, log: ConversionLog) -> Self:
        """Sums the weights; see `Baseline.fit`."""
        self._own_UN = self.own_weights(log.read(self.own_codes(log.conversion_codes)))
        share_N = popular_shares(log.read_learned(), self.last_days)
        self._popularity_N = (self.popularity_weight * share_N).astype(np.float32)
        return self

    def own_codes(self, conversion_codes: frozenset[int]) -> frozenset[int]:
        """Returns the event types that are the user's own history: the conversions."""
        return conversion_codes

    def own_weights(self, history: Conversions) -> Any:
        """Returns the weight per user and candidate, a CSR matrix [U, N]."""
        raise NotImplementedError

    def score(self, user_index: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Returns own weight + popularity, [B, N]."""
        score_BN = dense_rows(self._own_UN, user_index)
        score_BN += self._popularity_N
        return score_BN


class FrequencyPopularity(OwnHistory):
    """C + .999 pop: how often the user converted with it, ties and the rest by popularity."""

    def __init__(self, popularity_weight: float = 0.999, last_days: int | None = None) -> None:
        super().__init__("frequency_popularity", popularity_weight, last_days)

    def own_weights(self, history: Conversions) -> Any:
        """Returns C, the number of rows."""
        return history.pair_sums()


class DecayedPopularity(OwnHistory):
    """D90 + .001 pop, D90 = sum over the user's rows of exp(-age in days / 90)."""

    def __init__(
        self, decay_days: float = 90.0, popularity_weight: float = 0.001, last_days: int | None = None
    ) -> None:
        super().__init__("decayed_popularity", popularity_weight, last_days)
        self.decay_days = decay_days

    def own_weights(self, history: Conversions) -> Any:
        """Returns D."""
        return history.pair_sums(np.exp(-history.age_days / self.decay_days))


class BasketPopularity(OwnHistory):
    """B120 + .5 pop, B120 = sum over the user's distinct baskets of exp(-age in days / 120)."""

    def __init__(
        self, decay_days: float = 120.0, popularity_weight: float = 0.5, last_days: int | None = None
    ) -> None:
        super().__init__("basket_popularity", popularity_weight, last_days)
        self.decay_days = decay_days

    def own_weights(self, history: Conversions) -> Any:
        """Returns B."""
        return decayed_baskets(history, self.decay_days)


class HistoryThenPopularity(OwnHistory):
    """The user's candidates by frequency over events of any type, latest first among equals; then popularity.

    For logs where views say more than the few conversions do.
    score = rows + .9 / (1 + age in days of the latest row) + .0001 pop: each term orders what the one before
    leaves tied.
    """

    def __init__(self) -> None:
        super().__init__("history_then_popularity", 0.0001)

    def own_codes(self, conversion_codes: frozenset[int]) -> frozenset[int]:
        """Returns every event type."""
        return frozenset(columns.EVENT_TYPE_CODES.values()) | conversion_codes

    def own_weights(self, history: Conversions) -> Any:
        """Returns rows + .9 / (1 + age of the latest)."""
        order = np.lexsort((-history.occurred_us, history.candidate, history.user))
        ordered = history.at(order)
        is_latest = np.ones(len(order), bool)
        is_latest[1:] = (np.diff(ordered.user) != 0) | (np.diff(ordered.candidate) != 0)
        return ordered.pair_sums(1.0 + is_latest * 0.9 / (1.0 + ordered.age_days))


def decayed_baskets(history: Conversions, decay_days: float) -> Any:
    """Returns the sum of exp(-age in days / `decay_days`) over distinct baskets, a CSR matrix [U, N]."""
    baskets = history.baskets()
    return baskets.pair_sums(np.exp(-baskets.age_days / decay_days))
