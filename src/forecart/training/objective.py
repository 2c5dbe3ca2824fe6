"""From a batch and a model to one loss: the full softmax, or a sampled one with the model's own pairs exact.

Takes a `TwoTower` and a `TowerBatch`; gives a scalar. In the sampled form the candidates of each row's own
history stand in its denominator with certainty, and are masked in the shared pool: their logits are the
largest, so an estimate that drew them by chance would be all variance (docs/adr/0005).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from forecart.model.losses import (
    OwnNegatives,
    Positives,
    SharedNegatives,
    full_softmax_loss,
    sampled_softmax_loss,
)
from forecart.model.negatives import (
    CountMinSketch,
    InBatchNegatives,
    MixedNegatives,
    Negatives,
    RowCandidates,
    SampledNegatives,
    count_in_pool,
    log_q_from_counts,
    mask_accidental_hits,
    mask_pairs,
)
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
        cls, settings: LossSettings, positive: npt.NDArray[np.int32], num_candidates: int
    ) -> "Objective":
        """Returns the objective for a training set.

        Args:
            settings: which loss.
            positive: [P] the positives of the whole training set, for the in-batch q.
            num_candidates: N.
        """
        in_batch = InBatchNegatives(
            log_q_from_counts(_count(settings, positive, num_candidates), min_count=1)
        )
        sampled = SampledNegatives.uniform(
            num_candidates, num_negatives=settings.num_negatives, first=FIRST_INDEX
        )
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

    def _full(self, model: TwoTower, batch: TowerBatch) -> Tensor:
        num = model.num_candidates
        masked_BN = (torch.arange(num, device=batch.offsets.device) < FIRST_INDEX)[None]
        if self.settings.mask_own_future:
            masked_BN = masked_BN.repeat(batch.num_rows, 1)
            masked_BN[batch.future_row_H, batch.future_H] = True
        return full_softmax_loss(
            model(batch),
            positive_row_P=batch.positive_row_P,
            positive_column_P=batch.positive_P,
            weight_P=self._weights(batch),
            masked_BN=masked_BN,
        )

    def _sampled(self, model: TwoTower, batch: TowerBatch, generator: torch.Generator) -> Tensor:
        pool = self.negatives.draw(batch.positive_P, generator=generator)
        user_BD = model.encode_users(batch)
        prior_N = model.prior_logit(batch.log_share_NS)
        logit_BN = user_BD @ model.encode_candidates(pool.index_N).T / model.temperature()
        positives = RowCandidates(batch.positive_row_P, batch.positive_P)
        own = RowCandidates(batch.own_row_M, batch.own_candidate_M)
        out = [positives]
        if self.settings.mask_own_future:
            out.append(RowCandidates(batch.future_row_H, batch.future_H))
        shared = SharedNegatives(
            logit_BN + prior_N[pool.index_N],
            pool.log_q_N,
            masked_BN=mask_accidental_hits(pool.index_N, *out, own, num_rows=batch.num_rows),
        )
        tower_M = model.own_tower_logits(batch, user_BD)
        own_M = tower_M + model.own_logit(batch, tower_M) + prior_N[batch.own_candidate_M]
        is_masked_M = mask_pairs(own, *out, num_candidates=model.num_candidates)
        return sampled_softmax_loss(
            Positives(
                _positive_logits(model, batch, user_BD, own_M),
                batch.positive_row_P,
                weight_P=self._weights(batch),
                log_q_P=self.negatives.log_q(batch.positive_P, num_positives=len(batch.positive_P)),
                count_P=count_in_pool(pool.index_N, batch.positive_P),
            ),
            shared=[shared],
            own=OwnNegatives(own_M, batch.own_row_M, masked_M=is_masked_M),
            alpha_pos=self.settings.alpha_pos,
            alpha_neg=self.settings.alpha_neg,
            form=self.settings.form,
        )


def _positive_logits(model: TwoTower, batch: TowerBatch, user_BD: Tensor, own_M: Tensor) -> Tensor:
    """Return [P]: the logit of the own pair where the positive is one, else tower and prior."""
    distinct_U, inverse_P = torch.unique(batch.positive_P, return_inverse=True)
    vector_PD = model.encode_candidates(distinct_U)[inverse_P]
    logit_P = model.pair_logits(user_BD, batch.positive_row_P, vector_PD)
    logit_P = logit_P + model.prior_logit(batch.log_share_NS)[batch.positive_P]
    if len(own_M) == 0:
        return logit_P
    # Own pairs ascend by (row, candidate), so a positive is found by bisection.
    key_M = batch.own_row_M * model.num_candidates + batch.own_candidate_M
    key_P = batch.positive_row_P * model.num_candidates + batch.positive_P
    place_P = torch.searchsorted(key_M, key_P).clamp(max=len(key_M) - 1)
    return torch.where(key_M[place_P] == key_P, own_M[place_P], logit_P)


def _count(settings: LossSettings, positive: npt.NDArray[np.int32], num_candidates: int) -> Tensor:
    if settings.q_estimator == "exact":
        return torch.from_numpy(np.bincount(positive, minlength=num_candidates))
    sketch = CountMinSketch(width=1 << 16, depth=4)
    sketch.add(positive.astype(np.int64))
    return torch.from_numpy(sketch.estimate(np.arange(num_candidates)))
