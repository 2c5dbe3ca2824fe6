"""Full softmax cross entropy in blocks of rows: the logits of a batch never exist whole in memory.

Takes user vectors, candidate vectors, a bias and one target per row; gives a scalar. The gradient of a block
is computed right after its logits, in their place: three matrix products a block, and beside the gradients
themselves the memory of one block.

Shapes: B rows, R rows of a block, N candidates, D width.
"""

from typing import Any, Final

import torch
from torch import Tensor

# Logits of a block. On the CPU few enough to stay in a core's cache between the passes over them.
_BLOCK_LOGITS: Final = {"cpu": 1 << 19, "cuda": 1 << 26}
# With fewer rows, reading all candidates for a block costs more than its logits.
_MIN_BLOCK_ROWS: Final = 64


def blocked_softmax_loss(
    user_BD: Tensor, *, candidate_ND: Tensor, bias_N: Tensor, target_B: Tensor, weight_B: Tensor
) -> Tensor:
    """Weighted mean over rows of -log softmax(user @ candidates' + bias)[target]. No rows: 0.

    Equal to `full_softmax_loss` for rows of one positive each, in value and gradient.

    Args:
        user_BD: float32, divided by the temperature already.
        candidate_ND: float32.
        bias_N: float32; -inf for a column that is no candidate, which then must be no target.
        target_B: int64.
        weight_B: non-negative.

    Returns:
        A scalar in float32; differentiable once in users, candidates and bias.
    """
    loss: Tensor = _BlockedSoftmax.apply(  # type: ignore[no-untyped-call]
        user_BD, candidate_ND, bias_N, target_B, weight_B
    )
    return loss


class _BlockedSoftmax(torch.autograd.Function):
    """Forward computes the gradients too: recomputing the logits in backward would cost a fourth product."""

    @staticmethod
    def forward(
        ctx: Any, user_BD: Tensor, candidate_ND: Tensor, bias_N: Tensor, target_B: Tensor, weight_B: Tensor
    ) -> Tensor:
        num_rows = max(_MIN_BLOCK_ROWS, _BLOCK_LOGITS[user_BD.device.type] // len(candidate_ND))
        # One block for all: fresh memory for each would cost as much in page faults as its matrix product.
        block_RN = user_BD.new_empty(min(num_rows, len(user_BD)), len(candidate_ND))
        share_B = weight_B / weight_B.sum().clamp_min(torch.finfo(weight_B.dtype).tiny)
        loss = user_BD.new_zeros(())
        grad_user_BD = torch.empty_like(user_BD)
        grad_candidate_ND, grad_bias_N = torch.zeros_like(candidate_ND), torch.zeros_like(bias_N)
        for first in range(0, len(user_BD), num_rows):
            rows = slice(first, first + num_rows)
            user_RD, target_R1, share_R1 = user_BD[rows], target_B[rows, None], share_B[rows, None]
            logit_RN = torch.mm(user_RD, candidate_ND.T, out=block_RN[: len(user_RD)]).add_(bias_N)
            picked_R1 = logit_RN.gather(1, target_R1)
            top_R1 = logit_RN.amax(1, keepdim=True)
            exp_RN = logit_RN.sub_(top_R1).exp_()
            total_R1 = exp_RN.sum(1, keepdim=True)
            loss += ((total_R1.log() + top_R1 - picked_R1) * share_R1).sum()
            grad_RN = exp_RN.mul_(share_R1 / total_R1).scatter_add_(1, target_R1, -share_R1)
            torch.mm(grad_RN, candidate_ND, out=grad_user_BD[rows])
            grad_candidate_ND.addmm_(grad_RN.T, user_RD)
            grad_bias_N += grad_RN.sum(0)
        ctx.save_for_backward(grad_user_BD, grad_candidate_ND, grad_bias_N)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        grad_user_BD, grad_candidate_ND, grad_bias_N = ctx.saved_tensors
        return grad * grad_user_BD, grad * grad_candidate_ND, grad * grad_bias_N, None, None
