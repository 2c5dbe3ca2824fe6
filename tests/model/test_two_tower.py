"""The score is the sum of its three parts, pair by pair."""

import numpy as np
import pytest
import torch

from forecart.model.settings import ModelSettings
from forecart.model.static_features import CandidateStart
from forecart.model.tensors import to_tensors
from forecart.model.two_tower import TwoTower
from forecart.sequences.population import read_population
from planted_world import DAY, START, random_world

CUT = START + 25 * DAY
USERS = np.array([2, 3, 4, 9], np.int32)


@pytest.fixture(scope="module")
def world():
    return random_world()


def batch_of(world, level):
    builder = world.builder(level, length=8)
    built = builder.build(USERS, np.full(len(USERS), CUT), population=read_population(builder.log, CUT))
    return to_tensors(built, torch.device("cpu"))


def settings_of(**given):
    return ModelSettings(**({"width": 16, "history_length": 8, "id_rows": 64, "own_width": 4} | given))


def naive_score(model, batch, cosine, row, candidate):
    """One pair: cosine / temperature + prior + own term."""
    temperature = min(max(float(torch.exp(-model.log_scale)), 0.01), 10.0)
    tower = cosine / temperature
    share_S = batch.log_share_NS[candidate].double()
    prior = sum(10 * float(w) * float(x) for w, x in zip(model.prior, share_S, strict=True))
    score = tower + (prior if model.bias is None else float(model.bias[candidate]))
    own = ((batch.own_row_M == row) & (batch.own_candidate_M == candidate)).nonzero()[:, 0]
    if model.own is None or len(own) == 0:
        return score
    scaled_F = (batch.own_feature_MF[own[0]] - model.scaler.mean_F) / model.scaler.scale_F
    share = model.settings.own_tower_share
    inputs = torch.cat([scaled_F.clamp(-10, 10), torch.tensor([0.3 * share * tower])])
    term = float(model.own.mlp(inputs)[0]) + float(model.own.linear(scaled_F.clamp(-10, 10))[0])
    return score - tower + share * tower + term


CASES = {
    "default": {},
    "no tower share": {"own_tower_share": 0.0},
    "some tower share": {"own_tower_share": 0.4},
    "no own history": {"use_own_history": False},
    "no encoder": {"num_layers": 0},
    "no summary": {"use_summary": False},
    "no id": {"id_embedding": "none"},
    "no advertiser": {"advertiser_embedding": "none"},
    "mean": {"pooling": "mean"},
    "last": {"pooling": "last"},
    "table": {"id_embedding": "table"},
    "learned prior": {"prior": "learned"},
    "alibi": {"position_bias": "alibi"},
}


@pytest.mark.parametrize("level", ["advertiser", "item"])
@pytest.mark.parametrize("given", CASES.values(), ids=CASES.keys())
@torch.no_grad()
def test_a_score_is_cosine_prior_and_own_term_pair_by_pair(world, given, level):
    model, batch = world.model(settings_of(**given), level=level).eval(), batch_of(world, level)
    model.scaler.fit(batch.own_feature_MF)
    model.log_scale.fill_(1.7)
    model.prior.copy_(torch.tensor([0.1, -0.2, 0.05, 0.3, -0.15]))
    if model.bias is not None:
        model.bias.copy_(torch.randn(model.num_candidates))
    score_BN = model(batch)
    assert score_BN.shape == (len(USERS), model.num_candidates)
    user_BD, candidate_ND = model.encode_users(batch), model.encode_candidates()
    cosine_BN = torch.cosine_similarity(user_BD[:, None].double(), candidate_ND[None].double(), dim=2)
    for row in range(len(USERS)):
        for candidate in range(model.num_candidates):
            expected = naive_score(model, batch, float(cosine_BN[row, candidate]), row, candidate)
            assert float(score_BN[row, candidate]) == pytest.approx(expected, abs=2e-4)


def test_without_tower_share_own_pairs_send_no_gradient_to_the_towers(world):
    model, batch = world.model(settings_of(own_tower_share=0.0, dropout=0.0)), batch_of(world, "advertiser")
    score_BN = model(batch)
    own = score_BN[batch.own_row_M, batch.own_candidate_M].sum()
    grads = torch.autograd.grad(own, list(model.user_tower.parameters()), retain_graph=True)
    assert max(float(grad.abs().max()) for grad in grads) < 1e-5
    grads = torch.autograd.grad(score_BN[0].sum(), list(model.user_tower.encoder.parameters()))
    assert max(float(grad.abs().max()) for grad in grads) > 1e-3


@pytest.mark.parametrize("level", ["advertiser", "item"])
def test_a_table_is_shared_by_candidates_and_the_events_that_name_them(world, level):
    model, batch = world.model(settings_of(id_embedding="table"), level=level), batch_of(world, level)
    table = model.candidate_tower.id
    (grad_ND,) = torch.autograd.grad(model.encode_users(batch)[:, 0].sum(), table.weight)
    named = (batch.advertiser_T if level == "advertiser" else batch.item_T).unique()
    assert grad_ND.any(1).nonzero()[:, 0].tolist() == [index for index in named.tolist() if index >= 2]
    (grad_ND,) = torch.autograd.grad(model.encode_candidates()[:, 0].sum(), table.weight)
    assert grad_ND[2:].any(1).all()


def test_what_is_learned_per_candidate_starts_where_it_is_told(world):
    start = CandidateStart(torch.rand(world.num_items, 16), torch.rand(world.num_items))
    settings = settings_of(id_embedding="table", prior="learned")
    model = TwoTower(world.static("item"), settings=settings, start=start)
    assert torch.equal(model.candidate_tower.id.weight, start.id_ND)
    assert torch.equal(model.prior_logit(batch_of(world, "item").log_share_NS), start.bias_N)


def test_the_temperature_is_learned_within_its_bounds(world):
    model = world.model(settings_of(temperature=0.25))
    assert model.temperature().item() == pytest.approx(0.25)
    for log_scale, expected in ((50.0, 0.01), (-50.0, 10.0)):
        model.log_scale.data.fill_(log_scale)
        assert model.temperature().item() == pytest.approx(expected)
    with pytest.raises(ValueError, match="less than or equal to 10"):
        settings_of(temperature=20.0)


def test_bfloat16_is_for_the_towers_in_training_only(world):
    model, batch = world.model(settings_of(dropout=0.0, feature_dropout=0.0)), batch_of(world, "advertiser")
    exact_BN = model(batch)
    model.tower_dtype = torch.bfloat16
    rough_BN = model(batch)
    assert rough_BN.dtype == torch.float32
    assert not torch.equal(rough_BN, exact_BN)
    torch.testing.assert_close(rough_BN, exact_BN, rtol=0.1, atol=0.3)
    rough_BN.logsumexp(1).sum().backward()
    assert all(value.grad.isfinite().all() for value in model.parameters() if value.grad is not None)
    model.eval()
    torch.testing.assert_close(model(batch), exact_BN)


def test_heads_divide_the_width_where_there_are_heads():
    with pytest.raises(ValueError, match="16 and 3 arrived"):
        settings_of(num_heads=3)
    assert settings_of(num_heads=3, num_layers=0).width == 16


@pytest.mark.parametrize("num_layers", [0, 2])
def test_every_weight_is_trained(world, num_layers):
    model, batch = world.model(settings_of(num_layers=num_layers)), batch_of(world, "advertiser")
    model(batch).square().sum().backward()
    idle = {name for name, value in model.named_parameters() if value.grad is None}
    assert idle == set()
