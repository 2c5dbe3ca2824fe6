"""The protocol of record: every scorer ranks all candidates for every (user, cut) row, in three pools.

Takes scorers and labels, gives their top-K lists; every figure of the report is computed from these lists
and the labels (`tables`), so anyone can recompute it from the written lists (`lists`). Scores are streamed by
batches of users: memory is a few [batch, N] matrices. Seen = a conversion had arrived before the cut.

Pools: `all`, every candidate is ranked and the seen ones are kept; `novel`, relevant = not converted with
before the cut, the list leaves the seen out; `repeat`, relevant = converted with before, a list of the seen.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from forecart.baselines.conversions import read_conversions
from forecart.metrics.ranking import NO_CANDIDATE, index_recall_at_k, rank_top_k
from forecart.retrieval.diversity import Reranker, choose_lists
from forecart.retrieval.top_k import TopK
from forecart.sequences.histories import Histories
from forecart.sequences.split import Labels, Level
from forecart.sequences.vocabulary import FIRST_INDEX

POOLS: Final = ("all", "novel", "repeat")
INDEX_K: Final = (1, 10, 100)
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
RowArray = npt.NDArray[np.int64]


class Scorer(Protocol):
    """Anything that scores all candidates for users at a cut: a model of one seed, or a baseline."""

    @property
    def name(self) -> str:
        """The name in tables and files. Scorers of one name are seeds of one system, the first one served."""

    def score_at(self, cut_us: int, user_index: npt.NDArray[np.int32]) -> Float32Array:
        """Returns the score of every candidate at the cut, [B, N]; NaN is refused, -inf is never listed."""


@runtime_checkable
class RerankingScorer(Protocol):
    """A scorer whose lists are chosen anew out of the best by score."""

    def reranker_at(self, cut_us: int) -> Reranker | None:
        """Returns what chooses the lists at a cut; None where they are the best by score."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How an evaluation is done.

    Attributes:
        level: `advertiser` or `item`.
        num_candidates: N, the size of the index space, padding and unknown included.
        conversion_codes: the event types that are conversions.
        top_k: K, the length of the lists.
        index_size: candidates drawn for the random index of a cut; 0 leaves the index recall out.
        batch_size: users scored at once.
        seed: of the random index.
    """

    level: Level
    num_candidates: int
    conversion_codes: frozenset[int]
    top_k: int = 100
    index_size: int = 1000
    batch_size: int = 128
    seed: int = 0


@dataclass(frozen=True, eq=False)
class RankedLists:
    """The lists of one scorer in one pool, R rows of the pool; a short list ends in `NO_CANDIDATE` and -inf.

    Attributes:
        candidate: [R, K], best first.
        score: [R, K].
    """

    candidate: npt.NDArray[np.int32]
    score: Float32Array


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All lists of an evaluation, and the labels they are held against.

    Attributes:
        settings: how it was done.
        labels: X rows (user, cut).
        list_names: by system name, the list of each of its seeds; the first has the system's own name.
        pool_rows: by pool, the rows of the labels with something relevant in it, [R].
        lists: by pool and list name.
        index_recall: by list name, [X, len(INDEX_K)], the recall in a random index; empty if not asked for.
    """

    settings: EvaluationSettings
    labels: Labels
    list_names: dict[str, list[str]]
    pool_rows: dict[str, RowArray]
    lists: dict[str, dict[str, RankedLists]]
    index_recall: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)


def is_relevant_in(labels: Labels, pool: str) -> BoolArray:
    """Returns which positives count in a pool, [nnz]."""
    if pool == "all":
        return np.ones(len(labels.candidate), bool)
    return labels.is_repeat if pool == "repeat" else ~labels.is_repeat


def evaluate(
    scorers: Sequence[Scorer], *, histories: Histories, labels: Labels, settings: EvaluationSettings
) -> Evaluation:
    """Returns the top-K lists of every scorer for every row of the labels, in every pool.

    A pool has only rows with something relevant in it. Ties: the higher score, then the lower index;
    padding and unknown are never listed.

    Args:
        scorers: one per system and seed; scorers of one name become `name`, `name_seed1`, ... in this order.
        histories: what the seen candidates of a row are read from, up to its cut.
        labels: with every positive kept.
        settings: pools, K and the random index.
    """
    list_names = _name_lists(scorers)
    flat_names = _in_order(scorers, list_names)
    relevant_rows = labels.rows()
    pool_rows = {pool: np.unique(relevant_rows[is_relevant_in(labels, pool)]) for pool in POOLS}
    shape = (len(labels), settings.top_k)
    lists = {pool: {name: _empty_lists(shape) for name in flat_names} for pool in POOLS}
    index_recall = {name: np.full((len(labels), len(INDEX_K)), np.nan) for name in flat_names}
    for cut_us in np.unique(labels.cut_us):
        cut = _Cut.at(int(cut_us), histories, labels, settings)
        for name, scorer in zip(flat_names, scorers, strict=True):
            reranker = find_reranker(scorer, int(cut_us))
            for batch in cut.batches():
                score_BN = batch.read_scores(scorer)
                for pool in POOLS:
                    _store(lists[pool][name], batch.rows, batch.list_best(score_BN, pool, reranker))
                if settings.index_size:
                    index_recall[name][batch.rows] = batch.index_recall(score_BN)
    return Evaluation(
        settings=settings,
        labels=labels,
        list_names=list_names,
        pool_rows=pool_rows,
        lists={
            pool: {name: _at_rows(ranked, pool_rows[pool]) for name, ranked in by_name.items()}
            for pool, by_name in lists.items()
        },
        index_recall=index_recall if settings.index_size else {},
    )


@dataclass(frozen=True, eq=False)
class _Cut:
    """What is common to all scorers at one cut."""

    cut_us: int
    rows: RowArray
    labels: Labels
    seen_UN: Any
    index_N: BoolArray
    settings: EvaluationSettings

    @classmethod
    def at(cls, cut_us: int, histories: Histories, labels: Labels, settings: EvaluationSettings) -> "_Cut":
        conversions = read_conversions(
            histories,
            cut_us=cut_us,
            level=settings.level,
            num_candidates=settings.num_candidates,
            conversion_codes=settings.conversion_codes,
        )
        seen_UN = conversions.pair_sums().astype(bool)
        seen_UN.sort_indices()
        rows = np.flatnonzero(labels.cut_us == cut_us)
        return cls(cut_us, rows, labels, seen_UN, _draw_index(cut_us, settings), settings)

    def batches(self) -> "Iterator[_Batch]":
        size = self.settings.batch_size
        return (_Batch(self, self.rows[first : first + size]) for first in range(0, len(self.rows), size))


@dataclass(frozen=True, eq=False)
class _Batch:
    """Some rows of one cut, [B]."""

    cut: _Cut
    rows: RowArray

    @property
    def users(self) -> npt.NDArray[np.int32]:
        return self.cut.labels.user_index[self.rows]

    def read_scores(self, scorer: Scorer) -> Float32Array:
        score_BN = np.array(scorer.score_at(self.cut.cut_us, self.users), np.float32)
        expected = (len(self.rows), self.cut.settings.num_candidates)
        if score_BN.shape != expected:
            raise ValueError(f"a score for each user and candidate, {expected}, got {score_BN.shape}")
        score_BN[:, :FIRST_INDEX] = -np.inf
        return score_BN

    def list_best(self, score_BN: Float32Array, pool: str, reranker: Reranker | None) -> RankedLists:
        seen_BN = self.cut.seen_UN[self.users]
        if pool == "novel":
            score_BN = np.where(seen_BN.toarray(), np.float32(-np.inf), score_BN)

        def search(num: int) -> TopK:
            if pool == "repeat":
                return _rank_seen(score_BN, seen_BN, num)
            return TopK(*rank_top_k(score_BN, k=num))

        listed = choose_lists(search, reranker, top_k=self.cut.settings.top_k)
        return RankedLists(listed.candidate, listed.score)

    def index_recall(self, score_BN: Float32Array) -> npt.NDArray[np.float64]:
        """Returns the index recall at each of INDEX_K, [B, len(INDEX_K)]."""
        row, candidate = self._positives()
        is_relevant_BN = np.zeros(score_BN.shape, bool)
        is_relevant_BN[row, candidate] = True
        column = np.flatnonzero(self.cut.index_N | is_relevant_BN.any(axis=0))
        is_relevant_BM = is_relevant_BN[:, column]
        is_in_index_BM = self.cut.index_N[column] | is_relevant_BM
        score_BM = np.where(is_in_index_BM, score_BN[:, column], np.float32(-np.inf))
        return np.stack([index_recall_at_k(score_BM, is_relevant_BM, k=k) for k in INDEX_K], axis=1)

    def _positives(self) -> tuple[RowArray, npt.NDArray[np.int32]]:
        offsets = self.cut.labels.offsets
        size = offsets[self.rows + 1] - offsets[self.rows]
        place = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        at = np.repeat(offsets[self.rows], size) + place
        return np.repeat(np.arange(len(self.rows)), size), self.cut.labels.candidate[at]


def find_reranker(scorer: Scorer, cut_us: int) -> Reranker | None:
    """Returns what chooses the lists of a scorer at a cut; None where they are the best by score."""
    return scorer.reranker_at(cut_us) if isinstance(scorer, RerankingScorer) else None


def _rank_seen(score_BN: Float32Array, seen_BN: Any, top_k: int) -> TopK:
    """Ranks only the seen candidates: a few hundred columns in place of the catalogue."""
    size = np.diff(seen_BN.indptr)
    row = np.repeat(np.arange(len(size)), size)
    place = np.arange(len(row)) - np.repeat(seen_BN.indptr[:-1], size)
    score_BS = np.full((len(size), int(size.max(initial=0))), -np.inf, np.float32)
    candidate_BS = np.full(score_BS.shape, NO_CANDIDATE, np.int32)
    score_BS[row, place], candidate_BS[row, place] = score_BN[row, seen_BN.indices], seen_BN.indices
    place_BK, best_BK = rank_top_k(score_BS, k=top_k)
    if score_BS.shape[1] == 0:
        return TopK(place_BK, best_BK)
    listed_BK = np.take_along_axis(candidate_BS, np.maximum(place_BK, 0), axis=1)
    return TopK(np.where(place_BK >= 0, listed_BK, np.int32(NO_CANDIDATE)), best_BK)


def _draw_index(cut_us: int, settings: EvaluationSettings) -> BoolArray:
    generator = np.random.default_rng([settings.seed, abs(cut_us)])
    size = min(settings.index_size, settings.num_candidates - FIRST_INDEX)
    index_N = np.zeros(settings.num_candidates, bool)
    drawn = generator.choice(settings.num_candidates - FIRST_INDEX, size, replace=False)
    index_N[drawn + FIRST_INDEX] = True
    return index_N


def _name_lists(scorers: Iterable[Scorer]) -> dict[str, list[str]]:
    list_names: dict[str, list[str]] = {}
    for scorer in scorers:
        seeds = list_names.setdefault(scorer.name, [])
        seeds.append(f"{scorer.name}_seed{len(seeds)}" if seeds else scorer.name)
    return list_names


def _in_order(scorers: Iterable[Scorer], list_names: dict[str, list[str]]) -> list[str]:
    remaining = {name: iter(seeds) for name, seeds in list_names.items()}
    return [next(remaining[scorer.name]) for scorer in scorers]


def _empty_lists(shape: tuple[int, int]) -> RankedLists:
    return RankedLists(np.full(shape, NO_CANDIDATE, np.int32), np.full(shape, -np.inf, np.float32))


def _store(lists: RankedLists, rows: RowArray, ranked: RankedLists) -> None:
    lists.candidate[rows], lists.score[rows] = ranked.candidate, ranked.score


def _at_rows(lists: RankedLists, rows: RowArray) -> RankedLists:
    return RankedLists(lists.candidate[rows], lists.score[rows])
