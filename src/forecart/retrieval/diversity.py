"""Lists chosen anew out of each user's best candidates: less of what is popular, less of what is alike.

Takes the best candidates of a block of users with their scores, and of all candidates a unit vector and a
popularity as of a moment; gives lists of K. A list depends on nobody else's, so that a block, a part and one
user come to the same. Scores stay what they are: what changes is which candidates are listed, and where.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from forecart.retrieval.top_k import TopK
from forecart.sequences.population import POPULARITY_DAYS, Population

Float32Array = npt.NDArray[np.float32]
_ALL_TIME: Final = len(POPULARITY_DAYS) - 1
_BLOCK_USERS: Final = 8
"""Users whose similarities are held at once: 8 MB of them with a pool of 500."""
_PADDING: Final = np.float32(-1e30)
"""The value of what is no candidate: listed after all that are, and before nothing is left."""


class RerankRule(BaseModel):
    """How a list is chosen out of the best candidates. Closed: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    popularity: float = Field(default=0.3, ge=0.0)
    """What popularity takes from a logit: so much per unit of the log share of users who ever converted."""
    similarity: float = Field(default=0.0, ge=0.0, le=1.0)
    """MMR's 1 - lambda: weight of the highest cosine to what is listed above, against that of the score."""
    kept_share: float = Field(default=0.8, ge=0.0, le=1.0)
    """Share of the list, from the top, that stays as the scores have it."""
    pool_factor: float = Field(default=5.0, ge=1.0)
    """Of how many times as many best candidates a list is chosen; with 1 nothing but its order moves."""

    def pool_size(self, top_k: int) -> int:
        """Returns how many candidates a list of K is chosen from."""
        return math.ceil(self.pool_factor * top_k)


class RerankSettings(RerankRule):
    """Whether lists are chosen anew, and how."""

    is_enabled: bool = False
    """Whether the lists that are written are those of this rule; else they are the best by score."""

    @property
    def rule(self) -> RerankRule | None:
        """The rule of the lists that are written, None where that is the score alone."""
        return RerankRule(**self.model_dump(exclude={"is_enabled"})) if self.is_enabled else None


@dataclass(frozen=True, eq=False)
class Reranker:
    """Chooses lists as of one moment.

    Attributes:
        rule: how.
        vector_ND: unit vectors of all candidates.
        log_share_N: log of the smoothed share of users who had converted with each by the moment.
        temperature: score / temperature = logit.
    """

    rule: RerankRule
    vector_ND: Float32Array
    log_share_N: Float32Array
    temperature: float

    def rerank(self, best: TopK, *, top_k: int) -> TopK:
        """Returns lists of K chosen out of the best candidates, each candidate with the score it had.

        The first `kept_share` are the best by score. Each next is, of those not listed yet, the one with the
        highest

            (1 - similarity) (score - popularity temperature log share) - similarity max cosine

        where the maximum is over what is listed above it, and 0 where nothing is; of equal ones the one that
        stands first in `best`. So the score's unit is that of the cosine, and `popularity` counts in logits.
        A list is short where `best` is.

        Args:
            best: [B, P] with P >= K, best first, as a search gives them.
            top_k: K.

        Source: Carbonell and Goldstein, 1998, for MMR; docs/adr/0017.
        """
        if best.score.shape[1] < top_k:
            raise ValueError(f"lists of {top_k} are chosen out of as many or more, got {best.score.shape[1]}")
        value_BP, num_kept = self._values(best), round(self.rule.kept_share * top_k)
        if self.rule.similarity:
            parts = [slice(at, at + _BLOCK_USERS) for at in range(0, max(1, len(value_BP)), _BLOCK_USERS)]
            chosen = [self._choose(best.candidate[part], value_BP[part], num_kept, top_k) for part in parts]
            place_BK = np.concatenate(chosen)
        else:
            value_BP[:, :num_kept] = np.inf
            place_BK = np.argsort(-value_BP, axis=1, kind="stable")[:, :top_k]
        return TopK(
            np.take_along_axis(best.candidate, place_BK, axis=1),
            np.take_along_axis(best.score, place_BK, axis=1),
        )

    def _values(self, best: TopK) -> Float32Array:
        """Returns the part of the value that does not depend on what is listed above, [B, P]."""
        weight = np.float32(1 - self.rule.similarity)
        penalty_N = np.float32(self.rule.popularity * self.temperature) * self.log_share_N
        is_there_BP = best.score > -np.inf
        score_BP = np.where(is_there_BP, best.score, np.float32(0))
        return np.where(is_there_BP, weight * (score_BP - penalty_N[best.candidate]), _PADDING)

    def _choose(
        self, candidate_BP: npt.NDArray[np.int32], left_BP: Float32Array, num_kept: int, top_k: int
    ) -> npt.NDArray[np.int64]:
        """Returns the places of the greedy choice, [B, K]; `left_BP`, the values, is used up."""
        vector_BPD, row_B = self.vector_ND[candidate_BP], np.arange(len(left_BP))
        # All pairs at once: a product of matrices costs less than K of a matrix and a vector.
        near_BPP = np.matmul(vector_BPD, vector_BPD.transpose(0, 2, 1))
        near_BPP *= np.float32(self.rule.similarity)
        nearest_BP: Any = np.float32(0)
        place_BK = np.empty((len(left_BP), top_k), np.int64)
        for rank in range(top_k):
            place_B = np.full(len(row_B), rank) if rank < num_kept else (left_BP - nearest_BP).argmax(axis=1)
            place_BK[:, rank] = place_B
            left_BP[row_B, place_B] = -np.inf
            near_BP = near_BPP[row_B, place_B]
            nearest_BP = np.maximum(nearest_BP, near_BP) if rank else near_BP
        return place_BK


def choose_lists(search: Callable[[int], TopK], reranker: Reranker | None, *, top_k: int) -> TopK:
    """Returns lists of K: the best by score, or chosen anew out of as many as the rule asks for.

    Args:
        search: returns so many of the best by score.
        reranker: chooses; None for the best by score.
        top_k: K.
    """
    if reranker is None:
        return search(top_k)
    return reranker.rerank(search(reranker.rule.pool_size(top_k)), top_k=top_k)


def build_reranker(
    rule: RerankRule, population: Population, *, vector_ND: Float32Array, temperature: float
) -> Reranker:
    """Returns what chooses lists as of the moment of the population: what arrived later does not count.

    Args:
        rule: how.
        population: as of the moment.
        vector_ND: unit vectors of all candidates.
        temperature: of the model.
    """
    row_N = population.rows_of(np.arange(len(vector_ND), dtype=np.int32))
    return Reranker(rule, vector_ND, population.log_share[row_N, _ALL_TIME], temperature)
