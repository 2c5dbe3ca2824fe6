"""From a batch and a model to one loss: the full softmax, or a sampled one with the model's own pairs exact.

Takes a `TwoTower` and a `TowerBatch`; gives a scalar. In the sampled form the candidates of each row's own
history stand in its denominator with certainty, and are masked in the shared pool: their logits are the
largest, so an estimate that drew them by chance would be all variance (docs/adr/0005).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from forecart.model.blocked_softmax import blocked_softmax_loss
from forecart.model.losses import (
    OwnNegatives,
    Positives,
    SharedNegatives,
    full_softmax_loss,
    sampled_softmax_loss,
)
from forecart.model.negatives import (
    CountMinSketch,
    DrawnNegatives,
    InBatchNegatives,
    LogProb,
    MixedNegatives,
    Negatives,
    RowCandidates,
    SampledNegatives,
    count_in_pool,
    log_q_from_counts,
    mask_accidental_hits,
    mask_pairs,
)
from forecart.model.sparse_shares import SparseShares
from forecart.model.tensors import TowerBatch
from forecart.model.two_tower import TwoTower
from forecart.sequences.vocabulary import FIRST_INDEX
from forecart.training.settings import LossSettings


@dataclass(frozen=True)
class Objective:
    """The loss of a batch.

    Attributes:
        settings: which loss, and how its negatives are weighed.
        negatives: where the pool of a sampled loss comes from; unused by the full softmax.
    """

    settings: LossSettings
    negatives: Negatives

    @classmethod
    def build(
        cls,
        settings: LossSettings,
        positive: npt.NDArray[np.int32],
        num_candidates: int,
        *,
        is_sparse: bool = False,
    ) -> "Objective":
        """Returns the objective for a training set.

        Args:
            settings: which loss.
            positive: [P] the positives of the whole training set: they say the in-batch q, and how often the
                sampled stream draws them.
            num_candidates: N.
            is_sparse: keep of the distributions what differs, instead of a number for each candidate.
        """
        shares = _sparse_shares if is_sparse else _dense_shares
        in_batch_prob, sampled_prob = shares(settings, positive, num_candidates)
        in_batch = InBatchNegatives(in_batch_prob)
        sampled = SampledNegatives(sampled_prob, settings.num_negatives)
        streams: dict[str, Negatives] = {
            "in_batch": in_batch,
            "sampled": sampled,
            "mixed": MixedNegatives(in_batch, sampled),
        }
        return cls(settings, streams[settings.negatives])

    def __call__(self, model: TwoTower, batch: TowerBatch, *, generator: torch.Generator) -> Tensor:
        """Return the loss, a scalar; `generator` draws the negatives."""
        if self.settings.kind == "full":
            return self._full(model, batch)
        return self._sampled(model, batch, generator)

    def _weights(self, batch: TowerBatch) -> Tensor:
        if self.settings.row_weighting == "positive":
            return batch.weight_P
        total_B = batch.weight_P.new_zeros(batch.num_rows).index_add(0, batch.positive_row_P, batch.weight_P)
        return batch.weight_P / total_B[batch.positive_row_P]

    def _masked_future(self, batch: TowerBatch) -> RowCandidates:
        """What is neither positive nor negative: what a cap left out, and the own future if asked for."""
        is_masked_H = batch.is_in_window_H | self.settings.mask_own_future
        return RowCandidates(batch.future_row_H[is_masked_H], batch.future_H[is_masked_H])

    def _full(self, model: TwoTower, batch: TowerBatch) -> Tensor:
        future = self._masked_future(batch)
        if _has_one_positive_a_row(batch) and not len(batch.own_row_M) and not len(future.row_M):
            return self._full_in_blocks(model, batch)
        num = model.num_candidates
        masked_BN = (torch.arange(num, device=batch.offsets.device) < FIRST_INDEX)[None]
        if len(future.row_M):
            masked_BN = masked_BN.repeat(batch.num_rows, 1)
            masked_BN[future.row_M, future.index_M] = True
        return full_softmax_loss(
            model(batch),
            positive_row_P=batch.positive_row_P,
            positive_column_P=batch.positive_P,
            weight_P=self._weights(batch),
            masked_BN=masked_BN,
        )

    def _full_in_blocks(self, model: TwoTower, batch: TowerBatch) -> Tensor:
        """The same loss for rows of one positive and without own pairs."""
        bias_N = model.prior_logit(batch.log_share_NS)
        bias_N = bias_N.masked_fill(torch.arange(len(bias_N), device=bias_N.device) < FIRST_INDEX, -math.inf)
        user_BD = model.encode_users(batch) / model.temperature()
        return blocked_softmax_loss(
            user_BD,
            candidate_ND=model.encode_candidates(),
            bias_N=bias_N,
            target_B=batch.positive_P,
            weight_B=self._weights(batch),
        )

    def draw(self, positive_P: Tensor, *, generator: torch.Generator) -> DrawnNegatives:
        """Return the negatives of a sampled loss for a batch with these positives."""
        pool = self.negatives.draw(positive_P, generator=generator)
        return DrawnNegatives(pool, self.negatives.log_q(positive_P, num_positives=len(positive_P)))

    def _sampled(self, model: TwoTower, batch: TowerBatch, generator: torch.Generator) -> Tensor:
        rows = batch.rows
        drawn = self.draw(batch.positive_P, generator=generator) if rows is None else rows.drawn
        pool = drawn.pool
        logits = _SampledLogits.of(model, batch, pool.index_N)
        own = RowCandidates(batch.own_row_M, batch.own_candidate_M)
        positives = RowCandidates(batch.positive_row_P, batch.positive_P)
        never_negative = [positives, self._masked_future(batch)]
        return sampled_softmax_loss(
            Positives(
                logits.positive_P,
                batch.positive_row_P,
                weight_P=self._weights(batch),
                log_q_P=drawn.log_q_P,
                count_P=count_in_pool(pool.index_N, batch.positive_P),
            ),
            shared=[
                SharedNegatives(
                    logits.pool_BN,
                    pool.log_q_N,
                    masked_BN=mask_accidental_hits(
                        pool.index_N, *never_negative, own, num_rows=batch.num_rows
                    ),
                )
            ],
            own=OwnNegatives(
                logits.own_M,
                batch.own_row_M,
                masked_M=mask_pairs(own, *never_negative, num_candidates=batch.num_candidates),
            ),
            alpha_pos=self.settings.alpha_pos,
            alpha_neg=self.settings.alpha_neg,
            form=self.settings.form,
        )


@dataclass(frozen=True)
class _SampledLogits:
    """The logits that a sampled loss reads.

    Attributes:
        pool_BN: of the pool's candidates, without the own-history term.
        own_M: of the own pairs, with it.
        positive_P: of the positives, with it where the positive is an own pair.
    """

    pool_BN: Tensor
    own_M: Tensor
    positive_P: Tensor

    @classmethod
    def of(cls, model: TwoTower, batch: TowerBatch, pool_N: Tensor) -> "_SampledLogits":
        """Return the logits; each candidate that is needed is encoded once."""
        wanted = [pool_N, batch.positive_P]
        if model.needs_own_vectors:
            wanted.append(batch.own_candidate_M)
        is_wanted_V = torch.zeros(batch.num_candidates, dtype=torch.bool, device=pool_N.device)
        is_wanted_V[torch.cat(wanted)] = True
        place_V = is_wanted_V.cumsum(0) - 1
        vector_UD = model.encode_candidates(is_wanted_V.nonzero()[:, 0], batch.rows)
        user_BD, prior_V = model.encode_users(batch), model.prior_logit(batch.log_share_NS)

        def tower_logits(row_M: Tensor, candidate_M: Tensor) -> Tensor:
            return model.pair_logits(user_BD, row_M, F.embedding(place_V[candidate_M], vector_UD))

        pool_BN = user_BD @ F.embedding(place_V[pool_N], vector_UD).T / model.temperature()
        if model.needs_own_vectors:
            own_M = tower_logits(batch.own_row_M, batch.own_candidate_M)
        else:
            own_M = torch.zeros(len(batch.own_row_M), device=pool_N.device)
        own_M = own_M + model.own_logit(batch, own_M) + prior_V.index_select(0, batch.own_candidate_M)
        positive_P = tower_logits(batch.positive_row_P, batch.positive_P) + prior_V.index_select(
            0, batch.positive_P
        )
        positive_P = _with_own_term(positive_P, own_M, batch)
        return cls(pool_BN + prior_V.index_select(0, pool_N), own_M, positive_P)


def _has_one_positive_a_row(batch: TowerBatch) -> bool:
    row_B = torch.arange(batch.num_rows, device=batch.offsets.device)
    return torch.equal(batch.positive_row_P, row_B)


def _with_own_term(logit_P: Tensor, own_M: Tensor, batch: TowerBatch) -> Tensor:
    """Return [P]: the logit of the own pair where the positive is one."""
    if len(own_M) == 0:
        return logit_P
    # Own pairs ascend by (row, candidate), so a positive is found by bisection.
    key_M = batch.own_row_M * batch.num_candidates + batch.own_candidate_M
    key_P = batch.positive_row_P * batch.num_candidates + batch.positive_P
    place_P = torch.searchsorted(key_M, key_P).clamp(max=len(key_M) - 1)
    return torch.where(key_M[place_P] == key_P, own_M[place_P], logit_P)


def _dense_shares(
    settings: LossSettings, positive: npt.NDArray[np.int32], num_candidates: int
) -> tuple[LogProb, LogProb]:
    """Log probabilities of one positive and of one draw, a number for each candidate."""
    in_batch_V = log_q_from_counts(_count(settings, positive, np.arange(num_candidates)), min_count=1)
    if not settings.sampled_power:
        uniform = SampledNegatives.uniform(num_candidates, num_negatives=1, first=FIRST_INDEX)
        return in_batch_V, uniform.log_prob_V
    return in_batch_V, _counted(settings, positive, num_candidates).log_prob(
        torch.arange(num_candidates)
    ).float()


def _sparse_shares(
    settings: LossSettings, positive: npt.NDArray[np.int32], num_candidates: int
) -> tuple[LogProb, LogProb]:
    """The same, told by the candidates that are a positive; any other counts as one positive."""
    seen = np.unique(positive).astype(np.int64)
    count_S = _count(settings, positive, seen).double()
    in_batch = SparseShares(
        torch.from_numpy(seen),
        (count_S / len(positive)).log(),
        -math.log(len(positive)),
        num_candidates,
        first=0,
    )
    return in_batch, _counted(settings, positive, num_candidates)


def _counted(settings: LossSettings, positive: npt.NDArray[np.int32], num_candidates: int) -> SparseShares:
    seen, count = np.unique(positive, return_counts=True)
    return SparseShares.from_counts(
        torch.from_numpy(seen.astype(np.int64)),
        torch.from_numpy(count),
        num_candidates=num_candidates,
        power=settings.sampled_power,
        first=FIRST_INDEX,
    )


def _count(
    settings: LossSettings, positive: npt.NDArray[np.int32], candidate: npt.NDArray[np.int64]
) -> Tensor:
    """How often each of the ascending `candidate`, which hold all positives, is one."""
    if settings.q_estimator == "exact":
        count = np.bincount(np.searchsorted(candidate, positive), minlength=len(candidate))
        return torch.from_numpy(count)
    sketch = CountMinSketch(width=1 << 16, depth=4)
    sketch.add(positive.astype(np.int64))
    return torch.from_numpy(sketch.estimate(candidate))
