"""The encoder: what it may see, what it must notice, and that its short cut changes nothing."""

import dataclasses

import numpy as np
import pytest
import torch

from forecart.model.event_encoder import EventEncoder
from forecart.model.settings import ModelSettings
from forecart.model.tensors import to_tensors
from forecart.sequences.population import read_population
from planted_world import CODES, DAY, START, random_world

CPU = torch.device("cpu")
CUT = START + 25 * DAY
USERS = np.array([2, 3, 4, 5, 6, 7], np.int32)


@pytest.fixture(scope="module")
def world():
    return random_world()


def settings_of(**given):
    return ModelSettings(**({"width": 16, "history_length": 12, "dropout": 0.0, "id_rows": 64} | given))


def encoder_of(world, *, is_causal=False, **given):
    torch.manual_seed(0)
    encoder = EventEncoder(world.static(), settings=settings_of(**given), is_causal=is_causal)
    torch.nn.init.normal_(encoder.first_token)
    return encoder.eval()


def batch_of(world, users=USERS, cuts=CUT, *, is_causal=False, length=12):
    cuts = np.broadcast_to(np.int64(cuts), len(users)).copy()
    builder = world.builder(length=length, is_causal=is_causal)
    population = read_population(builder.log, int(cuts.min()))
    return to_tensors(builder.build(users, cuts, population=population), CPU)


def changed(world, row, **values):
    """The world with one event made another; `row` counts all events of all users."""
    arrays = {name: getattr(world.histories, name).copy() for name in values}
    for name, value in values.items():
        arrays[name][row] = value
    return dataclasses.replace(world, histories=dataclasses.replace(world.histories, **arrays))


def last_known_event(world, user, cut):
    return int(world.histories.end_at(user, cut)) - 1


# Of four heads: what attention loses with each place of distance.
ALIBI_SLOPES = (0, 1 / 16, 1 / 4, 1)


def dense_encoder(encoder, batch, position_bias="none"):
    """Each history alone through the same blocks, without packing and without the short cut."""
    x_TD = encoder.embed_events(batch)
    states = []
    for row in range(batch.num_rows):
        begin, end = batch.offsets[batch.history_B[row]], batch.offsets[batch.history_B[row] + 1]
        x_LD = torch.cat([encoder.first_token[None], x_TD[begin:end]])
        for block in [*encoder.blocks, encoder.last_block]:
            attention = block.attention
            query, key, value = attention.to_query_key_value(block.attention_norm(x_LD)).chunk(3, dim=1)
            heads = zip(*(part.chunk(attention.num_heads, 1) for part in (query, key, value)), strict=True)
            mask = torch.ones(len(x_LD), len(x_LD)).triu(1).bool() & encoder.is_causal
            place = torch.arange(len(x_LD))
            distance_LL = (place[:, None] - place).abs()
            out = []
            slopes = ALIBI_SLOPES if position_bias == "alibi" else (0,) * attention.num_heads
            for (q, k, v), slope in zip(heads, slopes, strict=True):
                score_LL = q @ k.T / q.shape[1] ** 0.5 - slope * distance_LL
                out.append(torch.softmax(score_LL.masked_fill(mask, -torch.inf), 1) @ v)
            x_LD = x_LD + attention.to_output(torch.cat(out, 1))
            x_LD = x_LD + block.mlp(block.mlp_norm(x_LD))
        last = int(batch.last_event_B[row] - begin) + 1 if batch.last_event_B[row] >= 0 else 0
        pooled = {"cls": x_LD[0], "mean": x_LD.mean(0), "last": x_LD[last]}
        states.append(pooled["last" if encoder.is_causal else encoder.pooling])
    return encoder.norm(torch.stack(states))


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_every_pooling_is_that_of_each_history_alone(world, pooling, num_layers):
    encoder, batch = encoder_of(world, pooling=pooling, num_layers=num_layers), batch_of(world)
    state_BD = encoder(batch)
    torch.testing.assert_close(state_BD, dense_encoder(encoder, batch), rtol=1e-4, atol=1e-5)
    weights = [value for value in encoder.parameters() if value.requires_grad]
    target_BD = torch.randn(state_BD.shape, generator=torch.Generator().manual_seed(0))
    packed = torch.autograd.grad((state_BD * target_BD).sum(), weights)
    alone = torch.autograd.grad((dense_encoder(encoder, batch) * target_BD).sum(), weights)
    for got, expected in zip(packed, alone, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_attention_that_fades_with_distance_is_that_of_each_history_alone(world, pooling):
    encoder = encoder_of(world, pooling=pooling, num_heads=4, position_bias="alibi")
    batch = batch_of(world)
    alone_BD = dense_encoder(encoder, batch, "alibi")
    torch.testing.assert_close(encoder(batch), alone_BD, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(alone_BD, dense_encoder(encoder, batch), atol=1e-3)


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_a_user_without_events_gets_the_state_of_the_first_token_alone(world, pooling):
    encoder = encoder_of(world, pooling=pooling)
    together, alone = encoder(batch_of(world)), encoder(batch_of(world, USERS[:1]))
    assert batch_of(world, USERS[:1]).num_rows == 1 and len(batch_of(world, USERS[:1]).item_T) == 0
    torch.testing.assert_close(together[:1], alone)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"advertiser": 3},
        {"item": 24},
        {"event_type": CODES["signup"]},
        {"price": 1000.0},
        {"occurred_us": START - 30 * DAY},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_feature_of_an_event_matters_to_its_user_alone(world, change):
    encoder, user = encoder_of(world), 3
    event = last_known_event(world, user, CUT)
    for name, value in change.items():
        assert getattr(world.histories, name)[event] != value
    before, after = encoder(batch_of(world)), encoder(batch_of(changed(world, event, **change)))
    moved_B = (before - after).abs().amax(1)
    assert moved_B[user == USERS] > 1e-4
    torch.testing.assert_close(after[user != USERS], before[user != USERS], rtol=1e-4, atol=1e-5)


def test_the_order_of_events_matters(world):
    encoder, user = encoder_of(world), 4
    event = last_known_event(world, user, CUT)
    rows = [event, event - 1]
    assert world.histories.item[rows[0]] != world.histories.item[rows[1]]
    swapped = changed(
        world,
        rows,
        advertiser=world.histories.advertiser[rows[::-1]],
        item=world.histories.item[rows[::-1]],
        event_type=world.histories.event_type[rows[::-1]],
        price=world.histories.price[rows[::-1]],
    )
    assert (encoder(batch_of(swapped)) - encoder(batch_of(world)))[user == USERS].abs().max() > 1e-4


def test_a_later_cut_over_the_same_events_is_another_state(world):
    encoder = encoder_of(world)
    latest = START + 60 * DAY
    now, later = encoder(batch_of(world, cuts=latest)), encoder(batch_of(world, cuts=latest + 7 * DAY))
    assert (now - later)[1:].abs().amax(1).min() > 1e-4


def dense_rows():
    """Three users with three cuts each; a user's rows stand together."""
    users = np.repeat(np.array([3, 4, 5], np.int32), 3)
    cuts = np.tile(START + DAY * np.array([1, 14, 28]), 3)
    return users, cuts


@pytest.mark.parametrize("position_bias", ["none", "alibi"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_causal_row_is_the_row_of_a_batch_with_its_prefix_only(world, num_layers, position_bias):
    encoder = encoder_of(
        world,
        is_causal=True,
        num_layers=num_layers,
        num_heads=4,
        position_bias=position_bias,
        history_length=40,
    )
    users, cuts = dense_rows()
    batch = batch_of(world, users, cuts, is_causal=True, length=40)
    assert len(batch.offsets) - 1 == 3
    shared_BD = encoder(batch)
    alone_BD = dense_encoder(encoder, batch, position_bias)
    torch.testing.assert_close(shared_BD, alone_BD, rtol=1e-4, atol=1e-5)
    for row, (user, cut) in enumerate(zip(users, cuts, strict=True)):
        alone_1D = encoder(batch_of(world, np.array([user]), cut, is_causal=True, length=40))
        torch.testing.assert_close(shared_BD[row], alone_1D[0], rtol=1e-4, atol=1e-5)


def test_what_arrives_after_a_causal_row_changes_nothing_in_it(world):
    encoder = encoder_of(world, is_causal=True, history_length=40)
    users, cuts = dense_rows()
    before_BD = encoder(batch_of(world, users, cuts, is_causal=True, length=40))
    event = last_known_event(world, 4, cuts[2])
    assert world.histories.arrived_us[event] >= cuts[1]
    poisoned = changed(world, event, advertiser=3, item=24, price=9e3, event_type=CODES["signup"])
    after_BD = encoder(batch_of(poisoned, users, cuts, is_causal=True, length=40))
    is_poisoned_B = (users == 4) & (cuts == cuts[2])
    assert torch.equal(after_BD[~is_poisoned_B], before_BD[~is_poisoned_B])
    assert (after_BD - before_BD)[is_poisoned_B].abs().max() > 1e-4
