"""What baselines of candidate-to-candidate weights share: the user's query times the matrix, + popularity."""

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from forecart.baselines.conversions import ConversionLog, Conversions


class LinearBaseline:
    """score = query(user) W + `popularity_weight` x share of users; popularity orders what W leaves at zero.

    Subclasses say what W and the queries are.
    """

    popularity_weight: float

    def fit(self, log: ConversionLog) -> Self:
        """Learns W and everyone's query; see `Baseline.fit`."""
        conversions = log.read()
        self._query_UN, self._weight_NN = self.queries_and_weights(conversions)
        self._popularity_N = (self.popularity_weight * conversions.user_share()).astype(np.float32)
        return self

    def queries_and_weights(self, conversions: Conversions) -> tuple[Any, Any]:
        """Returns the queries [U, N] and W [N, N], both CSR matrices."""
        raise NotImplementedError

    def score(self, user_index: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Returns query times W + popularity, [B, N]."""
        linear_BN = (self._query_UN[user_index] @ self._weight_NN).toarray()
        score_BN: npt.NDArray[np.float32] = linear_BN.astype(np.float32) + self._popularity_N
        return score_BN
