"""What follows what: first-order transitions between a user's consecutive baskets, weighted by recency."""

from typing import Any

import numpy as np
import scipy.sparse as sp  # type: ignore[import-untyped, unused-ignore]

from forecart.baselines.conversions import Conversions
from forecart.baselines.linear import LinearBaseline
from forecart.baselines.own_history import decayed_baskets


class Markov(LinearBaseline):
    """score = sum over the user's candidates i of B(i) P(j | i) + .001 pop(j).

    P(j | i) = baskets with i whose user's next basket holds j / baskets with i that have a next one;
    B(i) = sum of exp(-age / decay) over the user's baskets with i. A basket is what one user converted with
    at one time.

    Args:
        decay_days: how fast an old conversion stops to matter.
    """

    name = "markov"
    popularity_weight = 0.001

    def __init__(self, decay_days: float = 14.0) -> None:
        self.decay_days = decay_days

    def queries(self, conversions: Conversions) -> Any:
        """Returns B."""
        return decayed_baskets(conversions.baskets(), self.decay_days).astype(np.float32)

    def weights(self, conversions: Conversions) -> Any:
        """Returns P."""
        return _transitions(conversions.baskets())


def _transitions(baskets: Conversions) -> Any:
    """Returns P(j | i) as a CSR matrix [N, N]."""
    num_candidates = baskets.shape[1]
    ordered = baskets.at(np.lexsort((baskets.occurred_us, baskets.user)))
    is_new = np.ones(len(ordered.user), bool)
    is_new[1:] = (np.diff(ordered.user) != 0) | (np.diff(ordered.occurred_us) != 0)
    basket = np.cumsum(is_new) - 1
    user_of_basket = ordered.user[is_new]
    held = sp.csr_matrix(
        (np.ones(len(basket), np.float32), (basket, ordered.candidate)),
        shape=(len(user_of_basket), num_candidates),
    )
    earlier = np.flatnonzero(user_of_basket[:-1] == user_of_basket[1:])
    before = held[earlier]
    count_N = np.maximum(np.asarray(before.sum(axis=0)).ravel(), 1.0)
    return (sp.diags(1.0 / count_N) @ (before.T @ held[earlier + 1])).tocsr().astype(np.float32)
