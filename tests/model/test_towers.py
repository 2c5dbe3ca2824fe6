"""The towers one by one, each against its formula written as a loop."""

import math

import numpy as np
import pytest
import torch

from forecart.model.settings import ModelSettings
from forecart.model.tensors import to_tensors
from forecart.model.towers import (
    CandidateTower,
    HistorySummary,
    OwnHistoryTerm,
    StandardScaler,
    StaticFeatures,
    UserTower,
)
from forecart.sequences.own_history import FEATURES
from forecart.sequences.population import read_population
from planted_world import DAY, START, random_world

CUT = START + 25 * DAY
USERS = np.array([2, 3, 4, 5], np.int32)


@pytest.fixture(scope="module")
def world():
    return random_world()


@pytest.fixture(scope="module")
def batch(world):
    builder = world.builder(length=8)
    built = builder.build(USERS, np.full(4, CUT), population=read_population(builder.log, CUT))
    return to_tensors(built, torch.device("cpu"))


def tower_of(**given):
    torch.manual_seed(0)
    static_NF = torch.randn(20, 6, generator=torch.Generator().manual_seed(3))
    static = StaticFeatures(static_NF, static_NF, static_NF, 4, torch.arange(20) // 5, "item")
    small = {"width": 8, "id_rows": 32, "advertiser_embedding": "none", "feature_dropout": 0.0}
    return CandidateTower(static, settings=ModelSettings(**(small | given)))


def test_the_scaler_centres_scales_and_clips():
    sample_MF = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    scaler = StandardScaler(2)
    scaler.fit(sample_MF)
    torch.testing.assert_close(scaler(sample_MF), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    # A feature that never varied in the sample is divided by a thousandth, then clipped.
    assert scaler(torch.tensor([[1e6, 6.0]])).tolist() == [[10.0, 10.0]]
    scaler.fit(torch.zeros(0, 2))
    assert scaler.mean_F.tolist() == [2.0, 5.0]


def test_an_untrained_candidate_tower_compares_co_conversion_vectors():
    tower = tower_of(id_embedding="none", width=4)
    with torch.no_grad():
        tower.linear.weight[:, 4:] = 0
    vector_ND = tower(torch.arange(20))
    expected_ND = torch.nn.functional.normalize(tower.static_NF[:, :4], dim=1)
    torch.testing.assert_close(vector_ND, expected_ND)


def test_candidate_vectors_have_length_one_and_know_ids_that_features_do_not_tell():
    tower = tower_of()
    tower.static_NF[7] = tower.static_NF[5]
    vector_ND = tower(torch.tensor([5, 7]))
    torch.testing.assert_close(vector_ND.norm(dim=1), torch.ones(2))
    assert not torch.allclose(vector_ND[0], vector_ND[1], atol=1e-3)
    tower.id = None
    vector_ND = tower(torch.tensor([5, 7]))
    assert torch.equal(vector_ND[0], vector_ND[1])


def test_products_of_one_advertiser_share_its_embedding_and_those_of_none_have_zeros():
    tower, plain = (tower_of(id_embedding="none", advertiser_embedding=kind) for kind in ("hashed", "none"))
    plain.load_state_dict(tower.state_dict(), strict=False)
    moved_ND = tower(torch.arange(20)) - plain(torch.arange(20))
    # Advertisers 0 and 1 are padding and unknown.
    assert not moved_ND[:10].any() and moved_ND[10:].abs().sum(1).min() > 1e-3
    tower.static_NF[12], tower.static_NF[17] = tower.static_NF[11], tower.static_NF[11]
    same, mine, other = tower(torch.tensor([11, 12, 17]))
    assert torch.equal(same, mine) and not torch.allclose(mine, other, atol=1e-3)


def test_hidden_co_conversion_columns_are_hidden_whole_and_only_in_training():
    tower = tower_of(feature_dropout=0.5)
    index_N = torch.randint(20, (2000,))
    hidden_NF = tower._hide(tower.static_NF[index_N])
    is_hidden_N = (hidden_NF[:, :4] == 0).all(1)
    assert 0.45 < is_hidden_N.float().mean() < 0.55
    assert torch.equal(hidden_NF[~is_hidden_N], tower.static_NF[index_N][~is_hidden_N])
    assert torch.equal(hidden_NF[:, 4:], tower.static_NF[index_N][:, 4:])
    tower.eval()
    assert torch.equal(tower._hide(tower.static_NF), tower.static_NF)


def test_the_summary_is_a_weighted_sum_over_the_whole_history(world, batch):
    torch.manual_seed(0)
    static_NF = world.static().candidate_NF
    summary = HistorySummary(static_NF, num_collaborative=4, width=16, dropout=0.0)
    feature_MF = torch.randn(len(batch.own_row_M), len(FEATURES), requires_grad=True)
    got_BD = summary(feature_MF, batch)
    for row in range(4):
        total_F, square = torch.zeros(static_NF.shape[1]), torch.zeros(())
        for m in (batch.own_row_M == row).nonzero()[:, 0].tolist():
            weight = torch.log1p(summary.gate(feature_MF[m]).exp())[0] * batch.own_mass_M[m]
            total_F = total_F + weight * static_NF[batch.own_candidate_M[m]]
            square = square + weight**2
        expected_D = summary.linear.weight @ total_F / (square + 1e-6).sqrt()
        torch.testing.assert_close(got_BD[row], expected_D, rtol=1e-4, atol=1e-5)
        if row == 1:
            (grad_MF,) = torch.autograd.grad(got_BD[row].sum(), feature_MF, retain_graph=True)
            (expected_MF,) = torch.autograd.grad(expected_D.sum(), feature_MF)
            torch.testing.assert_close(grad_MF, expected_MF, rtol=1e-3, atol=1e-5)
    assert (got_BD[0] == 0).all()  # user 2 has no events


def test_the_summary_reads_candidates_that_the_encoder_has_forgotten(world):
    builder = world.builder(length=2)
    built = builder.build(USERS, np.full(4, CUT), population=read_population(builder.log, CUT))
    batch = to_tensors(built, torch.device("cpu"))
    seen = set(batch.advertiser_T[batch.offsets[1] : batch.offsets[2]].tolist())
    own = set(batch.own_candidate_M[batch.own_row_M == 1].tolist())
    assert own - seen


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({}, {"encoder", "from_state", "summary", "from_summary"}),
        ({"num_layers": 0}, {"summary", "from_summary"}),
        ({"use_summary": False}, {"encoder", "from_state"}),
        ({"num_layers": 0, "use_summary": False}, set()),
    ],
    ids=["both", "no encoder", "no summary", "neither"],
)
def test_the_user_tower_has_the_parts_that_are_asked_for_and_no_idle_weight(world, batch, given, parts):
    torch.manual_seed(0)
    settings = ModelSettings(width=16, history_length=8, id_rows=64, **given)
    tower = UserTower(world.static(), settings=settings, is_causal=False)
    assert {name.split(".")[0] for name, _ in tower.named_parameters()} == parts
    vector_BD = tower(batch, batch.own_feature_MF)
    is_known_B = torch.isin(torch.arange(4), batch.own_row_M)
    assert is_known_B.tolist() == [False, True, True, False]
    expected_B = torch.ones(4) if "encoder" in parts else is_known_B.float() * bool(parts)
    torch.testing.assert_close(vector_BD.norm(dim=1), expected_B)
    if parts:
        vector_BD.sum().backward()
        assert all(weight.grad is not None for weight in tower.parameters())


def test_the_own_term_starts_by_preferring_frequent_and_recent_candidates():
    term = OwnHistoryTerm(8, tower_share=0.0)
    plain = torch.zeros(1, len(FEATURES))
    frequent, long_ago = plain.clone(), plain.clone()
    frequent[0, FEATURES.index("log_visits_120d")] = 1
    long_ago[0, FEATURES.index("log_days_since_any")] = 1
    nothing = torch.zeros(1)
    assert term(frequent, nothing) > term(plain, nothing) > term(long_ago, nothing) > 0


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_own_term_replaces_the_rest_of_the_tower_logit(share):
    torch.manual_seed(0)
    term = OwnHistoryTerm(8, tower_share=share)
    torch.nn.init.normal_(term.mlp.to_output.weight)
    feature_MF, logit_M = torch.randn(5, len(FEATURES)), torch.randn(5, requires_grad=True)
    total_M = logit_M + term(feature_MF, logit_M)
    for m in range(5):
        inputs = torch.cat([feature_MF[m], 0.3 * share * logit_M[m, None]])
        hidden = term.mlp.to_hidden(inputs)
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        expected = term.mlp.to_output(hidden)[0] + term.linear(feature_MF[m])[0] + share * logit_M[m]
        torch.testing.assert_close(total_M[m], expected, rtol=1e-4, atol=1e-5)
    (grad_M,) = torch.autograd.grad(total_M.sum(), logit_M)
    assert (grad_M != 0).all() == (share > 0)
