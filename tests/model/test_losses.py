"""Losses against float64 loops, and sampled losses against the full softmax they stand for."""

import math

import pytest
import torch

from forecart.model import losses
from forecart.model.losses import (
    OwnNegatives,
    Positives,
    SharedNegatives,
    apply_logq_correction,
    full_softmax_loss,
    sampled_softmax_loss,
    segment_logsumexp,
)

NUM_ROWS, NUM_CANDIDATES = 3, 30
ROW_P = torch.tensor([0, 0, 1, 2, 2, 2])
COLUMN_P = torch.tensor([4, 0, 7, 1, 29, 12])
WEIGHT_P = torch.tensor([1.0, 0.5, 2.0, 0.25, 1.0, 3.0], dtype=torch.float64)


@pytest.fixture
def logit_BV():
    return 2 * torch.randn(NUM_ROWS, NUM_CANDIDATES, generator=torch.Generator().manual_seed(5)).double()


def random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def skewed_probability():
    """Candidate 0, a positive of row 0, is drawn 30 times as often as the last."""
    probability_V = 1.0 / torch.arange(1, NUM_CANDIDATES + 1, dtype=torch.float64)
    return probability_V / probability_V.sum()


def positive_mask():
    mask_BV = torch.zeros(NUM_ROWS, NUM_CANDIDATES, dtype=torch.bool)
    mask_BV[ROW_P, COLUMN_P] = True
    return mask_BV


def naive_full(logit_BV, masked_BV, mask_others):
    """Textbook multi-positive softmax, one Python loop per index."""
    of_row = {row: set(COLUMN_P[row == ROW_P].tolist()) for row in range(NUM_ROWS)}
    total = 0.0
    for row, column, weight in zip(ROW_P.tolist(), COLUMN_P.tolist(), WEIGHT_P.tolist(), strict=True):
        denominator = 0.0
        for j in range(NUM_CANDIDATES):
            is_other = j in of_row[row] and j != column
            if j == column or (not masked_BV[row, j] and not is_other) or (is_other and not mask_others):
                denominator += math.exp(logit_BV[row, j])
        total += weight * -math.log(math.exp(logit_BV[row, column]) / denominator)
    return total / WEIGHT_P.sum().item()


@pytest.mark.parametrize("mask_others", [True, False])
def test_full_softmax_is_the_loop(logit_BV, mask_others):
    masked_BV = random(1, NUM_ROWS, NUM_CANDIDATES) > 1.0
    loss = full_softmax_loss(
        logit_BV,
        positive_row_P=ROW_P,
        positive_column_P=COLUMN_P,
        weight_P=WEIGHT_P,
        masked_BN=masked_BV,
        mask_other_positives=mask_others,
    )
    assert loss.item() == pytest.approx(naive_full(logit_BV, masked_BV, mask_others), rel=1e-12)


def test_full_softmax_is_cross_entropy_with_one_positive_a_row(logit_BV):
    target_B = torch.tensor([3, 9, 1])
    loss = full_softmax_loss(logit_BV, positive_row_P=torch.arange(3), positive_column_P=target_B)
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(logit_BV, target_B).item())


def test_full_softmax_gives_other_positives_and_masked_columns_a_weight_of_exactly_zero(logit_BV):
    logit_BV.requires_grad_()
    masked_N = torch.arange(NUM_CANDIDATES) < 2  # broadcast over rows
    full_softmax_loss(
        logit_BV, positive_row_P=ROW_P[:1], positive_column_P=COLUMN_P[:1], masked_BN=masked_N
    ).backward()
    assert (logit_BV.grad[0, :2] == 0).all() and (logit_BV.grad[0, 2:] != 0).all()
    assert (logit_BV.grad[1:] == 0).all()

    # Two positives of one row, the second without weight: it takes no part in the first one's softmax.
    logit_BV.grad = None
    weight_P = torch.tensor([1.0, 0.0])
    full_softmax_loss(
        logit_BV, positive_row_P=ROW_P[:2], positive_column_P=COLUMN_P[:2], weight_P=weight_P
    ).backward()
    assert logit_BV.grad[0, COLUMN_P[1]] == 0


def naive_sampled(positives, streams, own, *, alpha_pos, alpha_neg, form):
    """Sampled softmax, one Python loop per index, straight from the formulas of the docstring."""
    total, weights = 0.0, 0.0
    for p in range(len(positives.row_P)):
        row, logit = int(positives.row_P[p]), float(positives.logit_P[p])
        negative_mass = 0.0
        for stream in streams:
            for n in range(len(stream.log_q_N)):
                if not stream.masked_BN[row, n]:
                    q = math.exp(stream.log_q_N[n])
                    negative_mass += stream.share * math.exp(stream.logit_BN[row, n]) / q**alpha_neg
        for m in range(len(own.row_M)):
            if own.row_M[m] == row and not own.masked_M[m]:
                negative_mass += math.exp(own.logit_M[m])
        if form == "corrected":
            is_wrong = 1 - math.exp(logit) / (math.exp(logit) + negative_mass)
            loss = is_wrong * (math.log(negative_mass) - logit)
        else:
            q = math.exp(positives.log_q_P[p]) / float(positives.count_P[p])
            positive_mass = math.exp(logit) / q**alpha_pos
            loss = -math.log(positive_mass / (positive_mass + negative_mass))
        total += float(positives.weight_P[p]) * loss
        weights += float(positives.weight_P[p])
    return total / weights


@pytest.mark.parametrize("form", ["standard", "corrected"])
@pytest.mark.parametrize(("alpha_pos", "alpha_neg"), [(0.0, 1.0), (1.0, 1.0), (0.3, 0.7), (0.0, 0.0)])
def test_sampled_softmax_is_the_loop(form, alpha_pos, alpha_neg):
    positives = Positives(random(1, 6), ROW_P, WEIGHT_P, random(2, 6), torch.tensor([1, 2, 1, 1, 4, 1]))
    streams = [
        SharedNegatives(random(3, 3, 8), random(4, 8), random(5, 3, 8) > 0.5, share=0.25),
        SharedNegatives(random(6, 3, 5), random(7, 5), random(8, 3, 5) > 0.5, share=0.75),
    ]
    own = OwnNegatives(random(9, 4), torch.tensor([2, 0, 2, 2]), torch.tensor([False, False, True, False]))
    options = {"alpha_pos": alpha_pos, "alpha_neg": alpha_neg, "form": form}
    loss = sampled_softmax_loss(positives, shared=streams, own=own, **options)
    assert loss.item() == pytest.approx(naive_sampled(positives, streams, own, **options), rel=1e-12)


def gradient(loss, logit_BV):
    return torch.autograd.grad(loss, logit_BV, retain_graph=True)[0]


def full_gradient(logit_BV):
    loss = full_softmax_loss(logit_BV, positive_row_P=ROW_P, positive_column_P=COLUMN_P, weight_P=WEIGHT_P)
    return loss.item(), gradient(loss, logit_BV)


def draw_estimate(logit_BV, num_draws, generator, *, form="standard", alpha_pos=0.0, has_count=True):
    """One sampled loss and its gradient; the pool is drawn here, with replacement, by a skewed q."""
    probability_V = skewed_probability()
    pool_N = torch.multinomial(probability_V, num_draws, replacement=True, generator=generator)
    log_q_V = torch.log(num_draws * probability_V)
    count_P = (pool_N[None] == COLUMN_P[:, None]).sum(1).clamp(min=1) if has_count else None
    positives = Positives(logit_BV[ROW_P, COLUMN_P], ROW_P, WEIGHT_P, log_q_V[COLUMN_P], count_P)
    shared = SharedNegatives(logit_BV[:, pool_N], log_q_V[pool_N], positive_mask()[:, pool_N])
    loss = sampled_softmax_loss(positives, shared=[shared], alpha_pos=alpha_pos, form=form)
    return loss.item(), gradient(loss, logit_BV)


def root_mean_square_error(logit_BV, num_draws, *, repeats=40, **options):
    """RMS over repeated pools of (gradient error, value error), and the norm of the mean gradient's error."""
    value, target = full_gradient(logit_BV)
    generator = torch.Generator().manual_seed(num_draws)
    draws = [draw_estimate(logit_BV, num_draws, generator, **options) for _ in range(repeats)]
    errors = torch.stack([grad - target for _, grad in draws])
    value_error = math.sqrt(sum((estimate - value) ** 2 for estimate, _ in draws) / repeats)
    scale = target.norm().item()
    spread = errors.square().sum((1, 2)).mean().sqrt().item() / scale
    return spread, value_error, errors.mean(0).norm().item() / scale


CONVERGENT = [
    pytest.param({"alpha_pos": 0.0}, True, id="standard"),
    pytest.param({"alpha_pos": 1.0}, True, id="standard-both-corrected"),
    pytest.param({"form": "corrected"}, False, id="corrected"),
]


@pytest.mark.parametrize(("options", "has_value"), CONVERGENT)
def test_gradient_converges_to_the_full_softmax(logit_BV, options, has_value):
    logit_BV.requires_grad_()
    small, value_small, _ = root_mean_square_error(logit_BV, 500, **options)
    large, value_large, mean_error = root_mean_square_error(logit_BV, 8000, **options)
    assert 2.8 < small / large < 5.7  # 16 times the samples: a quarter of the error
    assert large < 0.04
    assert mean_error < 0.01
    if has_value:
        assert 2.8 < value_small / value_large < 5.7
        assert value_large < 0.05
    else:
        assert value_large > 0.1


@pytest.mark.parametrize(("options", "has_value"), CONVERGENT)
def test_a_wrong_sign_of_logq_is_found_by_the_convergence_test(logit_BV, monkeypatch, options, has_value):
    def add_instead(logit, log_q, *, alpha=1.0):
        return logit + alpha * log_q.to(logit.dtype)

    monkeypatch.setattr(losses, "apply_logq_correction", add_instead)
    logit_BV.requires_grad_()
    error, value_error, _ = root_mean_square_error(logit_BV, 8000, repeats=2, **options)
    assert error > 0.2
    assert value_error > 0.5


def test_no_correction_is_found_by_the_convergence_test(logit_BV, monkeypatch):
    monkeypatch.setattr(losses, "apply_logq_correction", lambda logit, log_q, *, alpha=1.0: logit)
    logit_BV.requires_grad_()
    assert root_mean_square_error(logit_BV, 8000, repeats=2)[0] > 0.2


def test_textbook_logq_overshoots_by_one_minus_p(logit_BV):
    """The known bias: with one positive a row the gradient is the full one over (1 - P(positive))."""
    logit_BV.requires_grad_()
    probability_V = skewed_probability()
    generator = torch.Generator().manual_seed(1)
    pool_N = torch.multinomial(probability_V, 200_000, replacement=True, generator=generator)
    log_q_V = torch.log(len(pool_N) * probability_V)
    row = torch.tensor([1])
    positives = Positives(logit_BV[1, 7:8], row, log_q_P=log_q_V[7:8])
    shared = SharedNegatives(logit_BV[:, pool_N], log_q_V[pool_N], positive_mask()[:, pool_N])
    textbook = gradient(sampled_softmax_loss(positives, shared=[shared], alpha_pos=1.0), logit_BV)
    full = full_softmax_loss(logit_BV, positive_row_P=row, positive_column_P=torch.tensor([7]))
    factor = 1 / (1 - torch.softmax(logit_BV, 1)[1, 7].item())
    assert factor > 1.005
    torch.testing.assert_close(textbook, factor * gradient(full, logit_BV), rtol=0.03, atol=2e-3)


def test_corrected_has_the_gradient_of_standard_at_any_pool_size(logit_BV):
    logit_BV.requires_grad_()
    for num_draws in (1, 7, 300):
        value, standard = draw_estimate(logit_BV, num_draws, torch.Generator().manual_seed(3))
        other, corrected = draw_estimate(
            logit_BV, num_draws, torch.Generator().manual_seed(3), form="corrected"
        )
        torch.testing.assert_close(standard, corrected, rtol=1e-9, atol=1e-12)
        assert value != pytest.approx(other)


def test_a_uniform_q_is_a_no_op_where_both_are_corrected(logit_BV):
    pool_N = torch.tensor([3, 9, 9, 15, 28])
    shared = SharedNegatives(logit_BV[:, pool_N], torch.full((5,), -2.5), positive_mask()[:, pool_N])
    positives = Positives(logit_BV[ROW_P, COLUMN_P], ROW_P, WEIGHT_P, torch.full((6,), -2.5))
    plain = sampled_softmax_loss(positives, shared=[shared], alpha_neg=0.0)
    for alpha in (0.4, 1.0):
        both = sampled_softmax_loss(positives, shared=[shared], alpha_pos=alpha, alpha_neg=alpha)
        assert both.item() == pytest.approx(plain.item(), rel=1e-12)
    one_sided = sampled_softmax_loss(positives, shared=[shared], alpha_neg=1.0)
    assert one_sided.item() != pytest.approx(plain.item(), rel=1e-3)


def everything(logit_BV, masked_BV):
    """A pool that holds every candidate once, for sure."""
    return SharedNegatives(logit_BV, torch.zeros(NUM_CANDIDATES), masked_BV)


def test_a_pool_of_everything_is_the_full_softmax_for_every_alpha(logit_BV):
    logit_BV.requires_grad_()
    value, target = full_gradient(logit_BV)
    positives = Positives(logit_BV[ROW_P, COLUMN_P], ROW_P, WEIGHT_P, torch.zeros(6))
    for alpha in (0.0, 1.0):
        shared = [everything(logit_BV, positive_mask())]
        loss = sampled_softmax_loss(positives, shared=shared, alpha_pos=alpha, alpha_neg=alpha)
        assert loss.item() == pytest.approx(value, rel=1e-12)
        torch.testing.assert_close(gradient(loss, logit_BV), target)


def own_negatives(logit_BV):
    """Own histories that hold a positive of row 0 (masked) and nothing for row 1."""
    row_M, index_M = torch.tensor([0, 0, 2, 2, 0]), torch.tensor([3, 4, 0, 27, 25])
    own_BV = torch.zeros(NUM_ROWS, NUM_CANDIDATES, dtype=torch.bool)
    own_BV[row_M, index_M] = True
    masked_M = positive_mask()[row_M, index_M]
    assert masked_M.tolist() == [False, True, False, False, False]
    return OwnNegatives(logit_BV[row_M, index_M], row_M, masked_M), own_BV | positive_mask()


def test_own_negatives_and_the_complement_of_everything_are_the_full_softmax(logit_BV):
    logit_BV.requires_grad_()
    value, target = full_gradient(logit_BV)
    own, masked_BV = own_negatives(logit_BV)
    positives = Positives(logit_BV[ROW_P, COLUMN_P], ROW_P, WEIGHT_P)
    loss = sampled_softmax_loss(positives, shared=[everything(logit_BV, masked_BV)], own=own)
    assert loss.item() == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(gradient(loss, logit_BV), target)


def test_own_negatives_and_a_sampled_complement_converge_to_the_full_softmax(logit_BV):
    logit_BV.requires_grad_()
    value, target = full_gradient(logit_BV)
    own, masked_BV = own_negatives(logit_BV)
    positives = Positives(logit_BV[ROW_P, COLUMN_P], ROW_P, WEIGHT_P)
    generator, probability_V = torch.Generator().manual_seed(2), skewed_probability()
    errors = []
    for num_draws in (300, 30_000):
        pool_N = torch.multinomial(probability_V, num_draws, replacement=True, generator=generator)
        log_q_N = torch.log(num_draws * probability_V)[pool_N]
        shared = SharedNegatives(logit_BV[:, pool_N], log_q_N, masked_BV[:, pool_N])
        loss = sampled_softmax_loss(positives, shared=[shared], own=own)
        errors.append((gradient(loss, logit_BV) - target).norm().item() / target.norm().item())
    assert errors[1] < 0.02 < errors[0]
    assert loss.item() == pytest.approx(value, abs=0.03)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.2, 0.8)])
def test_streams_with_shares_that_sum_to_one_converge_to_the_full_softmax(logit_BV, shares):
    logit_BV.requires_grad_()
    value, target = full_gradient(logit_BV)
    uniform_V = torch.full((NUM_CANDIDATES,), 1 / NUM_CANDIDATES, dtype=torch.float64)
    generator, streams = torch.Generator().manual_seed(4), []
    for share, num_draws, probability_V in zip(
        shares, (60_000, 40_000), (skewed_probability(), uniform_V), strict=True
    ):
        pool_N = torch.multinomial(probability_V, num_draws, replacement=True, generator=generator)
        log_q_N = torch.log(num_draws * probability_V)[pool_N]
        masked_BN = positive_mask()[:, pool_N]
        streams.append(SharedNegatives(logit_BV[:, pool_N], log_q_N, masked_BN, share))
    positives = Positives(logit_BV[ROW_P, COLUMN_P], ROW_P, WEIGHT_P)
    loss = sampled_softmax_loss(positives, shared=streams)
    assert loss.item() == pytest.approx(value, abs=0.03)
    assert (gradient(loss, logit_BV) - target).norm() < 0.02 * target.norm()


@pytest.mark.parametrize("form", ["standard", "corrected"])
def test_masked_entries_have_a_softmax_weight_of_exactly_zero(form):
    logit_BN, logit_M = random(1, 3, 6).requires_grad_(), random(2, 2).requires_grad_()
    masked_BN = random(3, 3, 6) > 0
    assert masked_BN.any() and not masked_BN.all(1).any()
    own = OwnNegatives(logit_M, torch.tensor([0, 1]), torch.tensor([True, False]))
    shared = SharedNegatives(logit_BN, random(4, 6), masked_BN)
    sampled_softmax_loss(Positives(random(5, 6), ROW_P), shared=[shared], own=own, form=form).backward()
    assert (logit_BN.grad[masked_BN] == 0).all() and (logit_BN.grad[~masked_BN] > 0).all()
    assert logit_M.grad[0] == 0 and logit_M.grad[1] > 0


@pytest.mark.parametrize("form", ["standard", "corrected"])
@pytest.mark.parametrize("num_pool", [0, 4])
def test_a_row_without_any_negative_costs_nothing_and_gives_no_nan(form, num_pool):
    logit_BN, logit_P = torch.randn(3, num_pool).requires_grad_(), torch.randn(6).requires_grad_()
    shared = SharedNegatives(logit_BN, torch.zeros(num_pool), torch.ones(3, num_pool, dtype=torch.bool))
    loss = sampled_softmax_loss(Positives(logit_P, ROW_P), shared=[shared], form=form)
    loss.backward()
    assert loss.item() == 0
    assert (logit_P.grad == 0).all()
    assert num_pool == 0 or (logit_BN.grad == 0).all()


def test_no_positives_is_a_loss_of_zero_that_can_be_differentiated(logit_BV):
    logit_BV.requires_grad_()
    none = torch.zeros(0, dtype=torch.int64)
    full = full_softmax_loss(logit_BV, positive_row_P=none, positive_column_P=none)
    shared = [everything(logit_BV, None)]
    sampled = sampled_softmax_loss(Positives(logit_BV[none, none], none), shared=shared)
    (full + sampled).backward()
    assert full.item() == sampled.item() == 0 and (logit_BV.grad == 0).all()


def test_bfloat16_logits_are_summed_in_float32():
    logit_BN = torch.zeros(1, 4096, dtype=torch.bfloat16)  # a bfloat16 sum of ones stops at 256
    loss = full_softmax_loss(logit_BN, positive_row_P=torch.tensor([0]), positive_column_P=torch.tensor([0]))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(4096), rel=1e-6)


def test_huge_logits_stay_finite():
    logit_BN = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = full_softmax_loss(logit_BN, positive_row_P=torch.tensor([0]), positive_column_P=torch.tensor([1]))
    loss.backward()
    assert loss.item() == pytest.approx(2e4) and torch.isfinite(logit_BN.grad).all()


def test_logq_is_subtracted():
    corrected = apply_logq_correction(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 2.0]), alpha=0.5)
    assert corrected.tolist() == [1.0, 0.0]


def test_segment_logsumexp_is_logsumexp_of_each_row():
    row_M, value_M = torch.tensor([2, 0, 2, 2]), random(1, 4)
    got_B = segment_logsumexp(value_M, row_M, num_rows=3)
    assert got_B[2].item() == pytest.approx(torch.logsumexp(value_M[row_M == 2], 0).item())
    assert got_B[0].item() == pytest.approx(value_M[1].item())
    assert got_B[1].item() == torch.finfo(torch.float64).min


def test_mistakes_are_named():
    positives = Positives(torch.zeros(6), ROW_P)
    stream = SharedNegatives(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(ValueError, match="log_q_P"):
        sampled_softmax_loss(positives, shared=[stream], alpha_pos=1.0)
    with pytest.raises(ValueError, match="sum to 1; they sum to 2"):
        sampled_softmax_loss(positives, shared=[stream, stream])
    with pytest.raises(ValueError, match="sum to 1; they sum to 0"):
        sampled_softmax_loss(positives, shared=[])
