"""Item-kNN: candidates that the same users convert with, weighted by how recently this user converted."""

from typing import Any, Final

import numpy as np
import scipy.sparse as sp  # type: ignore[import-untyped, unused-ignore]

from forecart.baselines.conversions import Conversions
from forecart.baselines.linear import LinearBaseline
from forecart.baselines.own_history import decayed_baskets
from forecart.metrics.ranking import rank_top_k

_BLOCK_ENTRIES: Final = 1 << 24


class ItemNeighbours(LinearBaseline):
    """score = sum over the user's candidates i of B(i) S(i, j) + .001 pop(j).

    B(i) = sum of exp(-age / decay) over the user's baskets with i; S(i, j) is the cosine,
    users of both / sqrt(users of i x users of j), kept for the nearest `num_neighbours` of each i (itself
    among them, with 1) and for candidates with at least `min_users` users.

    Args:
        decay_days: how fast an old conversion stops to matter.
        num_neighbours: kept of each candidate.
        min_users: candidates with fewer users have no neighbours: a cosine of two or three users is noise.
    """

    name = "item_knn"
    popularity_weight = 0.001

    def __init__(self, decay_days: float = 90.0, num_neighbours: int = 50, min_users: int = 3) -> None:
        self.decay_days = decay_days
        self.num_neighbours = num_neighbours
        self.min_users = min_users

    def queries(self, conversions: Conversions) -> Any:
        """Returns B."""
        return decayed_baskets(conversions.baskets(), self.decay_days).astype(np.float32)

    def weights(self, conversions: Conversions) -> Any:
        """Returns S."""
        return self._nearest(conversions.pair_sums().astype(np.float32).sign())

    def _nearest(self, has_converted_UN: Any) -> Any:
        """Returns the cosines of the nearest neighbours, a CSR matrix [N, N]; a block of rows at a time."""
        num_candidates = has_converted_UN.shape[1]
        num_users_N = np.asarray(has_converted_UN.sum(axis=0)).ravel()
        known = np.flatnonzero(num_users_N >= self.min_users)
        unit_UM = (has_converted_UN[:, known] @ sp.diags(num_users_N[known] ** -0.5)).tocsc()
        parts = [sp.csr_matrix((0, num_candidates), dtype=np.float32)]
        height = max(1, _BLOCK_ENTRIES // max(len(known), 1))
        for first in range(0, len(known), height):
            cosine_BM = (unit_UM[:, first : first + height].T @ unit_UM).toarray().astype(np.float32)
            column, value = rank_top_k(np.where(cosine_BM > 0, cosine_BM, -np.inf), k=self.num_neighbours)
            row, rank = np.nonzero(column >= 0)
            shape = (len(cosine_BM), num_candidates)
            parts.append(sp.csr_matrix((value[row, rank], (row, known[column[row, rank]])), shape=shape))
        place = sp.csr_matrix(
            (np.ones(len(known), np.float32), (known, np.arange(len(known)))), (num_candidates, len(known))
        )
        return place @ sp.vstack(parts, format="csr")
