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
        learned = log.read_learned()
        self._query_UN, self._weight_NN = self.queries(log.read()), self.weights(learned)
        self._popularity_N = (self.popularity_weight * learned.user_share()).astype(np.float32)
        return self

    def queries(self, conversions: Conversions) -> Any:
        """Returns everyone's query, a CSR matrix [U, N]."""
        raise NotImplementedError

    def weights(self, conversions: Conversions) -> Any:
        """Returns W, a CSR matrix [N, N]."""
        raise NotImplementedError

    def score(self, user_index: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Returns query times W + popularity, [B, N]."""
        linear_BN = (self._query_UN[user_index] @ self._weight_NN).toarray()
        score_BN: npt.NDArray[np.float32] = linear_BN.astype(np.float32) + self._popularity_N
        return score_BN
