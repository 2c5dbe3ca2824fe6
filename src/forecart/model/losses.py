"""Softmax losses over candidates: full, and sampled with a log q per stream of negatives.

Takes logits that a model has computed and gives one scalar; knows no model, no batch and no file.
The decision worth knowing: a log q here is the log of the **expected number of times** a candidate stands in
the pool, not of a draw probability, so exp(logit - log q) summed over a pool estimates without bias the sum
of exp(logit) over all candidates, and a candidate that is always there once has log q = 0.

Shapes: B rows (user, cut), P positives of all rows, N pool, M own negatives of all rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Form = Literal["standard", "corrected"]


@dataclass(frozen=True)
class Positives:
    """The positives of a batch, flattened; a row may have none, one or many.

    Attributes:
        logit_P: score / temperature of each positive.
        row_P: int64, the row of each positive, in any order.
        weight_P: weight of each positive's cross entropy, 1 each when None.
        log_q_P: log expected count of the positive's candidate in the pool; read only when `alpha_pos` > 0.
        count_P: how often the candidate does stand in the pool (`count_in_pool`), at least 1; 1 when None.
    """

    logit_P: Tensor
    row_P: Tensor
    weight_P: Tensor | None = None
    log_q_P: Tensor | None = None
    count_P: Tensor | None = None


@dataclass(frozen=True)
class SharedNegatives:
    """One stream of negatives that every row of the batch shares.

    Attributes:
        logit_BN: score / temperature of each row with each pool entry.
        log_q_N: log expected count of each pool entry **in this stream's pool** (`CandidatePool.log_q_N`).
        masked_BN: bool, True where an entry must not count for a row; its softmax weight is exactly 0.
        share: this stream's part of the denominator; the shares of all streams sum to one.
    """

    logit_BN: Tensor
    log_q_N: Tensor
    masked_BN: Tensor | None = None
    share: float = 1.0


@dataclass(frozen=True)
class OwnNegatives:
    """Negatives of single rows that are included always (probability 1), so they carry no log q.

    Whatever stands here must be masked for that row in every shared stream, or it counts twice.

    Attributes:
        logit_M: score / temperature of each pair (row, candidate).
        row_M: int64, the row of each pair, in any order.
        masked_M: bool, True where the pair must not count (a positive of the same row).
    """

    logit_M: Tensor
    row_M: Tensor
    masked_M: Tensor | None = None


def full_softmax_loss(
    logit_BN: Tensor,
    *,
    positive_row_P: Tensor,
    positive_column_P: Tensor,
    weight_P: Tensor | None = None,
    masked_BN: Tensor | None = None,
    mask_other_positives: bool = True,
) -> Tensor:
    """Weighted mean over positives of -log softmax(logit)[positive], the denominator over all candidates.

    With `mask_other_positives` each positive competes with the candidates that are no positive of its row:
    loss_p = log(exp f_p + sum_{j not positive} exp f_j) - f_p, one pass over [B, N] however many positives a
    row has. Without it loss_p = log(sum_j exp f_j) - f_p. No positives at all: 0.

    Args:
        logit_BN: score / temperature over every candidate; finite, or masked.
        positive_row_P: int64 row of each positive.
        positive_column_P: int64 column of each positive.
        weight_P: non-negative weights, 1 each when None.
        masked_BN: bool, [B, N] or broadcastable to it: columns that are no candidates, future conversions.
            A positive that is masked too still counts as a positive.
        mask_other_positives: whether a row's other positives leave the denominator.

    Returns:
        A scalar in float32 or wider.
    """
    logit_BN = _widen(logit_BN)
    logit_P = logit_BN[positive_row_P, positive_column_P]
    positive_BN = torch.zeros_like(logit_BN, dtype=torch.bool)
    positive_BN[positive_row_P, positive_column_P] = True
    if mask_other_positives:
        out_BN = positive_BN if masked_BN is None else positive_BN | masked_BN
        rest_P = _masked_logsumexp(logit_BN, out_BN).index_select(0, positive_row_P)
        return _weighted_mean(torch.logaddexp(rest_P, logit_P) - logit_P, weight_P)
    kept_BN = None if masked_BN is None else masked_BN & ~positive_BN
    all_P = _masked_logsumexp(logit_BN, kept_BN).index_select(0, positive_row_P)
    return _weighted_mean(all_P - logit_P, weight_P)


def sampled_softmax_loss(
    positives: Positives,
    *,
    shared: Sequence[SharedNegatives],
    own: OwnNegatives | None = None,
    alpha_pos: float = 0.0,
    alpha_neg: float = 1.0,
    form: Form = "standard",
) -> Tensor:
    """Weighted mean over positives of a softmax cross entropy against sampled negatives.

    With Z_b = sum over streams s of share_s * sum_n exp(f_bn - alpha_neg log q_s(n)), without masked entries,
    plus sum_m exp(f_bm) over the row's own negatives, and p a positive of row b with logit f_p:

    * `standard`: loss_p = log(exp g_p + Z_b) - g_p, g_p = f_p - alpha_pos (log q_p - log count_p).
    * `corrected`: loss_p = sg(1 - P_p) (log Z_b - f_p), P_p = exp f_p / (exp f_p + Z_b), sg = no gradient.
      The positive was not sampled, so it is neither corrected nor in the denominator; `alpha_pos` is unused.

    What converges to `full_softmax_loss` as the pools grow, at alpha_neg 1 and with each row's positives
    masked in every pool:

    | form, alpha_pos | gradient | value |
    |---|---|---|
    | standard, 0 | yes | yes |
    | standard, 1, `count_P` given or the pools are sets | yes | yes |
    | standard, 1, `count_P` None and the pools hold duplicates | too long by 1 / (1 - P_p) | no |
    | corrected | yes: equal to that of `standard, 0` at any size | no: a surrogate |

    The third line is the bias that the `corrected` paper found in the textbook logQ. Other alphas are tuning
    knobs, not estimators. A q that is the same for all is a no-op when the alphas are equal, `count_P` None.
    Several streams: one pool with the mixture q (`MixedNegatives`), or streams whose shares sum to one.

    Args:
        positives: flattened positives; P may be 0, which gives a loss of 0.
        shared: at least one stream; a pool may be empty.
        own: negatives of single rows, included with probability 1.
        alpha_pos: strength of the positives' correction, in [0, 1].
        alpha_neg: strength of the shared negatives' correction, in [0, 1].
        form: see above.

    Returns:
        A scalar in float32 or wider.

    Raises:
        ValueError: no stream, shares that do not sum to one, or `alpha_pos` without `log_q_P`.

    Source:
        Bengio and Senecal 2008 (importance sampling); Yi et al., RecSys 2019 (in-batch logQ); Khrylchenko et
        al., "Correcting the LogQ Correction", RecSys 2025 (`corrected`).
    """
    _check_shares(shared)
    negative_B = _negative_logsumexp(shared, own, alpha_neg)
    logit_P = _widen(positives.logit_P)
    negative_P = negative_B.index_select(0, positives.row_P)
    if form == "corrected":
        uncertainty_P = torch.sigmoid(negative_P - logit_P).detach()
        return _weighted_mean(uncertainty_P * (negative_P - logit_P), positives.weight_P)
    logit_P = _correct_positive(positives, logit_P, alpha_pos)
    return _weighted_mean(torch.logaddexp(negative_P, logit_P) - logit_P, positives.weight_P)


def apply_logq_correction(logit: Tensor, log_q: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Logits minus alpha * log q: what a pool holds often counts less per occurrence.

    Corrects what it is given and nothing else. `sampled_softmax_loss` calls it for the shared negatives with
    the q of their own stream and, only when `alpha_pos` > 0, for the positive with that positive's q.

    Args:
        logit: [..., N] score / temperature.
        log_q: [N] or broadcastable: log expected count of each entry in the pool.
        alpha: strength; 0 leaves the logits, 1 makes the pool's sum of exponentials unbiased.
    """
    return logit if alpha == 0 else logit - alpha * log_q.to(logit.dtype)


def segment_logsumexp(value_M: Tensor, row_M: Tensor, *, num_rows: int) -> Tensor:
    """log sum exp of the values of each row, [B]; a row without values gets the lowest finite number."""
    lowest = torch.finfo(value_M.dtype).min
    top_B = value_M.new_full((num_rows,), lowest).scatter_reduce(0, row_M, value_M.detach(), "amax")
    sum_B = value_M.new_zeros(num_rows).index_add(0, row_M, torch.exp(value_M - top_B[row_M]))
    is_empty_B = sum_B == 0
    return torch.where(is_empty_B, lowest, torch.log(sum_B.masked_fill(is_empty_B, 1.0)) + top_B)


def _negative_logsumexp(shared: Sequence[SharedNegatives], own: OwnNegatives | None, alpha: float) -> Tensor:
    """log Z_b of `sampled_softmax_loss`, [B]."""
    part_B = [_stream_logsumexp(stream, alpha) for stream in shared]
    if own is not None:
        kept_M = slice(None) if own.masked_M is None else ~own.masked_M
        logit_M = _widen(own.logit_M)[kept_M]
        part_B.append(segment_logsumexp(logit_M, own.row_M[kept_M], num_rows=len(part_B[0])))
    total_B = part_B[0]
    for next_B in part_B[1:]:
        total_B = torch.logaddexp(total_B, next_B)
    return total_B


def _stream_logsumexp(stream: SharedNegatives, alpha: float) -> Tensor:
    logit_BN = apply_logq_correction(_widen(stream.logit_BN), stream.log_q_N, alpha=alpha)
    return _masked_logsumexp(logit_BN, stream.masked_BN) + math.log(stream.share)


def _masked_logsumexp(logit_BN: Tensor, masked_BN: Tensor | None) -> Tensor:
    """log sum exp of the entries that are not masked, [B]; the lowest finite number where there is none."""
    # The lowest finite number, not -inf: a row with nothing left has a gradient of 0 instead of NaN.
    lowest = torch.finfo(logit_BN.dtype).min
    if logit_BN.shape[1] == 0:
        return logit_BN.new_full(logit_BN.shape[:1], lowest)
    if masked_BN is not None:
        logit_BN = logit_BN.masked_fill(masked_BN, lowest)
    return torch.logsumexp(logit_BN, dim=1)


def _correct_positive(positives: Positives, logit_P: Tensor, alpha: float) -> Tensor:
    if alpha == 0:
        return logit_P
    if positives.log_q_P is None:
        raise ValueError(f"alpha_pos > 0 needs log_q_P of the positives; alpha_pos is {alpha}: give it or 0")
    log_q_P = positives.log_q_P
    if positives.count_P is not None:
        log_q_P = log_q_P - positives.count_P.to(log_q_P.dtype).log()
    return apply_logq_correction(logit_P, log_q_P, alpha=alpha)


def _check_shares(shared: Sequence[SharedNegatives]) -> None:
    total = sum(stream.share for stream in shared)
    if abs(total - 1.0) > 1e-6 or min(stream.share for stream in shared) <= 0:
        raise ValueError(f"the shares of the streams must be positive and sum to 1; they sum to {total}")


def _weighted_mean(loss_P: Tensor, weight_P: Tensor | None) -> Tensor:
    if loss_P.numel() == 0:
        return loss_P.sum()
    if weight_P is None:
        return loss_P.mean()
    weight_P = weight_P.to(loss_P.dtype)
    return (loss_P * weight_P).sum() / weight_P.sum().clamp_min(torch.finfo(loss_P.dtype).tiny)


def _widen(logit: Tensor) -> Tensor:
    """At least float32: sums of thousands of exponentials do not fit bfloat16."""
    return logit.float() if logit.dtype in (torch.bfloat16, torch.float16) else logit
