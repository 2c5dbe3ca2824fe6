"""EASE, the closed-form linear item model, and its mix with the user's own baskets and popularity.

With X = log(1 + rows) of users by candidates, EASE is the B with zero diagonal that minimises
|X - X B|^2 + lambda |B|^2: B = I - P / diag(P), P = (X'X + lambda I)^-1. With fewer users than candidates
the same scores come from the smaller K = X X' + lambda I: X P = K^-1 X, P_jj = (1 - x_j' K^-1 x_j) / lambda.
"""

from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve  # type: ignore[import-untyped, unused-ignore]

from forecart.baselines.conversions import ConversionLog, Conversions
from forecart.baselines.own_history import decayed_baskets
from forecart.errors import DataError

Float32Array = npt.NDArray[np.float32]
_MAX_SIDE: Final = 8192
_MAX_ENTRIES: Final = 100_000_000


class Ease:
    """score = X B, for a catalogue of a few thousand candidates; a user without rows gets popularity x 1e-6.

    Source: Steck, Embarrassingly Shallow Autoencoders for Sparse Data, 2019, equation 8.

    Args:
        regularisation: lambda.
    """

    name = "ease"

    def __init__(self, regularisation: float = 300.0) -> None:
        self.regularisation = regularisation

    def fit(self, log: ConversionLog) -> Self:
        """Solves for the scores; see `Baseline.fit`.

        Raises:
            DataError: both users and candidates with a conversion are too many for a closed form.
        """
        conversions = log.read()
        self.fit_conversions(conversions)
        return self

    def fit_conversions(self, conversions: Conversions) -> None:
        """Solves for the scores of users with a conversion among the candidates that have one."""
        self._num_candidates = conversions.shape[1]
        users = np.flatnonzero(np.bincount(conversions.user))
        self._candidates = np.flatnonzero(np.bincount(conversions.candidate))
        _check_size(len(users), len(self._candidates))
        self._row_of_user = np.full(conversions.shape[0], -1)
        self._row_of_user[users] = np.arange(len(users))
        x_UM = np.log1p(conversions.pair_sums()[users][:, self._candidates].astype(np.float32)).toarray()
        self._score_UM = ease_scores(x_UM, self.regularisation)
        self._popularity_N = (1e-6 * conversions.user_share()).astype(np.float32)

    def score(self, user_index: npt.NDArray[np.int32]) -> Float32Array:
        """Returns X B, [B, N]."""
        score_BN = np.repeat(self._popularity_N[None, :], len(user_index), axis=0)
        row = self._row_of_user[user_index]
        known = np.flatnonzero(row >= 0)
        score_BN[np.ix_(known, self._candidates)] += self._score_UM[row[known]]
        return score_BN


class BasketEasePopularity:
    """log(1 + B120) + w_e E + w_p pop: the user's own decayed baskets, EASE and popularity. The hard one.

    Args:
        ease_weight: w_e.
        popularity_weight: w_p, of the share of users of all time.
        decay_days: of the baskets.
        regularisation: lambda of EASE.
    """

    name = "basket_ease_popularity"

    def __init__(
        self,
        ease_weight: float = 0.3,
        popularity_weight: float = 0.2,
        decay_days: float = 120.0,
        regularisation: float = 300.0,
    ) -> None:
        self.ease_weight = ease_weight
        self.popularity_weight = popularity_weight
        self.decay_days = decay_days
        self._ease = Ease(regularisation)

    def fit(self, log: ConversionLog) -> Self:
        """Fits EASE and sums the baskets; see `Baseline.fit` and `Ease.fit`."""
        conversions = log.read()
        self._ease.fit_conversions(conversions)
        self._own_UN = self.own_weights(conversions)
        self._popularity_N = (self.popularity_weight * conversions.user_share()).astype(np.float32)
        return self

    def own_weights(self, conversions: Conversions) -> Any:
        """Returns log(1 + B), a CSR matrix [U, N]."""
        return np.log1p(decayed_baskets(conversions, self.decay_days))

    def score(self, user_index: npt.NDArray[np.int32]) -> Float32Array:
        """Returns the mix, [B, N]."""
        score_BN = self._ease.score(user_index)
        score_BN *= self.ease_weight
        score_BN += self._own_UN[user_index].astype(np.float32).toarray()
        score_BN += self._popularity_N
        return score_BN


class DecayedEasePopularity(BasketEasePopularity):
    """log(1 + D90) + w_e E + w_p pop: as `BasketEasePopularity`, with rows in place of baskets."""

    name = "decayed_ease_popularity"

    def __init__(self, ease_weight: float = 0.3, popularity_weight: float = 0.2) -> None:
        super().__init__(ease_weight, popularity_weight, decay_days=90.0)

    def own_weights(self, conversions: Conversions) -> Any:
        """Returns log(1 + D), a CSR matrix [U, N]."""
        return np.log1p(conversions.pair_sums(np.exp(-conversions.age_days / self.decay_days)))


def ease_scores(x_UM: Float32Array, regularisation: float) -> Float32Array:
    """Returns X B, [U, M]; solved on the smaller side of X, both give the same to rounding."""
    if x_UM.size == 0:
        return x_UM
    if x_UM.shape[0] < x_UM.shape[1]:
        return _scores_by_users(x_UM, regularisation)
    return _scores_by_candidates(x_UM, regularisation)


def _scores_by_users(x_UM: Float32Array, regularisation: float) -> Float32Array:
    gram_UU = x_UM @ x_UM.T
    gram_UU[np.diag_indices_from(gram_UU)] += regularisation
    solved_UM: Float32Array = cho_solve(cho_factor(gram_UU, overwrite_a=True), x_UM)
    explained_M = np.einsum("um,um->m", x_UM, solved_UM, dtype=np.float64)
    solved_UM *= (-regularisation / (1.0 - explained_M)).astype(np.float32)
    solved_UM += x_UM
    return solved_UM


def _scores_by_candidates(x_UM: Float32Array, regularisation: float) -> Float32Array:
    gram_MM = x_UM.T @ x_UM
    gram_MM[np.diag_indices_from(gram_MM)] += regularisation
    weight_MM: Float32Array = cho_solve(
        cho_factor(gram_MM, overwrite_a=True), np.eye(len(gram_MM), dtype=np.float32), overwrite_b=True
    )
    weight_MM /= -np.diag(weight_MM).copy()
    np.fill_diagonal(weight_MM, 0.0)
    scores_UM: Float32Array = x_UM @ weight_MM
    return scores_UM


def _check_size(num_users: int, num_candidates: int) -> None:
    if min(num_users, num_candidates) > _MAX_SIDE or num_users * num_candidates > _MAX_ENTRIES:
        raise DataError(
            f"EASE needs at most {_MAX_SIDE} users or candidates and {_MAX_ENTRIES:,} pairs of them, got "
            f"{num_users:,} users and {num_candidates:,} candidates: leave it out of the baselines"
        )
