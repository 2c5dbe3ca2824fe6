"""Packed attention against dense attention of each row alone; hashed embeddings against collisions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from forecart.model.layers import (
    EmbeddingTable,
    HashedEmbedding,
    Mlp,
    PackedLayout,
    PackedSelfAttention,
    TransformerBlock,
    alibi_slopes,
)

WIDTH = 16
SLOPES = (0.0, 0.5)


def offsets_of(lengths):
    return torch.tensor([0, *lengths]).cumsum(0)


def dense_attention(layer, x_LD):
    """Softmax attention of one row, written out."""
    length, head_width = len(x_LD), WIDTH // layer.num_heads
    query, key, value = layer.to_query_key_value(x_LD).split(WIDTH, dim=1)
    heads = []
    for head in range(layer.num_heads):
        part = slice(head * head_width, (head + 1) * head_width)
        score_LL = query[:, part] @ key[:, part].T / math.sqrt(head_width)
        if layer.distance_slope_H is not None:
            place = torch.arange(length)
            score_LL = score_LL - SLOPES[head] * (place[:, None] - place).abs()
        if layer.is_causal:
            score_LL = score_LL.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
        heads.append(torch.softmax(score_LL, dim=1) @ value[:, part])
    return layer.to_output(torch.cat(heads, dim=1))


LENGTHS = pytest.mark.parametrize(
    "lengths",
    [
        pytest.param([3, 0, 1, 17, 5, 100, 4, 0, 5, 60], id="ragged"),
        pytest.param([6, 6, 6], id="equal"),
        pytest.param([1], id="one event"),
    ],
)


def attention_of(*, is_causal, has_slopes):
    torch.manual_seed(0)
    slope_H = torch.tensor(SLOPES) if has_slopes else None
    return PackedSelfAttention(WIDTH, num_heads=2, is_causal=is_causal, distance_slope_H=slope_H)


@LENGTHS
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("has_slopes", [False, True])
def test_packed_attention_is_dense_attention_of_each_row(lengths, is_causal, has_slopes):
    layer = attention_of(is_causal=is_causal, has_slopes=has_slopes)
    x_TD = torch.randn(sum(lengths), WIDTH, requires_grad=True)
    packed_TD = layer(x_TD, PackedLayout.from_offsets(offsets_of(lengths)))
    alone_TD = torch.cat([dense_attention(layer, row_LD) for row_LD in x_TD.split(lengths) if len(row_LD)])
    torch.testing.assert_close(packed_TD, alone_TD, rtol=1e-5, atol=1e-5)

    target_TD = torch.randn(packed_TD.shape)
    inputs = (x_TD, layer.to_query_key_value.weight)
    packed = torch.autograd.grad((packed_TD * target_TD).sum(), inputs)
    alone = torch.autograd.grad((alone_TD * target_TD).sum(), inputs)
    for got, expected in zip(packed, alone, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert (packed[0] != 0).any(1).all()


@pytest.mark.parametrize("has_slopes", [False, True])
@pytest.mark.parametrize(("is_causal", "asking"), [(False, [1, 16, 0, 0, 4]), (True, [2, 16, 0, 4, 4])])
def test_one_event_of_each_row_asks_as_it_does_among_all(is_causal, asking, has_slopes):
    """If causal, only the last of a row may ask."""
    layer = attention_of(is_causal=is_causal, has_slopes=has_slopes)
    lengths = [3, 17, 1, 5, 5]
    offsets, x_TD = offsets_of(lengths), torch.randn(sum(lengths), WIDTH)
    layout, place_B = PackedLayout.from_offsets(offsets), offsets[:-1] + torch.tensor(asking)
    torch.testing.assert_close(layer.attend_from(x_TD, place_B, layout), layer(x_TD, layout)[place_B])


def test_slopes_go_down_to_zero_by_factors_of_four():
    assert alibi_slopes(4).tolist() == [0, 1 / 16, 1 / 4, 1]
    assert alibi_slopes(1).tolist() == [1 / 4]


@pytest.mark.parametrize("is_causal", [False, True])
def test_events_of_other_rows_and_of_the_future_are_not_seen(is_causal):
    torch.manual_seed(0)
    layer = PackedSelfAttention(WIDTH, num_heads=4, is_causal=is_causal)
    layout = PackedLayout.from_offsets(offsets_of([4, 5, 3]))
    x_TD = torch.randn(12, WIDTH, requires_grad=True)
    (seen_TD,) = torch.autograd.grad(layer(x_TD, layout)[6].sum(), x_TD)  # the third event of the second row
    expected = [4, 5, 6] if is_causal else [4, 5, 6, 7, 8]
    assert (seen_TD != 0).any(1).nonzero()[:, 0].tolist() == expected


@settings(deadline=None, max_examples=60, derandomize=True)
@given(lengths=st.lists(st.integers(0, 120), max_size=30))
def test_a_layout_gives_every_event_its_own_slot_in_order(lengths):
    layout = PackedLayout.from_offsets(offsets_of(lengths))
    assert len(layout.slot_T) == sum(lengths) == len(set(layout.slot_T.tolist()))
    for slot_L in layout.slot_T.split(lengths) if lengths else []:
        assert (slot_L.diff() == 1).all()
    valid = [
        torch.ones(bucket.num_rows * bucket.length, dtype=torch.bool)
        if bucket.valid_RL is None
        else bucket.valid_RL.flatten()
        for bucket in layout.buckets
    ]
    holds_S = torch.cat([torch.zeros(0, dtype=torch.bool), *valid])
    assert len(holds_S) == layout.num_slots
    assert holds_S.nonzero()[:, 0].tolist() == sorted(layout.slot_T.tolist())


def test_a_layout_wastes_little_and_has_few_buckets():
    lengths = torch.randint(1, 101, (1000,), generator=torch.Generator().manual_seed(0)).tolist()
    layout = PackedLayout.from_offsets(offsets_of(lengths))
    assert len(layout.buckets) <= 21
    assert layout.num_slots < 1.13 * sum(lengths)


def test_a_batch_without_any_event_is_allowed():
    layout = PackedLayout.from_offsets(offsets_of([0, 0]))
    block = TransformerBlock(
        PackedSelfAttention(WIDTH, num_heads=2), Mlp(WIDTH, hidden=8, width_out=WIDTH), width=WIDTH
    )
    assert block(torch.zeros(0, WIDTH), layout).shape == (0, WIDTH)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="got 16 and 3"):
        PackedSelfAttention(16, num_heads=3)


def test_a_block_is_two_residual_branches_and_trains_every_weight():
    torch.manual_seed(0)
    mlp, norm = Mlp(WIDTH, hidden=32, width_out=WIDTH), nn.LayerNorm(WIDTH)
    block = TransformerBlock(PackedSelfAttention(WIDTH, num_heads=2), mlp, width=WIDTH, dropout=0.5)
    layout, x_TD = PackedLayout.from_offsets(offsets_of([3, 4])), torch.randn(7, WIDTH)
    trained_TD = block(x_TD, layout)
    block.eval()
    out_TD = block(x_TD, layout)
    assert not torch.allclose(trained_TD, out_TD)
    middle_TD = x_TD + block.attention(norm(x_TD), layout)
    torch.testing.assert_close(out_TD, middle_TD + mlp(norm(middle_TD)))
    out_TD.square().sum().backward()
    assert all((weight.grad != 0).any() for weight in block.parameters())


def test_a_table_starts_where_it_is_told_and_is_zero_for_padding_and_unknown():
    torch.manual_seed(0)
    start_ND = torch.zeros(200, 8)
    start_ND[:4], start_ND[5] = torch.tensor(0.5), torch.arange(8.0)
    table = EmbeddingTable(200, 8, start_ND=start_ND)
    index = torch.tensor([[0, 1], [3, 5]])
    assert torch.equal(table(index)[0], torch.zeros(2, 8))
    assert torch.equal(table(index)[1], start_ND[[3, 5]])
    for random in (table(torch.arange(6, 200)), EmbeddingTable(200, 8)(torch.arange(2, 200))):
        assert 0.9 < random.detach().norm(dim=1).square().mean() < 1.1
    table(index).sum().backward()
    assert table.weight.grad.any(1).nonzero()[:, 0].tolist() == [3, 5]


def test_a_hashed_embedding_is_the_sum_of_its_rows_and_zero_for_padding_and_unknown():
    torch.manual_seed(0)
    embedding = HashedEmbedding(50, 8, num_hashes=3)
    index = torch.tensor([[0, 1], [2, 999_999_999]], dtype=torch.int32)
    vector = embedding(index)
    assert vector.shape == (2, 2, 8)
    assert (vector[0] == 0).all()
    for column in range(2):
        rows = embedding.rows(index[1, column])
        torch.testing.assert_close(vector[1, column], sum(embedding.weight[row] for row in rows.tolist()))
    vector[0].sum().backward()
    assert (embedding.weight.grad == 0).all()


def test_hashes_spread_are_independent_and_seeded():
    embedding = HashedEmbedding(1000, 4, num_hashes=2, seed=3)
    index = torch.arange(2, 100_002)
    rows_VK = embedding.rows(index)
    assert rows_VK.min() >= 0 and rows_VK.max() < 1000
    for hash_number in range(2):
        count = torch.bincount(rows_VK[:, hash_number], minlength=1000).double()
        # 100 a row; a Poisson count has a standard deviation of 10.
        assert count.std() < 12 and count.min() > 50
    # 100,000 indices, 1,000,000 pairs of rows: 95,163 distinct pairs are expected of independent hashes.
    distinct = len(torch.unique(rows_VK[:, 0] * 1000 + rows_VK[:, 1]))
    assert abs(distinct - 95_163) < 600
    assert torch.equal(rows_VK, HashedEmbedding(1000, 4, num_hashes=2, seed=3).rows(index))
    assert not torch.equal(rows_VK, HashedEmbedding(1000, 4, num_hashes=2, seed=4).rows(index))


def test_a_checkpoint_carries_its_hash_functions():
    saved, loaded = HashedEmbedding(100, 4, seed=1), HashedEmbedding(100, 4, seed=2)
    loaded.load_state_dict(saved.state_dict())
    index = torch.arange(300)
    assert torch.equal(loaded(index), saved(index))


def test_hashed_vectors_have_a_length_of_about_one():
    torch.manual_seed(0)
    length = HashedEmbedding(2000, 64, num_hashes=2)(torch.arange(2, 1000)).norm(dim=1)
    assert 0.9 < length.mean() < 1.1
