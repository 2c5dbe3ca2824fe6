"""The Bayes filter against enumeration of every hidden path, matrix exponentials and fresh simulation."""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import polars as pl
import pytest
from scipy.linalg import expm

from forecart.errors import DataError
from forecart.events.synthetic import (
    LabelWindow,
    SyntheticConfig,
    bayes_scores,
    build_world,
    filter_states,
    generate_events,
)
from forecart.events.synthetic.world import DAY_US

CONVERSION_RATE = 0.6  # add_to_cart, checkout and signup, of one event


@dataclass(frozen=True)
class Observed:
    start: np.ndarray
    length: np.ndarray
    advertiser: np.ndarray
    occurred_us: np.ndarray
    arrived_us: np.ndarray
    item: np.ndarray
    is_conversion: np.ndarray
    user: np.ndarray


def observe(world):
    """All events of a world, by user and arrival, users and advertisers from index 2 on."""
    events = pl.concat(list(generate_events(world))).sort("user_id", "arrived_at", "ordinal")
    user = events["user_id"].str.slice(1).cast(pl.Int64).to_numpy() + 2
    length = np.bincount(user, minlength=world.config.num_users + 2)
    return Observed(
        start=np.cumsum(length) - length,
        length=length,
        advertiser=events["advertiser_id"].str.slice(3).cast(pl.Int32).to_numpy() + 2,
        occurred_us=events["occurred_at"].to_physical().to_numpy(),
        arrived_us=events["arrived_at"].to_physical().to_numpy(),
        item=events["item_id"].str.slice(4).cast(pl.Int32).fill_null(-2).to_numpy() + 2,
        is_conversion=(events["event_type"] != "view").to_numpy(),
        user=user,
    )


@pytest.fixture(scope="module")
def tiny():
    """Six hidden states, six advertisers, twelve items, and a launch on day 10."""
    return build_world(
        SyntheticConfig(
            seed=2,
            num_intents=3,
            successors_per_intent=2,
            favoured_share=0.8,
            restart_share=0.1,
            advertisers_per_intent=2,
            items_per_advertiser=2,
            noise_share=0.2,
            cold_share=0.2,
            launch_day=10.0,
        )
    )


@pytest.fixture(scope="module")
def tiny_history(tiny):
    """Four events; the third arrives out of order, the last one after the cut on day 11."""
    day = np.array([1.0, 4.5, 10.25, 2.25, 9.0])
    delay = np.array([0.0, 0.0, 0.0, 8.5, 3.0])
    warm = np.flatnonzero(~tiny.is_cold_advertiser)
    number = np.array([warm[0], warm[1], np.flatnonzero(tiny.is_cold_advertiser)[0], warm[3], warm[2]])
    occurred = tiny.config.start_us + (day * DAY_US).astype(np.int64)
    return Observed(
        start=np.array([0, 0, 0]),
        length=np.array([0, 0, 5]),
        advertiser=(number + 2).astype(np.int32),
        occurred_us=occurred,
        arrived_us=occurred + (delay * DAY_US).astype(np.int64),
        item=np.full(5, 2),
        is_conversion=np.ones(5, dtype=bool),
        user=np.full(5, 2),
    )


def generator(world):
    return world.config.intent_changes_per_day * (world.state_changes - np.eye(world.num_states))


def enumerate_posterior(world, days, numbers, cut_day):
    """Sums the probability of every path of hidden states through the times of the events and the cut."""
    kernels = [expm(generator(world) * gap) for gap in np.diff([*days, cut_day])]
    intent = world.edge_intents[:, 1]
    posterior = np.zeros(world.num_states)
    for path in product(range(world.num_states), repeat=len(days) + 1):
        probability = 1 / world.num_states
        for step, (day, number) in enumerate(zip(days, numbers, strict=True)):
            era = int(day >= world.config.launch_day)
            probability *= (
                world.emission[era, intent[path[step]], number] * kernels[step][path[step], path[step + 1]]
            )
        posterior[path[-1]] += probability
    return posterior / posterior.sum()


def exact_conversion(world, cut_day, window_days, rate):
    """[S, N] by one matrix exponential per candidate and era; `rate` [2, S, N] per day."""
    result = np.empty(rate.shape[1:])
    pieces = np.clip(world.config.launch_day, cut_day, cut_day + window_days)
    for candidate in range(rate.shape[2]):
        kernel = np.eye(world.num_states)
        for era, days in ((0, pieces - cut_day), (1, cut_day + window_days - pieces)):
            kernel = kernel @ expm((generator(world) - np.diag(rate[era, :, candidate])) * days)
        result[:, candidate] = 1 - kernel.sum(axis=1)
    return result


def cut_at(world, day):
    return world.config.start_us + int(day * DAY_US)


def test_the_filter_is_the_sum_over_every_hidden_path(tiny, tiny_history):
    got = filter_states(tiny, tiny_history, cut_us=cut_at(tiny, 11), user_index=np.array([2]))
    number = tiny_history.advertiser - 2
    expected = enumerate_posterior(tiny, [1.0, 2.25, 4.5, 10.25], number[[0, 3, 1, 2]], 11)
    assert np.allclose(got[0], expected, atol=1e-9)


@pytest.mark.parametrize("cut_day", [8.0, 11.0])
def test_scores_are_the_probability_of_a_conversion_in_the_window(tiny, tiny_history, cut_day):
    cut_us = cut_at(tiny, cut_day)
    posterior = filter_states(tiny, tiny_history, cut_us=cut_us, user_index=np.array([2]))
    rate = tiny.emission[:, tiny.edge_intents[:, 1]] * 1.5 * CONVERSION_RATE
    scores = bayes_scores(tiny, tiny_history, cut_us=cut_us, user_index=np.array([2]))
    assert np.allclose(scores[:, 2:], posterior @ exact_conversion(tiny, cut_day, 7.0, rate), atol=1e-6)


def test_item_scores_are_those_of_conversions_that_have_an_item(tiny, tiny_history):
    cut_us = cut_at(tiny, 8.0)
    posterior = filter_states(tiny, tiny_history, cut_us=cut_us, user_index=np.array([2]))
    by_advertiser = tiny.emission[:, tiny.edge_intents[:, 1]] * 1.5 * 0.52
    rate = by_advertiser[:, :, tiny.item_advertiser] * tiny.item_share[:, None]
    window = LabelWindow(level="item", window_days=5.0)
    scores = bayes_scores(tiny, tiny_history, cut_us=cut_us, user_index=np.array([2]), window=window)
    assert np.allclose(scores[:, 2:], posterior @ exact_conversion(tiny, 8.0, 5.0, rate), atol=1e-6)


def test_a_gap_moves_the_window(tiny, tiny_history):
    window = LabelWindow(gap_days=2.0, window_days=3.0, positives=("checkout",))
    args = {"cut_us": cut_at(tiny, 11.0), "user_index": np.array([2])}
    posterior = filter_states(tiny, tiny_history, **args) @ expm(generator(tiny) * 2.0)
    rate = tiny.emission[:, tiny.edge_intents[:, 1]] * 1.5 * 0.22
    scores = bayes_scores(tiny, tiny_history, **args, window=window)
    assert np.allclose(scores[:, 2:], posterior @ exact_conversion(tiny, 13.0, 3.0, rate), atol=1e-6)


def test_a_user_without_events_gets_the_long_run_answer(tiny, tiny_history):
    args = {"cut_us": cut_at(tiny, 11.0), "user_index": np.array([0, 2, 0])}
    posterior = filter_states(tiny, tiny_history, **args)
    assert np.allclose(posterior[[0, 2]], 1 / 6)
    scores = bayes_scores(tiny, tiny_history, **args)
    assert scores.dtype == np.float32
    assert scores.shape == (3, tiny.num_advertisers + 2)
    assert np.all(np.isneginf(scores[:, :2]))
    assert np.array_equal(scores[0], scores[2])


def test_what_arrives_after_the_cut_changes_nothing(tiny, tiny_history):
    args = {"cut_us": cut_at(tiny, 11.0), "user_index": np.array([2])}
    poison = np.where(tiny_history.arrived_us < args["cut_us"], tiny_history.advertiser, 3)
    assert not np.array_equal(poison, tiny_history.advertiser)
    scores = bayes_scores(tiny, tiny_history, **args)
    assert np.array_equal(scores, bayes_scores(tiny, replace(tiny_history, advertiser=poison), **args))


def test_a_history_of_another_world_is_refused(tiny, tiny_history):
    cold = np.full(5, np.flatnonzero(tiny.is_cold_advertiser)[0] + 2)
    with pytest.raises(DataError, match="this very world"):
        filter_states(
            tiny, replace(tiny_history, advertiser=cold), cut_us=cut_at(tiny, 8), user_index=np.array([2])
        )


@pytest.fixture(scope="module")
def simulated():
    world = build_world(SyntheticConfig(seed=11, num_events=60_000))
    return world, observe(world)


def conversions_after(world, observed, cut_us, level="advertiser"):
    """[users, N] whether the user converts in the seven days after the cut."""
    candidate, size = (
        (observed.advertiser, world.num_advertisers)
        if level == "advertiser"
        else (observed.item, world.num_items)
    )
    in_window = (observed.occurred_us >= cut_us) & (observed.occurred_us < cut_us + 7 * DAY_US)
    counted = in_window & observed.is_conversion & (candidate >= 2)
    converted = np.zeros((len(observed.start), size + 2), dtype=bool)
    converted[observed.user[counted], candidate[counted]] = True
    return converted


@pytest.mark.parametrize("cut_day", [66, 80])
def test_scores_are_calibrated_against_a_fresh_simulation(simulated, cut_day):
    world, observed = simulated
    users, cut_us = np.arange(2, len(observed.start)), cut_at(world, cut_day)
    probability = bayes_scores(world, observed, cut_us=cut_us, user_index=users)[:, 2:].astype(float)
    happened = conversions_after(world, observed, cut_us)[users, 2:]
    bucket = np.digitize(probability, [0.003, 0.01, 0.03, 0.07, 0.15, 0.3])
    for number in np.unique(bucket):
        inside = bucket == number
        expected = probability[inside].sum()
        # Conversions of one user go together, hence twice the variance of independent ones.
        spread = np.sqrt(2 * (probability * (1 - probability))[inside].sum())
        assert abs(happened[inside].sum() - expected) < 4 * spread + 1


def recall_at_10(scores, relevant):
    top = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    return np.mean(np.take_along_axis(relevant, top, axis=1).sum(axis=1) / relevant.sum(axis=1))


def test_the_ceiling_is_far_above_what_ignores_order(simulated):
    world, observed = simulated
    cut_us = cut_at(world, 80)
    relevant = conversions_after(world, observed, cut_us)
    users = np.flatnonzero(relevant.any(axis=1))
    ceiling = recall_at_10(bayes_scores(world, observed, cut_us=cut_us, user_index=users), relevant[users])
    known = observed.is_conversion & (observed.arrived_us < cut_us)
    counts = np.zeros(relevant.shape)
    np.add.at(counts, (observed.user[known], observed.advertiser[known]), 1)
    frequency = recall_at_10(counts[users] + 0.999 * (counts > 0).mean(axis=0), relevant[users])
    assert 0.3 < ceiling < 0.45
    assert frequency < 0.5 * ceiling


def test_the_filter_finds_the_intent_behind_the_last_events(simulated):
    world, observed = simulated
    users, cut_us = np.arange(2, len(observed.start)), cut_at(world, 80)
    posterior = filter_states(world, observed, cut_us=cut_us, user_index=users)
    by_intent = np.zeros((len(users), world.config.num_intents))
    np.add.at(by_intent.T, world.edge_intents[:, 1], posterior.T)
    # The truth to compare with: the intent of the advertisers of the next few hours' events.
    soon = (observed.occurred_us >= cut_us) & (observed.occurred_us < cut_us + DAY_US // 4)
    intent = world.advertiser_intent[observed.advertiser[soon] - 2]
    guess = by_intent.argmax(axis=1)[observed.user[soon] - 2]
    assert np.mean(guess == intent) > 0.5
