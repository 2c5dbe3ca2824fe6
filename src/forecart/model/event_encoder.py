"""From the packed events of a batch to one state per row: event features, transformer blocks, pooling.

Takes a `TowerBatch`; gives [B, D]. An event is the sum of what is known of it: its advertiser and its item
(static features and a hashed id), its type, its price, its place in the history and its distances in time.
No table grows with the number of items but the static features, which are not weights.
"""

from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forecart import columns
from forecart.model.layers import (
    Dropout,
    EmbeddingTable,
    HashedEmbedding,
    Mlp,
    PackedLayout,
    PackedSelfAttention,
    TransformerBlock,
    alibi_slopes,
)
from forecart.model.settings import ModelSettings
from forecart.model.static_features import StaticFeatures
from forecart.model.tensors import TowerBatch
from forecart.sequences.batches import TIME_FEATURES

_NUM_TYPES: Final = len(columns.EVENT_TYPES) + 1


class EventEncoder(nn.Module):
    """Encodes each row's history; a row without events gets the learned empty state.

    Args:
        static: features of all advertisers and items, buffers that are not saved.
        settings: sizes and pooling; at least one layer.
        is_causal: rows read a prefix of their history (`dense_all_action`): the state at its last event.
    """

    advertiser_static_AF: Tensor
    item_static_IF: Tensor

    def __init__(
        self,
        static: StaticFeatures,
        *,
        settings: ModelSettings,
        is_causal: bool = False,
    ) -> None:
        super().__init__()
        width = settings.width
        self.pooling = settings.pooling
        self.level = static.level
        self.is_causal = is_causal
        self.register_buffer("advertiser_static_AF", static.advertiser_AF, persistent=False)
        self.register_buffer("item_static_IF", static.item_IF, persistent=False)
        self.advertiser = nn.Linear(static.advertiser_AF.shape[1], width, bias=False)
        self.item = nn.Linear(static.item_IF.shape[1], width, bias=False)
        has_table = settings.id_embedding == "table" and static.level == "advertiser"
        self.advertiser_id: HashedEmbedding | None = None
        if not has_table:
            self.advertiser_id = HashedEmbedding(settings.id_rows, width, scale=settings.id_scale)
        self.event_type = nn.Embedding(_NUM_TYPES, width)
        self.dropout = Dropout(settings.event_dropout)
        self.position = nn.Embedding(settings.history_length, width)
        self.numbers = nn.Linear(len(TIME_FEATURES) + 1, width)
        self.first_token = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(_build_block(settings, is_causal) for _ in range(settings.num_layers - 1))
        self.last_block = _build_block(settings, is_causal)
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.event_type.weight, std=0.1)
        nn.init.normal_(self.position.weight, std=0.02)
        if settings.id_embedding == "table":
            # An event starts as the row of the candidate it names: all else is small beside it.
            for weights in (self.event_type.weight, *self.numbers.parameters()):
                nn.init.normal_(weights, std=0.02)

    def forward(self, batch: TowerBatch, id_table: EmbeddingTable | None = None) -> Tensor:
        """Return [B, D]; `id_table` as in `embed_events`."""
        x_TD = self.dropout(self.embed_events(batch, id_table))
        x_TD, offsets = self._with_first_token(x_TD, batch.offsets)
        layout = PackedLayout.from_offsets(offsets)
        for block in self.blocks:
            x_TD = block(x_TD, layout)
        state_BD: Tensor = self.norm(self._pool_last_block(x_TD, layout, offsets, batch))
        return state_BD

    def embed_events(self, batch: TowerBatch, id_table: EmbeddingTable | None = None) -> Tensor:
        """Return [T, D], before any block.

        Args:
            batch: the rows.
            id_table: embeddings of the candidates, which stand for the events that name them.
        """
        numbers_TF = torch.cat([batch.time_TF, batch.log_price_T[:, None]], dim=1)
        x_TD: Tensor = self.numbers(numbers_TF) + self.event_type(batch.event_type_T)
        x_TD = x_TD + self.position(batch.position_T)
        advertiser_TD = _of_distinct(self._advertiser_vectors, batch.advertiser_T)
        static_IF = self.item_static_IF if batch.rows is None else batch.rows.static_NF
        item_TD = _of_distinct(lambda index_U: self.item(static_IF[index_U].float()), batch.item_T)
        x_TD = x_TD + advertiser_TD + item_TD
        if id_table is None:
            return x_TD
        index_T = batch.advertiser_T if self.level == "advertiser" else batch.item_T
        event_TD: Tensor = x_TD + id_table(index_T)
        return event_TD

    def _advertiser_vectors(self, index_U: Tensor) -> Tensor:
        vector_UD: Tensor = self.advertiser(self.advertiser_static_AF[index_U])
        return vector_UD if self.advertiser_id is None else vector_UD + self.advertiser_id(index_U)

    def _with_first_token(self, x_TD: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Put the first token in front of each history: it is the pooled state, or the empty one."""
        num = len(offsets) - 1
        history_T = torch.repeat_interleave(torch.arange(num, device=x_TD.device), offsets.diff())
        wide_TD = self.first_token.expand(x_TD.shape[0] + num, -1)
        place_T = torch.arange(x_TD.shape[0], device=x_TD.device) + history_T + 1
        return wide_TD.index_copy(0, place_T, x_TD), offsets + torch.arange(num + 1, device=x_TD.device)

    def _pool_last_block(
        self, x_TD: Tensor, layout: PackedLayout, offsets: Tensor, batch: TowerBatch
    ) -> Tensor:
        """Run the last block and pool; where one event stands for its history, only that one is computed."""
        if self.is_causal:
            # Event t of history s stands at t + s + 1; an empty prefix falls back on the first token.
            event_B = batch.last_event_B + batch.history_B + 1
            place_B = torch.where(batch.last_event_B < 0, offsets[batch.history_B], event_B)
            if not self.training and torch.equal(place_B, offsets[1:] - 1):
                return self.last_block.pool(x_TD, place_B, layout)
            return self.last_block.forward(x_TD, layout).index_select(0, place_B)
        if self.pooling == "mean":
            mean_SD = _segment_means(self.last_block.forward(x_TD, layout), offsets)
            return mean_SD.index_select(0, batch.history_B)
        place_S = offsets[:-1] if self.pooling == "cls" else offsets[1:] - 1
        return self.last_block.pool(x_TD, place_S, layout).index_select(0, batch.history_B)


def _build_block(settings: ModelSettings, is_causal: bool) -> TransformerBlock:
    width, dropout = settings.width, settings.dropout
    slope_H = alibi_slopes(settings.num_heads) if settings.position_bias == "alibi" else None
    attention = PackedSelfAttention(
        width, num_heads=settings.num_heads, is_causal=is_causal, distance_slope_H=slope_H
    )
    mlp = Mlp(width, hidden=2 * width, width_out=width, dropout=dropout)
    return TransformerBlock(attention, mlp, width=width, dropout=dropout)


def _of_distinct(encode: Callable[[Tensor], Tensor], index_T: Tensor) -> Tensor:
    """Return `encode(index_T)`, having encoded each index once: the events of a batch share few."""
    distinct_U, place_T = torch.unique(index_T, return_inverse=True)
    # Not `encode(...)[place_T]`: on several CPU threads the gradient of that depends on their race.
    return F.embedding(place_T, encode(distinct_U))


def _segment_means(x_TD: Tensor, offsets: Tensor) -> Tensor:
    length_S = offsets.diff()
    segment_T = torch.repeat_interleave(torch.arange(len(length_S), device=x_TD.device), length_S)
    summed_SD = x_TD.new_zeros(len(length_S), x_TD.shape[1]).index_add(0, segment_T, x_TD)
    return summed_SD / length_S[:, None]
