"""Counts of what follows what against a loop; vectors of a planted order, of the past alone."""

import dataclasses
import itertools

import numpy as np
import pytest

from forecart.sequences.successors import (
    SuccessorSettings,
    SuccessorTerm,
    count_successors,
    read_neighbour_vectors,
    transition_weights,
)
from planted_world import CODES, DAY, START, World, cycle_world, random_world

AS_OF = START + 20 * DAY


def test_counts_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    user, candidate = np.sort(rng.integers(2, 6, 60)).astype(np.int32), rng.integers(2, 9, 60)
    expected = np.zeros((9, 9))
    for first in range(60):
        for second in range(first + 1, min(first + 5, 60)):
            if user[first] == user[second]:
                expected[candidate[first], candidate[second]] += 0.5 ** (second - first - 1)
    counted = count_successors(user, candidate.astype(np.int32), num_candidates=9, num_places=4, decay=0.5)
    np.testing.assert_allclose(counted.toarray(), expected)


def test_rows_at_one_time_are_one_place():
    rng = np.random.default_rng(1)
    user = np.sort(rng.integers(2, 6, 60)).astype(np.int32)
    time = np.sort(rng.integers(0, 8, 60) + 10 * user)
    candidate = rng.integers(2, 9, 60).astype(np.int32)
    expected = np.zeros((9, 9))
    for one in range(2, 6):
        times = sorted(set(time[user == one]))
        for i, j in ((i, j) for i in range(60) for j in range(60) if user[i] == user[j] == one):
            distance = times.index(time[j]) - times.index(time[i])
            if 1 <= distance <= 3:
                expected[candidate[i], candidate[j]] += 0.5 ** (distance - 1)
    counted = count_successors(user, candidate, time, num_candidates=9, num_places=3, decay=0.5)
    np.testing.assert_allclose(counted.toarray(), expected)


def test_what_stands_near_lies_near():
    world = cycle_world(num_advertisers=40)
    vectors = read_neighbour_vectors(world.log(), as_of_us=AS_OF, width=16)
    assert vectors.shape == (world.num_advertisers, 16) and vectors.dtype == np.float32
    assert not vectors[:2].any()
    length = np.linalg.norm(vectors, axis=1)
    assert length[2:].mean() == pytest.approx(1, rel=1e-5)
    unit = vectors[2:] / length[2:, None]
    cosine = unit @ unit.T
    # Going round the hidden cycle, by the order in which one user met the advertisers.
    met = world.histories.advertiser[world.histories.start[2] :][:30] - 2
    steps = {step: cosine[met[:-step], met[step:]].mean() for step in (1, 3, 10, 15)}
    assert steps[1] > 0.9 > steps[3] > 0.5 and max(abs(steps[10]), abs(steps[15])) < 0.1


def test_the_products_are_the_best_of_their_rank():
    """Against a dense matrix and a full decomposition of it."""
    world = random_world(num_users=40)
    log, size = world.log(), world.num_advertisers
    histories = log.histories
    user = histories.event_users()
    row = np.lexsort((histories.arrived_us, histories.occurred_us, user))
    row = row[histories.arrived_us[row] < AS_OF]
    near = np.zeros((size, size))
    for first in range(len(row)):
        for second in range(first + 1, min(first + 11, len(row))):
            if user[row[first]] == user[row[second]]:
                pair = histories.advertiser[row[first]], histories.advertiser[row[second]]
                near[pair] += 0.8 ** (second - first - 1)
                near[pair[::-1]] += 0.8 ** (second - first - 1)
    total = near.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.nan_to_num(np.log(near * near.sum() / np.outer(total, total)), neginf=0.0)
    value, vector = np.linalg.eigh(np.maximum(information, 0))
    expected = vector[:, -3:] * np.sqrt(value[-3:])
    expected /= np.linalg.norm(expected, axis=1)[total > 0].mean()
    vectors = read_neighbour_vectors(log, as_of_us=AS_OF, width=3)
    np.testing.assert_allclose(vectors @ vectors.T, expected @ expected.T, atol=1e-4)


def test_a_few_that_no_leading_vector_tells_of_have_zeros():
    """Two candidates of their own users beside a large cycle: not a rounding error for a vector."""
    world = cycle_world(num_users=60, num_advertisers=40)
    advertiser = world.histories.advertiser.copy()
    advertiser[-30:] = np.tile([42, 43], 15)
    apart = World(dataclasses.replace(world.histories, advertiser=advertiser), 44, 2)
    vectors = read_neighbour_vectors(apart.log(), as_of_us=AS_OF, width=2)
    length = np.linalg.norm(vectors, axis=1)
    assert all(one == 0 or one > 1e-3 for one in length) and (length > 0).any() and (length[2:] == 0).any()


def test_nothing_after_the_cut_matters():
    world = random_world(num_users=40)
    histories = world.histories
    late = histories.arrived_us >= AS_OF
    assert late.sum() > 50
    changed = histories.advertiser.copy()
    changed[late] = 2 + (changed[late] + 3) % (world.num_advertisers - 2)
    poisoned = dataclasses.replace(histories, advertiser=changed)
    vectors, after = (
        read_neighbour_vectors(one.log(), as_of_us=AS_OF, width=4)
        for one in (world, dataclasses.replace(world, histories=poisoned))
    )
    assert vectors.any() and np.array_equal(vectors, after)


@pytest.mark.parametrize("days", [0, 1])
def test_too_little_to_go_by_gives_zeros(days):
    """No event, or one of each user."""
    world = cycle_world()
    log = world.log()
    vectors = read_neighbour_vectors(log, as_of_us=START + days * DAY, width=8)
    assert vectors.shape == (world.num_advertisers, 8) and not vectors.any()


def test_a_width_beyond_the_rank_is_filled_with_zeros():
    world = random_world(num_users=40)
    vectors = read_neighbour_vectors(world.log(), as_of_us=AS_OF, width=32)
    assert vectors[:, :4].any() and not vectors[:, world.num_advertisers :].any()


def test_what_follows_everything_counts_for_less():
    user = np.array([2, 2, 2, 3, 3, 3], np.int32)
    candidate = np.array([2, 3, 4, 5, 3, 4], np.int32)
    weights = transition_weights(count_successors(user, candidate, num_candidates=6, num_places=1), 0.5)
    # 2 -> 3 and 5 -> 3 once each, 3 -> 4 twice.
    expected = np.zeros((6, 6))
    expected[2, 3] = expected[5, 3] = 1 / (1**0.5 * 2**0.5)
    expected[3, 4] = 2 / (2**0.5 * 2**0.5)
    np.testing.assert_allclose(weights.toarray(), expected)


def basket_world():
    """A world whose users convert with a few at a time, some rows of a checkout with one candidate."""
    world = random_world(num_users=40)
    histories = world.histories
    hour = START + (histories.occurred_us - START) // (4 * DAY) * (4 * DAY)
    return dataclasses.replace(world, histories=dataclasses.replace(histories, occurred_us=hour))


def baskets_until(log, user, until_us):
    """The sets of candidates that a user converted with at one time, in order of time."""
    baskets, histories = {}, log.histories
    for event in range(histories.start[user], histories.start[user] + histories.length[user]):
        if log.is_conversion(event) and histories.arrived_us[event] < until_us:
            baskets.setdefault(histories.occurred_us[event], set()).add(histories.advertiser[event])
    return [baskets[time] for time in sorted(baskets)]


@pytest.mark.parametrize("build", [basket_world, lambda: random_world(num_users=40)])
def test_the_term_is_that_of_a_loop(build):
    log = build().log()
    cut_us = AS_OF + 5 * DAY
    arrived_us = log.histories.arrived_us
    is_late = log.is_conversion(slice(None)) & (arrived_us >= AS_OF) & (arrived_us < cut_us)
    converted = np.bincount(log.histories.event_users()[is_late])
    users = np.argsort(-converted, kind="stable")[:3].astype(np.int32)
    settings = SuccessorSettings(weight=0.2, floor=0.05)
    term = SuccessorTerm.build(log, learn_until_us=AS_OF, settings=settings).read(users, cut_us).toarray()
    size = log.num_candidates
    counts = np.zeros((size, size))
    for user in range(len(log.start) - 1):
        known = baskets_until(log, user, AS_OF)
        for first in range(len(known)):
            for second in range(first + 1, min(first + 11, len(known))):
                for pair in itertools.product(known[first], known[second]):
                    counts[pair] += 0.8 ** (second - first - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = counts / counts.sum(1, keepdims=True) ** 0.7 / counts.sum(0, keepdims=True) ** 0.3
    share = np.nan_to_num(share)
    for row, user in enumerate(users):
        latest = baskets_until(log, user, cut_us)[-20:][::-1]
        assert latest != baskets_until(log, user, AS_OF)[-20:][::-1]
        total = sum(0.8**back * share[sorted(basket)].sum(axis=0) for back, basket in enumerate(latest))
        np.testing.assert_allclose(term[row], 0.2 * np.log1p(total / 0.05), rtol=1e-4, atol=1e-6)
    assert term.any(axis=1).all()


def test_the_numbers_of_candidates_do_not_matter():
    """What is bought at one time has no order, so another numbering gives the same term, renumbered."""
    world = basket_world()
    size = world.num_advertisers
    renumbered = np.concatenate([[0, 1], 2 + np.random.default_rng(0).permutation(size - 2)]).astype(np.int32)
    histories = world.histories
    other = dataclasses.replace(histories, advertiser=renumbered[histories.advertiser])
    users = np.arange(2, 20, dtype=np.int32)
    term, again = (
        SuccessorTerm.build(one.log(), learn_until_us=AS_OF, settings=SuccessorSettings(weight=1.0))
        .read(users, AS_OF)
        .toarray()
        for one in (world, dataclasses.replace(world, histories=other))
    )
    assert term.any()
    np.testing.assert_allclose(again[:, renumbered], term, rtol=1e-5, atol=1e-6)


def test_without_conversions_there_is_no_term():
    world = random_world(num_users=40)
    views = np.full(world.histories.num_events, CODES["view"], np.uint8)
    log = dataclasses.replace(world, histories=dataclasses.replace(world.histories, event_type=views)).log()
    term = SuccessorTerm.build(log, learn_until_us=AS_OF, settings=SuccessorSettings(weight=1.0))
    assert term.read(np.array([2, 3], np.int32), AS_OF).nnz == 0
