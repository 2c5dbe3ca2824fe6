"""Embeddings put together give the model's own scores, for any batch of users and either kind of model."""

import numpy as np
import pytest
import torch

from forecart.embedding.candidates import embed_candidates
from forecart.embedding.users import embed_users
from forecart.model.settings import ModelSettings
from forecart.model.tensors import to_tensors
from forecart.sequences.population import read_population
from planted_world import CODES, DAY, START, random_world

CUT = START + 25 * DAY
USERS = np.array([2, 3, 4, 9, 12], np.int32)


@pytest.fixture(scope="module")
def world():
    return random_world()


def parts_of(world, *, level="advertiser", is_causal=False, **given):
    small = {"width": 16, "history_length": 8, "id_rows": 64}
    model = world.model(ModelSettings(**(small | given)), level=level, is_causal=is_causal)
    model.prior.data = torch.tensor([0.1, -0.2, 0.3, 0.2, -0.05])
    builder = world.builder(level, length=8, is_causal=is_causal)
    return model, builder, read_population(builder.log, CUT)


def embed(model, builder, population, users=USERS):
    candidates = embed_candidates(model, population)
    embedded = embed_users(model, builder, users, cut_us=CUT, population=population, candidates=candidates)
    return candidates, embedded


@pytest.mark.parametrize("level", ["advertiser", "item"])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(
    "given", [{}, {"own_tower_share": 0.0}, {"use_own_history": False}, {"num_layers": 0}], ids=str
)
def test_cosine_bias_and_term_add_up_to_the_model_s_score(world, level, is_causal, given):
    model, builder, population = parts_of(world, level=level, is_causal=is_causal, **given)
    candidates, users = embed(model, builder, population)
    score_BN = (users.vector_BD @ candidates.vector_ND.T + candidates.prior_N).numpy().astype(np.float64)
    for row, candidate, term in zip(users.own_row_M, users.own_candidate_M, users.own_term_M, strict=True):
        score_BN[row, candidate] += float(term)
    batch = builder.build(USERS, np.full(len(USERS), CUT), population=population)
    with torch.no_grad():
        logit_BN = model.eval()(to_tensors(batch, torch.device("cpu")))
    np.testing.assert_allclose(score_BN / candidates.temperature, logit_BN, rtol=1e-4, atol=1e-4)
    assert candidates.temperature == pytest.approx(model.settings.temperature)
    assert not users.vector_BD.requires_grad and not candidates.vector_ND.requires_grad
    assert np.array_equal(users.user_index, USERS)


def test_the_model_is_put_into_evaluation_so_that_nothing_is_dropped(world):
    model, builder, population = parts_of(world, dropout=0.5, feature_dropout=0.5)
    model.train()
    first, again = embed(model, builder, population), embed(model, builder, population)
    assert torch.equal(first[0].vector_ND, again[0].vector_ND)
    assert torch.equal(first[1].vector_BD, again[1].vector_BD)


def test_a_user_s_embedding_does_not_depend_on_the_others_in_the_batch(world):
    model, builder, population = parts_of(world)
    _, together = embed(model, builder, population)
    for row, user in enumerate(USERS):
        _, alone = embed(model, builder, population, np.array([user]))
        mine = together.own_row_M == row
        torch.testing.assert_close(alone.vector_BD[0], together.vector_BD[row], rtol=1e-4, atol=1e-5)
        assert torch.equal(alone.own_candidate_M, together.own_candidate_M[mine])
        torch.testing.assert_close(alone.own_term_M, together.own_term_M[mine], rtol=1e-4, atol=1e-5)


def test_a_user_without_events_has_no_own_pair_and_no_vector_without_an_encoder(world):
    for num_layers, length in ((1, 1.0), (0, 0.0)):
        model, builder, population = parts_of(world, num_layers=num_layers)
        _, users = embed(model, builder, population)
        assert (users.own_row_M != 0).all()
        assert users.vector_BD[0].norm().item() == pytest.approx(length)


def test_conversions_before_the_cut_are_marked(world):
    model, builder, population = parts_of(world)
    _, users = embed(model, builder, population)
    events, expected = world.histories, set()
    for row, user in enumerate(USERS):
        for event in range(events.start[user], events.start[user] + events.length[user]):
            if events.event_type[event] == CODES["checkout"] and events.arrived_us[event] < CUT:
                expected.add((row, int(events.advertiser[event])))
    marked = users.has_converted_M
    found = zip(users.own_row_M[marked].tolist(), users.own_candidate_M[marked].tolist(), strict=True)
    assert set(found) == expected and expected
    assert (~marked).any()
