"""The loss in blocks against the plain formula, and its gradient against finite differences."""

import math

import pytest
import torch

from forecart.model import blocked_softmax


def problem(num_rows=7, num_candidates=11, width=3, dtype=torch.float64):
    rng = torch.Generator().manual_seed(0)
    user_BD = torch.randn(num_rows, width, generator=rng, dtype=dtype, requires_grad=True)
    candidate_ND = torch.randn(num_candidates, width, generator=rng, dtype=dtype, requires_grad=True)
    bias_N = torch.randn(num_candidates, generator=rng, dtype=dtype, requires_grad=True)
    target_B = torch.randint(2, num_candidates, (num_rows,), generator=rng)
    weight_B = torch.rand(num_rows, generator=rng, dtype=dtype)
    return user_BD, candidate_ND, bias_N, target_B, weight_B


def blocked_loss(user_BD, candidate_ND, bias_N, target_B, weight_B):
    return blocked_softmax.blocked_softmax_loss(
        user_BD, candidate_ND=candidate_ND, bias_N=bias_N, target_B=target_B, weight_B=weight_B
    )


def naive_loss(user_BD, candidate_ND, bias_N, target_B, weight_B):
    total = 0.0
    for user_D, target, weight in zip(user_BD.detach(), target_B.tolist(), weight_B.tolist(), strict=True):
        logits = [
            sum(float(u) * float(c) for u, c in zip(user_D, candidate_D, strict=True)) + float(bias)
            for candidate_D, bias in zip(candidate_ND.detach(), bias_N.detach(), strict=True)
        ]
        total += weight * (math.log(sum(math.exp(logit) for logit in logits)) - logits[target])
    return total / float(weight_B.sum())


@pytest.fixture(params=[1, 11 * 3, 1 << 19], ids=["one row", "three rows", "all rows"])
def block(request, monkeypatch):
    monkeypatch.setattr(blocked_softmax, "_BLOCK_LOGITS", {"cpu": request.param})
    monkeypatch.setattr(blocked_softmax, "_MIN_BLOCK_ROWS", 1)


@pytest.mark.usefixtures("block")
def test_the_loss_is_the_naive_loop():
    given = problem()
    assert blocked_loss(*given).item() == pytest.approx(naive_loss(*given), rel=1e-9)


@pytest.mark.usefixtures("block")
def test_the_gradient_is_the_slope():
    given = problem()
    assert torch.autograd.gradcheck(blocked_loss, given)


@pytest.mark.usefixtures("block")
def test_a_column_that_is_no_candidate_has_no_part_and_no_gradient():
    user_BD, candidate_ND, bias_N, target_B, weight_B = problem()
    closed_N = bias_N.masked_fill(torch.arange(11) < 2, -math.inf)
    loss = blocked_loss(user_BD, candidate_ND, closed_N, target_B, weight_B)
    fewer = blocked_loss(user_BD, candidate_ND[2:], bias_N[2:], target_B - 2, weight_B)
    torch.testing.assert_close(loss, fewer)
    candidate_grad_ND, bias_grad_N = torch.autograd.grad(loss, [candidate_ND, closed_N])
    assert not candidate_grad_ND[:2].any() and not bias_grad_N[:2].any()
    assert candidate_grad_ND[2:].any(1).all()


def test_rows_without_weight_and_no_rows_give_zero():
    user_BD, candidate_ND, bias_N, target_B, weight_B = problem()
    for rows in (slice(0), slice(None)):
        loss = blocked_loss(user_BD[rows], candidate_ND, bias_N, target_B[rows], 0 * weight_B[rows])
        assert loss.item() == 0
        assert not torch.autograd.grad(loss, candidate_ND)[0].any()


def test_logits_of_hundreds_stay_finite():
    user_BD, candidate_ND, bias_N, target_B, weight_B = problem(dtype=torch.float32)
    loss = blocked_loss(200 * user_BD, candidate_ND, bias_N, target_B, weight_B)
    grad_BD = torch.autograd.grad(loss, user_BD)[0]
    assert loss.isfinite() and loss > 10 and grad_BD.isfinite().all()
