"""Full softmax cross entropy in blocks of rows: the logits of a batch never exist whole in memory.

Takes user vectors, candidate vectors, a bias and one target per row; gives a scalar. The gradient of a block
is computed right after its logits, in their place, so a step costs three matrix products and one block of
memory however many rows and candidates there are.
"""

from typing import Any, Final

import torch
from torch import Tensor

# Logits of a block: few enough to stay in a core's cache between the passes over them.
_BLOCK_LOGITS: Final = 1 << 19


def chunked_softmax_loss(
    user_BD: Tensor, candidate_ND: Tensor, bias_N: Tensor, target_B: Tensor, weight_B: Tensor
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
        A scalar in float32; differentiable once in the first three arguments.
    """
    loss: Tensor = _ChunkedSoftmax.apply(user_BD, candidate_ND, bias_N, target_B, weight_B)  # type: ignore[no-untyped-call]
    return loss


class _ChunkedSoftmax(torch.autograd.Function):
    """Forward computes the gradients too: recomputing the logits in backward would cost a third product."""

    @staticmethod
    def forward(
        ctx: Any, user_BD: Tensor, candidate_ND: Tensor, bias_N: Tensor, target_B: Tensor, weight_B: Tensor
    ) -> Tensor:
        num_rows = max(1, _BLOCK_LOGITS // max(1, len(candidate_ND)))
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
            weight_RN = logit_RN.sub_(top_R1).exp_()
            total_R1 = weight_RN.sum(1, keepdim=True)
            loss += ((total_R1.log() + top_R1 - picked_R1) * share_R1).sum()
            grad_RN = weight_RN.mul_(share_R1 / total_R1).scatter_add_(1, target_R1, -share_R1)
            torch.mm(grad_RN, candidate_ND, out=grad_user_BD[rows])
            grad_candidate_ND.addmm_(grad_RN.T, user_RD)
            grad_bias_N += grad_RN.sum(0)
        ctx.save_for_backward(grad_user_BD, grad_candidate_ND, grad_bias_N)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        user_BD, candidate_ND, bias_N = ctx.saved_tensors
        return grad * user_BD, grad * candidate_ND, grad * bias_N, None, None
