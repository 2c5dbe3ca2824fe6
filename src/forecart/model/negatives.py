"""Where negatives come from: pools of candidates with their own log q, the estimators of q, and the masks.

A sampler gives a pool that the whole batch shares; masks say which entries of it must not count for a row.
The decision worth knowing: pools are sets by default. A candidate stands in a pool at most once and its log q
is the log of its probability to be there, 1 - prod_s (1 - q_s)^n_s; that spends no logit on duplicates, has
less variance, and comes to the full softmax itself when the pool grows to hold everything.

Shapes: B rows, P positives of all rows, N pool, V vocabulary (candidate indices), M pairs (row, candidate).
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forecart.model.sparse_shares import SparseShares

LogProb = Tensor | SparseShares
"""Log probability of each candidate in one draw: a table [V], or of a large catalogue what differs."""


@dataclass(frozen=True)
class CandidatePool:
    """Candidates that every row of a batch is scored against.

    Attributes:
        index_N: int64 candidate indices; sorted and distinct when the sampler makes sets.
        log_q_N: float32, log expected count of each entry in this pool.
    """

    index_N: Tensor
    log_q_N: Tensor


@dataclass(frozen=True)
class DrawnNegatives:
    """What a sampled loss needs of the draw for one batch.

    Attributes:
        pool: the negatives.
        log_q_P: log expected count of each positive of the batch in such a pool.
    """

    pool: CandidatePool
    log_q_P: Tensor


@dataclass(frozen=True)
class RowCandidates:
    """Pairs (row, candidate), in any order: a ragged set of candidates for each row.

    Attributes:
        row_M: int64 row of each pair.
        index_M: int64 candidate index of each pair.
    """

    row_M: Tensor
    index_M: Tensor


class Negatives(Protocol):
    """What the samplers share: a pool for a batch, and the log q that any candidate has in it."""

    def draw(self, positive_P: Tensor, *, generator: torch.Generator | None = None) -> CandidatePool:
        """Return the pool for a batch whose positives are `positive_P` (candidate indices)."""
        ...

    def log_q(self, index: Tensor, *, num_positives: int) -> Tensor:
        """Return log expected counts of candidates in a pool drawn for `num_positives` positives."""
        ...


@dataclass(frozen=True)
class InBatchNegatives:
    """The positives of the batch, each a negative for the other rows. Free, but as skewed as popularity.

    Attributes:
        log_prob_V: log share of each candidate among the positives of the **training set**
            (`log_q_from_counts`), never of the batch: counted inside a batch it is biased.
        is_set: drop duplicates (see the module's docstring).
    """

    log_prob_V: LogProb
    is_set: bool = True

    def draw(self, positive_P: Tensor, *, generator: torch.Generator | None = None) -> CandidatePool:
        """Return the batch's positives as a pool; draws nothing, so `generator` is not used."""
        return _pool(self, positive_P, len(positive_P))

    def log_q(self, index: Tensor, *, num_positives: int) -> Tensor:
        """Return log expected counts of `index` among `num_positives` draws of positives."""
        return _log_expected(self.is_set, (_at(self.log_prob_V, index), num_positives))


@dataclass(frozen=True)
class SampledNegatives:
    """Candidates drawn with replacement from a fixed distribution, the same for every row.

    Attributes:
        log_prob_V: log probability of each candidate; -inf for what is never drawn (padding, unknown).
        num_negatives: draws for a batch.
        is_set: drop duplicates (see the module's docstring).
    """

    log_prob_V: LogProb
    num_negatives: int
    is_set: bool = True
    _cumulative_V: Tensor = field(init=False, repr=False)

    @classmethod
    def uniform(cls, num_candidates: int, *, num_negatives: int, first: int = 2) -> "SampledNegatives":
        """Draw every index in [first, num_candidates) equally often; first = 2 skips padding and unknown."""
        log_prob_V = torch.full((num_candidates,), -torch.inf)
        log_prob_V[first:] = -float(np.log(num_candidates - first))
        return cls(log_prob_V, num_negatives)

    def __post_init__(self) -> None:
        if isinstance(self.log_prob_V, Tensor):
            # In float64: 10^7 probabilities do not add up in float32.
            object.__setattr__(self, "_cumulative_V", self.log_prob_V.double().exp().cumsum(0))

    def draw(self, positive_P: Tensor, *, generator: torch.Generator | None = None) -> CandidatePool:
        """Return a pool of `num_negatives` draws; of `positive_P` only the device matters."""
        return _pool(self, self.sample(generator).to(positive_P.device), len(positive_P))

    def log_q(self, index: Tensor, *, num_positives: int) -> Tensor:
        """Return log expected counts of `index` among this sampler's draws; `num_positives` is not used."""
        return _log_expected(self.is_set, (_at(self.log_prob_V, index), self.num_negatives))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Return int64 [num_negatives] draws with replacement; the same generator state, the same draws."""
        if isinstance(self.log_prob_V, SparseShares):
            return self.log_prob_V.sample(self.num_negatives, generator)
        cumulative_V = self._cumulative_V
        device = cumulative_V.device if generator is None else generator.device
        uniform_N = torch.rand(self.num_negatives, dtype=torch.float64, generator=generator, device=device)
        point_N = uniform_N.to(cumulative_V.device) * cumulative_V[-1]
        return torch.searchsorted(cumulative_V, point_N, right=True).clamp_(max=len(cumulative_V) - 1)


@dataclass(frozen=True)
class MixedNegatives:
    """In-batch and sampled negatives in one pool, under the q of the mixture.

    One denominator, one q: an entry's expected count is the sum over both streams, whichever it came from.
    To keep the streams apart instead, draw two pools and give `SharedNegatives` shares that sum to one.
    """

    in_batch: InBatchNegatives
    sampled: SampledNegatives

    @property
    def is_set(self) -> bool:
        """Whether duplicates are dropped; the in-batch stream says."""
        return self.in_batch.is_set

    def draw(self, positive_P: Tensor, *, generator: torch.Generator | None = None) -> CandidatePool:
        """Return both streams' candidates as one pool."""
        sampled_N = self.sampled.sample(generator).to(positive_P.device)
        return _pool(self, torch.cat([positive_P, sampled_N]), len(positive_P))

    def log_q(self, index: Tensor, *, num_positives: int) -> Tensor:
        """Return log expected counts of `index` over both streams together."""
        in_batch = (_at(self.in_batch.log_prob_V, index), num_positives)
        return _log_expected(
            self.is_set, in_batch, (_at(self.sampled.log_prob_V, index), self.sampled.num_negatives)
        )


def mixture_log_q(*streams: tuple[Tensor, float]) -> Tensor:
    """log sum_s n_s q_s: log expected count when streams of n_s draws each share one denominator.

    Args:
        streams: pairs (log probability of one draw [N], number of draws).
    """
    log_count_SN = torch.stack([log_prob_N + _log(count) for log_prob_N, count in streams])
    return torch.logsumexp(log_count_SN, dim=0)


def log_inclusion(*streams: tuple[Tensor, float]) -> Tensor:
    """log(1 - prod_s (1 - q_s)^n_s): log probability to be drawn at least once by streams of n_s draws each.

    Args:
        streams: pairs (log probability of one draw [N], number of draws).
    """
    # In float64: 1 - (1 - q)^n of a rare candidate is all cancellation in float32.
    log_missed_N = torch.stack([n * torch.log1p(-p.double().exp()) for p, n in streams]).sum(0)
    return torch.log(-torch.expm1(log_missed_N)).to(streams[0][0].dtype)


def log_q_from_counts(count_V: Tensor, *, min_count: float = 0.0) -> Tensor:
    """log of each candidate's share of all counts, float32 [V]: the exact estimator of one draw's q.

    Args:
        count_V: how often each candidate is a positive of the training set; or a sketch's estimates.
        min_count: counts below are raised to it after the total is taken, so a candidate that was never
            counted keeps a finite log q; with 0 it gets -inf (never drawn).
    """
    count_V = count_V.double()
    return (count_V.clamp(min=min_count).log() - count_V.sum().log()).float()


class CountMinSketch:
    """Counts of int64 keys in fixed memory: never too low, too high by at most about total * e / width.

    For vocabularies whose exact counts do not fit. Seeded multiply-shift hashes; the same seed and the same
    additions give the same counts on every machine.

    Args:
        width: counters per hash, a power of two.
        depth: number of hashes; an estimate is too high by more than the bound with probability e^-depth.
        seed: of the hash multipliers.
        is_conservative: raise only the counters that hold a key's minimum. Closer, but sketches of parts of
            the data then no longer add up to the sketch of the whole.
    """

    def __init__(
        self, *, width: int = 1 << 16, depth: int = 4, seed: int = 0, is_conservative: bool = False
    ) -> None:
        if width < 2 or width & (width - 1):
            raise ValueError(f"the width of a sketch must be a power of two, at least 2; it is {width}")
        self.is_conservative = is_conservative
        self.counters = np.zeros((depth, width), dtype=np.float64)
        self._shift = np.uint64(64 - (width.bit_length() - 1))
        self._multipliers = np.random.default_rng(seed).integers(1, 2**63, size=(2, depth), dtype=np.uint64)

    def add(self, keys: NDArray[np.int64]) -> None:
        """Count each key once per occurrence."""
        distinct, counts = np.unique(keys, return_counts=True)
        slots = self._slots(distinct)
        if self.is_conservative:
            self._raise_minimum(slots, self.estimate(distinct) + counts)
            return
        for row, slot in zip(self.counters, slots, strict=True):
            np.add.at(row, slot, counts)

    def estimate(self, keys: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the estimated count of each key: at least the true one."""
        slots = self._slots(keys)
        lowest: NDArray[np.float64] = np.take_along_axis(self.counters, slots, axis=1).min(axis=0)
        return lowest

    def _raise_minimum(self, slots: NDArray[np.int64], target: NDArray[np.float64]) -> None:
        for row, slot in zip(self.counters, slots, strict=True):
            np.maximum.at(row, slot, target)

    def _slots(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return [depth, keys] slots: the top bits of (key mixed) * an odd multiplier."""
        key = keys.astype(np.uint64)
        key = (key ^ (key >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
        odd, offset = self._multipliers[0] | np.uint64(1), self._multipliers[1]
        mixed: NDArray[np.uint64] = key[None] * odd[:, None] + offset[:, None]
        return (mixed >> self._shift).astype(np.int64)


def mask_accidental_hits(pool_N: Tensor, *sets: RowCandidates, num_rows: int) -> Tensor:
    """Bool [B, N], True where a pool entry stands in any of the row's sets: the union of them.

    Sets to give: the row's positives (all of them, of every cut of the same user), the user's own future, and
    what `OwnNegatives` includes exactly. Pairs may repeat; a pair that is not in the pool masks nothing.
    Costs a sort of the pool and a search per pair, never rows x pool x pairs.

    Args:
        pool_N: candidate indices, in any order, duplicates allowed (all of them are masked).
        sets: ragged sets of candidates per row.
        num_rows: B.
    """
    masked_BN = torch.zeros(num_rows, len(pool_N), dtype=torch.bool, device=pool_N.device)
    sorted_N, order_N = torch.sort(pool_N)
    for pairs in sets:
        first_M, count_M = _occurrences(sorted_N, pairs.index_M)
        row_H = pairs.row_M.repeat_interleave(count_M)
        # Hit h of pair m is the pool entry first_m + (h - hits of earlier pairs).
        start_H = (first_M - (count_M.cumsum(0) - count_M)).repeat_interleave(count_M)
        column_H = order_N[start_H + torch.arange(len(row_H), device=pool_N.device)]
        masked_BN[row_H, column_H] = True
    return masked_BN


def mask_pairs(pairs: RowCandidates, *sets: RowCandidates, num_candidates: int) -> Tensor:
    """Bool [M], True where a pair stands in any of the sets: for `OwnNegatives.masked_M`.

    Args:
        pairs: for example each row's own history.
        sets: for example each row's positives and own future.
        num_candidates: V, above every candidate index.
    """
    key_M = pairs.row_M * num_candidates + pairs.index_M
    keys = [other.row_M * num_candidates + other.index_M for other in sets]
    return torch.isin(key_M, torch.cat(keys)) if keys else torch.zeros_like(key_M, dtype=torch.bool)


def count_in_pool(pool_N: Tensor, index_P: Tensor) -> Tensor:
    """How often each candidate stands in the pool, int64 [P], at least 1: for `Positives.count_P`."""
    return _occurrences(torch.sort(pool_N).values, index_P)[1].clamp_(min=1)


def _occurrences(sorted_N: Tensor, index_M: Tensor) -> tuple[Tensor, Tensor]:
    """First position and number of occurrences of each index in a sorted pool."""
    first_M = torch.searchsorted(sorted_N, index_M)
    return first_M, torch.searchsorted(sorted_N, index_M, right=True) - first_M


def _pool(
    source: InBatchNegatives | SampledNegatives | MixedNegatives, index_N: Tensor, num: int
) -> CandidatePool:
    index_N = torch.unique(index_N) if source.is_set else index_N
    return CandidatePool(index_N, source.log_q(index_N, num_positives=num).float())


def _log_expected(is_set: bool, *streams: tuple[Tensor, float]) -> Tensor:
    return log_inclusion(*streams) if is_set else mixture_log_q(*streams)


def _log(value: float) -> float:
    return float(np.log(value)) if value > 0 else -float("inf")


def _at(log_prob_V: LogProb, index: Tensor) -> Tensor:
    if isinstance(log_prob_V, SparseShares):
        return log_prob_V.log_prob(index)
    # The table of a large vocabulary stays where it was built; only what is asked for goes to the device.
    return log_prob_V[index.to(log_prob_V.device)].to(index.device)
