"""Building blocks of the towers: attention over packed batches, transformer block, MLP, hashed embedding.

Takes and gives tensors. The decision worth knowing: histories come packed, all rows' events one after another
in x_TD with no padding; only attention needs rows apart, so it alone pads, within classes of similar length
(`PackedLayout`), and everything else runs on exactly T events.

Shapes: B rows, T events of all rows, D width, H heads, L longest row of a bucket, S padded slots.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FIRST_KNOWN_INDEX = 2
"""Indices below are padding (0) and unknown (1)."""
# More is fewer buckets and more padding.
_BUCKET_GROWTH = 1.25


@dataclass(frozen=True)
class Bucket:
    """Rows of similar length, padded to the longest.

    Attributes:
        num_rows: rows in the bucket.
        length: L, the longest of them.
        valid_RL: bool, True where a slot holds an event; None when every slot does.
    """

    num_rows: int
    length: int
    valid_RL: Tensor | None

    @property
    def key_mask(self) -> Tensor | None:
        """The mask of attention scores [R, H, L, L]: no query looks at padding."""
        return None if self.valid_RL is None else self.valid_RL[:, None, None, :]


@dataclass(frozen=True)
class PackedLayout:
    """Where each event of a packed batch stands in the padded buckets; built once a batch for all layers.

    Attributes:
        slot_T: int64, the slot of each event among the slots of all buckets.
        order_R: int64, the rows with events in the order of the buckets.
        buckets: classes of rows, shortest first; rows without events are in none.
    """

    slot_T: Tensor
    order_R: Tensor
    buckets: tuple[Bucket, ...]

    @classmethod
    def from_offsets(cls, offsets: Tensor) -> "PackedLayout":
        """Group rows into length classes, the bound of each a quarter above the one before.

        So the number of buckets depends on the longest row and not on B (16 up to length 100), and about a
        tenth of the slots is padding. On CUDA this waits for the device once.

        Args:
            offsets: int64 [B + 1], row b's events are x_TD[offsets[b]:offsets[b + 1]]; empty rows allowed.
        """
        device, offsets = offsets.device, offsets.cpu()
        length_B = offsets.diff()
        order_R = torch.argsort(length_B, stable=True)[int((length_B == 0).sum()) :]
        length_R = length_B[order_R]
        class_R = (length_R.double().log() / math.log(_BUCKET_GROWTH)).floor()
        sizes = torch.unique_consecutive(class_R, return_counts=True)[1].tolist()
        start_B, first_slot, buckets = torch.zeros_like(length_B), 0, []
        for row_R, length_of_R in zip(torch.split(order_R, sizes), torch.split(length_R, sizes), strict=True):
            longest = int(length_of_R[-1])
            start_B[row_R] = first_slot + longest * torch.arange(len(row_R))
            first_slot += longest * len(row_R)
            valid_RL = torch.arange(longest) < length_of_R[:, None]
            mask_RL = None if valid_RL.all() else valid_RL.to(device)
            buckets.append(Bucket(len(row_R), longest, mask_RL))
        slot_T = torch.arange(int(length_B.sum())) + (start_B - offsets[:-1]).repeat_interleave(length_B)
        return cls(slot_T.to(device), order_R.to(device), tuple(buckets))

    @property
    def num_slots(self) -> int:
        """S, events and padding."""
        return sum(bucket.num_rows * bucket.length for bucket in self.buckets)


class PackedSelfAttention(nn.Module):
    """Multi-head attention of each row's events to that row's events, bidirectional or causal.

    Without `distance_slope_H` it has no notion of position: give positions or times with the events. No
    attention dropout, which would cost the CPU its fused kernel.

    Args:
        width: D, divisible by `num_heads`.
        num_heads: H.
        is_causal: each event sees itself and earlier ones of its row.
        distance_slope_H: what is taken from a head's attention score for each place between two events
            (`alibi_slopes`); none is taken without.
    """

    distance_slope_H: Tensor | None

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        is_causal: bool = False,
        distance_slope_H: Tensor | None = None,
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(
                f"the width must be a multiple of the number of heads; got {width} and {num_heads}"
            )
        self.num_heads = num_heads
        self.is_causal = is_causal
        self.register_buffer("distance_slope_H", distance_slope_H, persistent=False)
        self.to_query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.to_output = nn.Linear(width, width, bias=False)

    def forward(self, x_TD: Tensor, layout: PackedLayout) -> Tensor:
        """Return [T, D], in the order of `x_TD`."""
        attended = []
        for heads, bucket in self._buckets(self.to_query_key_value(x_TD), layout):
            place_1L = torch.arange(bucket.length, device=x_TD.device)[None]
            attended.append(self._attend(heads[0], heads[1:], bucket, place_1L, is_causal=self.is_causal))
        if not attended:
            return self._output(x_TD)
        return self._output(torch.cat(attended).index_select(0, layout.slot_T))

    def attend_from(self, x_TD: Tensor, place_B: Tensor, layout: PackedLayout) -> Tensor:
        """Return [B, D]: the rows of `forward` at one event of each row, without computing the others.

        Args:
            x_TD: the events.
            place_B: int64, which event of `x_TD` asks for row b; it sees all of the row, so if causal it is
                to be the last.
            layout: of rows that all have events.
        """
        assert len(layout.order_R) == len(place_B)
        width = x_TD.shape[1]
        weight = self.to_query_key_value.weight
        query_weight, other_weight = weight[:width], weight[width:]
        query_RD = F.linear(x_TD.index_select(0, place_B[layout.order_R]), query_weight)
        query_RHLd = query_RD.view(len(query_RD), self.num_heads, 1, -1)
        slot_R = layout.slot_T[place_B[layout.order_R]]
        first, first_slot, attended = 0, 0, []
        for heads, bucket in self._buckets(F.linear(x_TD, other_weight), layout):
            rows = slice(first, first + bucket.num_rows)
            place_R1 = ((slot_R[rows] - first_slot) % bucket.length)[:, None]
            attended.append(self._attend(query_RHLd[rows], heads, bucket, place_R1, is_causal=False))
            first += bucket.num_rows
            first_slot += bucket.num_rows * bucket.length
        back_B = torch.argsort(layout.order_R)
        return self._output(torch.cat(attended).index_select(0, back_B))

    def _buckets(self, packed_TE: Tensor, layout: PackedLayout) -> Iterator[tuple[Tensor, Bucket]]:
        """Yields what was projected from the events of each bucket as [parts, R, H, L, D / H]."""
        slot_SE = packed_TE.new_zeros(layout.num_slots, packed_TE.shape[1])
        slot_SE = slot_SE.index_copy(0, layout.slot_T, packed_TE)
        num_parts = packed_TE.shape[1] // self.to_output.in_features
        sizes = [bucket.num_rows * bucket.length for bucket in layout.buckets]
        for part_SE, bucket in zip(torch.split(slot_SE, sizes), layout.buckets, strict=True):
            heads = part_SE.view(bucket.num_rows, bucket.length, num_parts, self.num_heads, -1)
            yield heads.permute(2, 0, 3, 1, 4), bucket

    def _output(self, x_TD: Tensor) -> Tensor:
        out_TD: Tensor = self.to_output(x_TD)
        return out_TD

    def _attend(
        self, query_RHQd: Tensor, key_value: Tensor, bucket: Bucket, place_RQ: Tensor, *, is_causal: bool
    ) -> Tensor:
        """Return [R * Q, D]; `place_RQ` says where in its row each query stands, [1, Q] if all rows agree."""
        key_RHLd, value_RHLd = key_value.unbind(0)
        # Padding stands after a row's events, so the causal mask already keeps it out of their sight.
        mask = None if is_causal else bucket.key_mask
        if self.distance_slope_H is not None:
            mask = self._distance_mask(bucket, place_RQ, is_causal=is_causal).to(query_RHQd.dtype)
        out_RHQd = F.scaled_dot_product_attention(
            query_RHQd,
            key_RHLd,
            value_RHLd,
            attn_mask=mask,
            is_causal=is_causal and mask is None,
        )
        return out_RHQd.transpose(1, 2).flatten(0, 1).flatten(1)

    def _distance_mask(self, bucket: Bucket, place_RQ: Tensor, *, is_causal: bool) -> Tensor:
        """Return what is added to attention scores, [R or 1, H, Q, L]: minus slope times distance."""
        assert self.distance_slope_H is not None
        ahead_RQL = torch.arange(bucket.length, device=place_RQ.device) - place_RQ[..., None]
        mask_RHQL = -self.distance_slope_H[:, None, None] * ahead_RQL.abs()[:, None]
        if is_causal:
            return mask_RHQL.masked_fill(ahead_RQL[:, None] > 0, -math.inf)
        if bucket.key_mask is None:
            return mask_RHQL
        return mask_RHQL.masked_fill(~bucket.key_mask, -math.inf)


def alibi_slopes(num_heads: int) -> Tensor:
    """Return [H] slopes: zero for the first head, which sees all events alike, then up to 1 by factors of 4.

    A single head fades too, by a quarter a place.

    Source:
        Press, Smith and Lewis 2022, with a wider range than theirs: histories are shorter than texts.
    """
    slope_H = 4.0 ** torch.arange(1 - num_heads, 1)
    slope_H[0] = 0.0 if num_heads > 1 else 0.25
    return slope_H


class Dropout(nn.Module):
    """Sets a share of the values to zero in training and scales the rest to keep the mean.

    On the CPU the share is rounded to a multiple of 1/256 and one random byte decides on each value: torch's
    own dropout draws one number at a time there, which took a fifth of a training step.

    Args:
        share: of the values that are dropped, in [0, 1).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape, drawn with torch's global generator."""
        if not self.training or not self.share:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.share)
        num_dropped = min(round(256 * self.share), 255)
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(1 << 63), None)
        is_kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= num_dropped
        return x * is_kept.to(x.dtype).mul_(256 / (256 - num_dropped))


class Mlp(nn.Module):
    """Linear, GELU, dropout, linear.

    Args:
        width_in: of the input.
        hidden: of the layer between.
        width_out: of the output.
        dropout: share of hidden units set to zero in training.
    """

    def __init__(self, width_in: int, *, hidden: int, width_out: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.to_hidden = nn.Linear(width_in, hidden)
        self.dropout = Dropout(dropout)
        self.to_output = nn.Linear(hidden, width_out)

    def forward(self, x_BD: Tensor) -> Tensor:
        """Return [..., width_out]."""
        out_BD: Tensor = self.to_output(self.dropout(F.gelu(self.to_hidden(x_BD))))
        return out_BD


class TransformerBlock(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x)).

    Args:
        attention: over the packed batch.
        mlp: of the same width.
        width: D.
        dropout: on both branches, in training.
    """

    def __init__(
        self, attention: PackedSelfAttention, mlp: nn.Module, *, width: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.attention, self.mlp = attention, mlp
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, x_TD: Tensor, layout: PackedLayout) -> Tensor:
        """Return [T, D]."""
        return self._mix(x_TD + self.dropout(self.attention(self.attention_norm(x_TD), layout)))

    def pool(self, x_TD: Tensor, place_B: Tensor, layout: PackedLayout) -> Tensor:
        """Return [B, D]: the rows of `forward` at one event of each row, for a fraction of its cost."""
        attended_BD = self.attention.attend_from(self.attention_norm(x_TD), place_B, layout)
        return self._mix(x_TD.index_select(0, place_B) + self.dropout(attended_BD))

    def _mix(self, x_TD: Tensor) -> Tensor:
        out_TD: Tensor = x_TD + self.dropout(self.mlp(self.mlp_norm(x_TD)))
        return out_TD


class EmbeddingTable(nn.Module):
    """A row for each of N indices, of about length one; padding (0) and unknown (1) give zeros.

    Args:
        num_rows: N.
        width: D.
        start_ND: rows to start from; random where one is all zeros, or where there are none.
    """

    def __init__(self, num_rows: int, width: int, *, start_ND: Tensor | None = None) -> None:
        super().__init__()
        weight_ND = torch.randn(num_rows, width) / math.sqrt(width)
        if start_ND is not None:
            has_start_N1 = start_ND.any(dim=1, keepdim=True)
            weight_ND = torch.where(has_start_N1, start_ND, weight_ND)
        self.weight = nn.Parameter(weight_ND)

    def forward(self, index: Tensor) -> Tensor:
        """Return [..., D] for int indices of any shape."""
        is_known = (index >= FIRST_KNOWN_INDEX).to(self.weight.dtype)
        return F.embedding(index, self.weight) * is_known[..., None]


class HashedEmbedding(nn.Module):
    """The sum of k rows of one table, chosen by k hashes of the index: any index, fixed memory.

    Two candidates are confused only if all k hashes collide. Padding (0) and unknown (1) give zeros, so a
    candidate without an identity is described by its other features alone. The hash multipliers are part of
    the state dict: a checkpoint carries its hash functions.

    Args:
        num_rows: m, rows of the table, at most 2^31.
        width: D.
        num_hashes: k.
        scale: of what is returned; the table's rows are of about length one.
        seed: of the multipliers; the table is initialised by torch's global generator.
    """

    multipliers: Tensor

    def __init__(
        self, num_rows: int, width: int, *, num_hashes: int = 2, scale: float = 1.0, seed: int = 0
    ) -> None:
        super().__init__()
        self.scale = scale
        # Vectors have a length of about 1 whatever k and D are.
        self.weight = nn.Parameter(torch.randn(num_rows, width) / math.sqrt(num_hashes * width))
        generator = torch.Generator().manual_seed(seed)
        multipliers_2K = torch.randint(1 << 62, (2, num_hashes), generator=generator) * 2 + 1
        self.register_buffer("multipliers", multipliers_2K)

    def forward(self, index: Tensor) -> Tensor:
        """Return [..., D] for int indices of any shape."""
        is_known = (index >= FIRST_KNOWN_INDEX).to(self.weight.dtype)
        return self.scale * (F.embedding(self.rows(index), self.weight).sum(-2) * is_known[..., None])

    def rows(self, index: Tensor) -> Tensor:
        """Return [..., k] rows of the table, the same on every device: int64 arithmetic that wraps around."""
        first_K, second_K = self.multipliers.unbind(0)
        mixed = index.long()[..., None] * first_K
        mixed = (mixed ^ ((mixed >> 32) & 0xFFFFFFFF)) * second_K
        return ((mixed >> 32) & 0x7FFFFFFF) % self.weight.shape[0]
