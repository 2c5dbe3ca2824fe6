"""EASE, the closed-form linear item model, and its mix with the user's own baskets and popularity.

With X = log(1 + rows) of users by candidates, EASE is the B with zero diagonal that minimises
|X - X B|^2 + lambda |B|^2: B = I - P / diag(P), P = (X'X + lambda I)^-1. With fewer users than candidates
the same scores come from the smaller K = X X' + lambda I: P_jj = (1 - x_j' K^-1 x_j) / lambda and, for rows Y
that are known later than what B learns from, Y P = (Y - Y X' K^-1 X) / lambda, which for Y = X is K^-1 X.
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
    """score = Y B, for a catalogue of a few thousand candidates; a user without rows gets popularity x 1e-6.

    B learns from X, the rows that `read_learned` gives; Y are a user's rows up to the cut.

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
        learned, known = log.read_learned(), log.read()
        users = np.flatnonzero(np.bincount(known.user))
        self._candidates = np.flatnonzero(np.bincount(learned.candidate))
        _check_size(len(users), len(self._candidates))
        self._row_of_user = np.full(known.shape[0], -1)
        self._row_of_user[users] = np.arange(len(users))
        x_UM = self._read_rows(learned, users)
        y_UM = self._read_rows(known, users) if learned.cut_us < known.cut_us else None
        self._score_UM = ease_scores(x_UM, self.regularisation, y_UM=y_UM)
        self._popularity_N = (1e-6 * learned.user_share()).astype(np.float32)
        return self

    def _read_rows(self, conversions: Conversions, users: npt.NDArray[np.int64]) -> Float32Array:
        """Returns log(1 + rows) of these users, of the candidates that B knows, [U, M]."""
        count_UM = conversions.pair_sums()[users][:, self._candidates]
        rows_UM: Float32Array = np.log1p(count_UM.astype(np.float32)).toarray()
        return rows_UM

    def score(self, user_index: npt.NDArray[np.int32]) -> Float32Array:
        """Returns Y B, [B, N]."""
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
        self._ease.fit(log)
        self._own_UN = self.own_weights(log.read())
        share_N = log.read_learned().user_share()
        self._popularity_N = (self.popularity_weight * share_N).astype(np.float32)
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


def ease_scores(
    x_UM: Float32Array, regularisation: float, *, y_UM: Float32Array | None = None
) -> Float32Array:
    """Returns Y B, [U, M]; solved on the smaller side of X, both give the same to rounding.

    Args:
        x_UM: what B learns from.
        regularisation: lambda.
        y_UM: what B is asked with; X when None.
    """
    if x_UM.size == 0:
        return x_UM
    if x_UM.shape[0] < x_UM.shape[1]:
        return _scores_by_users(x_UM, regularisation, y_UM)
    return _scores_by_candidates(x_UM, regularisation, y_UM)


def _scores_by_users(x_UM: Float32Array, regularisation: float, y_UM: Float32Array | None) -> Float32Array:
    gram_UU = x_UM @ x_UM.T
    gram_UU[np.diag_indices_from(gram_UU)] += regularisation
    solved_UM: Float32Array = cho_solve(cho_factor(gram_UU, overwrite_a=True), x_UM)
    explained_M = np.einsum("um,um->m", x_UM, solved_UM, dtype=np.float64)
    if y_UM is None:
        score_UM, y_UM = solved_UM, x_UM
    else:
        score_UM = y_UM.copy()
        score_UM -= (y_UM @ x_UM.T) @ solved_UM
        score_UM /= regularisation
    # Y P so far, and Y B = Y - Y P / diag(P).
    score_UM *= (-regularisation / (1.0 - explained_M)).astype(np.float32)
    score_UM += y_UM
    return score_UM


def _scores_by_candidates(
    x_UM: Float32Array, regularisation: float, y_UM: Float32Array | None
) -> Float32Array:
    gram_MM = x_UM.T @ x_UM
    gram_MM[np.diag_indices_from(gram_MM)] += regularisation
    weight_MM: Float32Array = cho_solve(
        cho_factor(gram_MM, overwrite_a=True), np.eye(len(gram_MM), dtype=np.float32), overwrite_b=True
    )
    weight_MM /= -np.diag(weight_MM).copy()
    np.fill_diagonal(weight_MM, 0.0)
    scores_UM: Float32Array = (x_UM if y_UM is None else y_UM) @ weight_MM
    return scores_UM


def _check_size(num_users: int, num_candidates: int) -> None:
    if min(num_users, num_candidates) > _MAX_SIDE or num_users * num_candidates > _MAX_ENTRIES:
        raise DataError(
            f"EASE needs at most {_MAX_SIDE} users or candidates and {_MAX_ENTRIES:,} pairs of them, got "
            f"{num_users:,} users and {num_candidates:,} candidates: leave it out of the baselines"
        )
