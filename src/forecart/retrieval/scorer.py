"""A trained model that scores everyone at any cut: what evaluation ranks and candidate tables are cut from.

Takes a model and histories; gives embeddings and dense scores as of a cut. Histories, own statistics and the
prior are read up to the cut, the weights stay what they are.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from forecart.embedding.candidates import CandidateEmbeddings, embed_candidates
from forecart.embedding.users import UserEmbeddings, embed_users, with_successors
from forecart.model.two_tower import TwoTower
from forecart.retrieval.diversity import Reranker, RerankRule, build_reranker
from forecart.retrieval.exact import score_exact
from forecart.sequences.batches import BatchBuilder
from forecart.sequences.population import Population, read_population
from forecart.sequences.successors import SuccessorTerm


@dataclass
class ModelScorer:
    """Scores candidates with a trained model.

    Attributes:
        name: of the system in tables and files.
        model: trained.
        builder: reads the histories.
        successors: the successor term, where the score has one.
        rerank: how lists are chosen out of the best by score; None where those are the lists.
    """

    name: str
    model: TwoTower
    builder: BatchBuilder
    successors: SuccessorTerm | None = None
    rerank: RerankRule | None = None
    _at: tuple[int, Population, CandidateEmbeddings] | None = field(default=None, repr=False)

    def embed(self, cut_us: int, user_index: npt.NDArray[np.int32]) -> UserEmbeddings:
        """Returns the embeddings of users as of a cut."""
        population, candidates = self._state_at(cut_us)
        users = embed_users(
            self.model,
            self.builder,
            user_index,
            cut_us=cut_us,
            population=population,
            candidates=candidates,
        )
        return users if self.successors is None else with_successors(users, self.successors, cut_us=cut_us)

    def candidates_at(self, cut_us: int) -> CandidateEmbeddings:
        """Returns vectors and prior of all candidates as of a cut."""
        return self._state_at(cut_us)[1]

    def population_at(self, cut_us: int) -> Population:
        """Returns what everyone did as of a cut."""
        return self._state_at(cut_us)[0]

    def score_at(self, cut_us: int, user_index: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Returns the score of every candidate for each user, [B, N]: see `score_exact`."""
        users = self.embed(cut_us, user_index)
        scores: npt.NDArray[np.float32] = score_exact(users, self.candidates_at(cut_us)).cpu().numpy()
        return scores

    def reranker_at(self, cut_us: int) -> Reranker | None:
        """Returns what chooses the lists as of a cut; None where they are the best by score."""
        return None if self.rerank is None else self.reranker_by(self.rerank, cut_us)

    def reranker_by(self, rule: RerankRule, cut_us: int) -> Reranker:
        """Returns what chooses lists by a rule as of a cut."""
        population, candidates = self._state_at(cut_us)
        vector_ND = candidates.vector_ND.cpu().numpy()
        return build_reranker(rule, population, vector_ND=vector_ND, temperature=candidates.temperature)

    def _state_at(self, cut_us: int) -> tuple[Population, CandidateEmbeddings]:
        """Statistics and vectors of the latest cut that was asked for; they are the same for all users."""
        if self._at is None or self._at[0] != cut_us:
            population = read_population(self.builder.log, cut_us)
            self._at = (cut_us, population, embed_candidates(self.model, population))
        return self._at[1], self._at[2]
