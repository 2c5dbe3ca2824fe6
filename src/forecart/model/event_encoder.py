"""From the packed events of a batch to one state per row: event features, transformer blocks, pooling.

Takes a `TowerBatch`; gives [B, D]. An event is the sum of what is known of it: its advertiser and its item
(static features and a hashed id), its type, its price, its place in the history and its distances in time.
No table grows with the number of items but the static features, which are not weights.
"""

from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn

from forecart import columns
from forecart.model.layers import HashedEmbedding, Mlp, PackedLayout, PackedSelfAttention, TransformerBlock
from forecart.model.tensors import TowerBatch
from forecart.sequences.batches import TIME_FEATURES

Pooling = Literal["cls", "mean", "last"]
_NUM_TYPES: Final = len(columns.EVENT_TYPES) + 1
# Starts small beside the static features, which carry what generalises.
ID_SCALE: Final = 0.15


@dataclass(frozen=True)
class EncoderShape:
    """The sizes of an event encoder; see `ModelSettings` for their meaning."""

    width: int
    num_layers: int
    num_heads: int
    history_length: int
    pooling: Pooling
    dropout: float
    id_rows: int
    is_causal: bool = False


class EventEncoder(nn.Module):
    """Encodes each row's history; a row without events gets the learned empty state.

    Args:
        advertiser_static_AF: static features of all advertisers, a buffer that is not saved.
        item_static_IF: static features of all items, likewise.
        shape: sizes, pooling, and whether the blocks are causal.
    """

    advertiser_static_AF: Tensor
    item_static_IF: Tensor

    def __init__(self, advertiser_static_AF: Tensor, item_static_IF: Tensor, *, shape: EncoderShape) -> None:
        super().__init__()
        width = shape.width
        self.shape = shape
        self.register_buffer("advertiser_static_AF", advertiser_static_AF, persistent=False)
        self.register_buffer("item_static_IF", item_static_IF, persistent=False)
        self.advertiser = nn.Linear(advertiser_static_AF.shape[1], width, bias=False)
        self.item = nn.Linear(item_static_IF.shape[1], width, bias=False)
        self.advertiser_id = HashedEmbedding(shape.id_rows, width)
        self.event_type = nn.Embedding(_NUM_TYPES, width)
        self.position = nn.Embedding(shape.history_length, width)
        self.numbers = nn.Linear(len(TIME_FEATURES) + 1, width)
        self.first_token = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(self._block() for _ in range(shape.num_layers))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.event_type.weight, std=0.1)
        nn.init.normal_(self.position.weight, std=0.02)

    def _block(self) -> TransformerBlock:
        width, dropout = self.shape.width, self.shape.dropout
        attention = PackedSelfAttention(width, num_heads=self.shape.num_heads, is_causal=self.shape.is_causal)
        mlp = Mlp(width, hidden=2 * width, width_out=width, dropout=dropout)
        return TransformerBlock(attention, mlp, width=width, dropout=dropout)

    def forward(self, batch: TowerBatch) -> Tensor:
        """Return [B, D]."""
        x_TD, offsets = self._with_first_token(self.embed_events(batch), batch.offsets)
        layout = PackedLayout.from_offsets(offsets)
        for block in self.blocks:
            x_TD = block(x_TD, layout)
        state_BD: Tensor = self.norm(self._pool(x_TD, offsets, batch))
        return state_BD

    def embed_events(self, batch: TowerBatch) -> Tensor:
        """Return [T, D], before any block."""
        numbers_TF = torch.cat([batch.time_TF, batch.log_price_T[:, None]], dim=1)
        x_TD: Tensor = self.numbers(numbers_TF) + self.event_type(batch.event_type_T)
        x_TD = x_TD + self.position(batch.position_T)
        x_TD = x_TD + self.advertiser(self.advertiser_static_AF[batch.advertiser_T])
        x_TD = x_TD + ID_SCALE * self.advertiser_id(batch.advertiser_T)
        return x_TD + self.item(self.item_static_IF[batch.item_T])

    def _with_first_token(self, x_TD: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Put the first token in front of each history: it is the pooled state, or the empty one."""
        num = len(offsets) - 1
        history_T = torch.repeat_interleave(torch.arange(num, device=x_TD.device), offsets.diff())
        wide_TD = self.first_token.expand(x_TD.shape[0] + num, -1)
        place_T = torch.arange(x_TD.shape[0], device=x_TD.device) + history_T + 1
        return wide_TD.index_copy(0, place_T, x_TD), offsets + torch.arange(num + 1, device=x_TD.device)

    def _pool(self, x_TD: Tensor, offsets: Tensor, batch: TowerBatch) -> Tensor:
        first_B = offsets[batch.history_B]
        if self.shape.is_causal or self.shape.pooling == "last":
            # Event t of history s stands at t + s + 1; an empty history falls back on its first token.
            place_B = torch.where(batch.last_event_B < 0, first_B, batch.last_event_B + batch.history_B + 1)
            return x_TD[place_B]
        if self.shape.pooling == "cls":
            return x_TD[first_B]
        return _segment_means(x_TD, offsets)[batch.history_B]


def _segment_means(x_TD: Tensor, offsets: Tensor) -> Tensor:
    length_S = offsets.diff()
    segment_T = torch.repeat_interleave(torch.arange(len(length_S), device=x_TD.device), length_S)
    summed_SD = x_TD.new_zeros(len(length_S), x_TD.shape[1]).index_add(0, segment_T, x_TD)
    return summed_SD / length_S[:, None]
