"""The parameters of the synthetic world against what the configuration promises."""

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from forecart.events.synthetic import SyntheticConfig, build_world, world_catalogue
from forecart.events.synthetic.draws import build_alias_table, stream_keys, uniforms


@pytest.fixture(scope="module")
def world():
    return build_world(SyntheticConfig(seed=5))


def test_the_same_seed_gives_the_same_world_and_another_seed_another(world):
    again, other = build_world(SyntheticConfig(seed=5)), build_world(SyntheticConfig(seed=6))
    assert np.array_equal(world.emission, again.emission)
    assert world_catalogue(world).equals(world_catalogue(again))
    assert not np.array_equal(world.edge_intents, other.edge_intents)


def test_an_intent_has_as_many_predecessors_as_successors_and_never_follows_itself(world):
    previous, present = world.edge_intents.T
    assert np.all(np.bincount(previous) == 3)
    assert np.all(np.bincount(present) == 3)
    assert np.all(previous != present)
    assert len(np.unique(world.edge_intents, axis=0)) == world.num_states == 36


def test_succession_is_not_symmetric_and_a_state_goes_on_from_where_it_is(world):
    one_way = world.intent_changes > 0.1
    assert np.mean(one_way & one_way.T) < 0.5 * np.mean(one_way)
    assert np.all(world.edge_intents[world.next_edges, 0] == world.edge_intents[:, 1][:, None])


def test_every_state_is_equally_likely_in_the_long_run(world):
    change = world.state_changes
    assert np.allclose(change.sum(axis=1), 1)
    assert np.allclose(change.sum(axis=0), 1)
    assert np.allclose(np.sort(change, axis=1)[:, -1], 0.98 * 0.97 + 0.02 / 36)


def test_the_favoured_successor_depends_on_the_intent_before(world):
    favoured = world.edge_intents[world.next_edges[:, 0], 1]
    for intent in range(world.config.num_intents):
        assert len(set(favoured[world.edge_intents[:, 1] == intent])) == 3


def test_state_changes_average_to_the_planted_succession(world):
    present = world.edge_intents[:, 1]
    by_intent = np.zeros((world.num_states, world.config.num_intents))
    np.add.at(by_intent.T, present, world.state_changes.T)
    for intent in range(world.config.num_intents):
        assert np.allclose(by_intent[present == intent].mean(axis=0), world.intent_changes[intent])


def test_an_intent_emits_its_own_advertisers_and_a_little_of_everything(world):
    assert np.allclose(world.emission.sum(axis=2), 1)
    own = world.advertiser_intent == np.arange(12)[:, None]
    share = (world.emission[1] * own).sum(axis=1)
    assert np.all((share > 0.94) & (share < 0.96))


def test_what_is_cold_does_not_exist_before_the_launch(world):
    assert world.is_cold_advertiser.sum() == round(0.04 * world.num_advertisers)
    assert np.all(world.emission[0][:, world.is_cold_advertiser] == 0)
    assert np.all(world.emission[1] > 0)
    assert 0 < np.sum(world.item_share[0] == 0) <= round(0.04 * world.num_items)
    shares = world.item_share.reshape(2, world.num_advertisers, -1).sum(axis=2)
    assert np.allclose(shares, 1)


def test_content_vectors_cluster_by_category(world):
    similarity = world.item_vector @ world.item_vector.T
    np.fill_diagonal(similarity, -1)
    nearest = similarity.argmax(axis=1)
    assert np.mean(world.item_intent[nearest] == world.item_intent) > 0.95
    assert np.allclose(np.linalg.norm(world.item_vector, axis=1), 1, atol=1e-5)


def test_the_catalogue_has_the_canonical_columns_sorted_by_id(world):
    catalogue = world_catalogue(world)
    expected = ["item_id", "advertiser_id", "title", "category", "price", "availability", "embedding"]
    assert catalogue.columns == expected
    assert catalogue.schema["embedding"] == pl.List(pl.Float32)
    assert catalogue["item_id"].to_list() == sorted(set(catalogue["item_id"]))
    assert catalogue["advertiser_id"].n_unique() == world.num_advertisers
    assert catalogue["advertiser_id"].unique().sort().to_list() == world.advertiser_ids
    assert catalogue["category"].str.split(" > ").list.len().unique().to_list() == [3]
    assert catalogue["price"].min() > 0
    assert catalogue.null_count().sum_horizontal().item() == 0


def test_one_number_sets_the_size():
    for num_events in (1_000, 1_000_000, 100_000_000):
        config = SyntheticConfig(num_events=num_events)
        assert config.num_users * 1.5 * 67.5 == pytest.approx(num_events, rel=0.06)


@pytest.mark.parametrize(
    "wrong",
    [
        {"type_shares": (0.5, 0.5, 0.5, 0.5)},
        {"late_hours": (5.0, 1.0)},
        {"successors_per_intent": 5, "num_intents": 5},
        {"join_days": 90},
        {"no_such_key": 1},
    ],
)
def test_a_wrong_configuration_is_refused(wrong):
    with pytest.raises(ValidationError):
        SyntheticConfig(**wrong)


@pytest.mark.parametrize("seed", range(8))
def test_the_smallest_graph_can_be_drawn(seed):
    world = build_world(SyntheticConfig(seed=seed, num_intents=3, successors_per_intent=2))
    assert len(np.unique(world.edge_intents, axis=0)) == 6


def test_alias_tables_draw_exactly_the_given_probabilities():
    probability = np.random.default_rng(0).dirichlet(np.full(7, 0.3), size=5)
    probability[0] = [0, 0.5, 0, 0.5, 0, 0, 0]
    table = build_alias_table(probability)
    drawn = table.accept / 7
    for row in range(5):
        np.add.at(drawn[row], table.alias[row], (1 - table.accept[row]) / 7)
    assert np.allclose(drawn, probability, atol=1e-12)


def test_uniform_draws_are_uniform_and_unrelated_between_users_streams_and_positions():
    position = np.arange(200, dtype=np.uint64)
    user = np.arange(500)
    draws = np.stack([uniforms(stream_keys(1, user, s)[:, None], position) for s in range(3)])
    counts = np.histogram(draws, bins=50, range=(0, 1))[0]
    assert ((counts - 6000) ** 2 / 6000).sum() < 90  # chi-square, 49 degrees of freedom
    centred = draws - 0.5
    for other in (np.roll(centred, 1, axis=0), np.roll(centred, 1, axis=1), np.roll(centred, 1, axis=2)):
        assert abs(np.mean(centred * other)) < 4 / 12 / np.sqrt(draws.size)
    assert len(np.unique(draws)) == draws.size
