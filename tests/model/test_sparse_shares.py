"""Sparse distributions against the dense ones that they stand for, draw by draw and in the log q of sets."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from forecart.model.negatives import InBatchNegatives, MixedNegatives, SampledNegatives
from forecart.model.sparse_shares import SparseShares

LARGE = 20_000_000


def shares_of(counts, num_candidates, *, power, first=2):
    index_S = torch.tensor(sorted(counts), dtype=torch.int64)
    count_S = torch.tensor([counts[int(index)] for index in index_S], dtype=torch.int64)
    return SparseShares.from_counts(index_S, count_S, num_candidates=num_candidates, power=power, first=first)


def dense_probability(counts, num_candidates, *, power, first=2):
    weight_V = np.ones(num_candidates)
    for index, count in counts.items():
        weight_V[index] = (1.0 + count) ** power
    weight_V[:first] = 0
    return weight_V / weight_V.sum()


worlds = st.integers(3, 30).flatmap(
    lambda num: st.tuples(
        st.just(num), st.dictionaries(st.integers(0, num - 1), st.integers(0, 500), max_size=num)
    )
)


@given(world=worlds, power=st.sampled_from([0.0, 0.5, 0.75, 1.0]), first=st.sampled_from([0, 2]))
def test_log_probabilities_are_the_dense_ones(world, power, first):
    num, counts = world
    log_prob_V = shares_of(counts, num, power=power, first=first).log_prob(torch.arange(num))
    expected_V = dense_probability(counts, num, power=power, first=first)
    np.testing.assert_allclose(log_prob_V.exp().numpy(), expected_V, rtol=1e-12, atol=0)


@given(
    world=worlds,
    power=st.sampled_from([0.0, 0.75, 1.0]),
    num_negatives=st.integers(1, 60),
    num_positives=st.integers(1, 20),
)
def test_log_q_of_sets_is_the_log_of_one_minus_all_misses(world, power, num_negatives, num_positives):
    """1 - (1 - p)^n (1 - r)^m, in float64 and from a dense table."""
    num, counts = world
    sampled = SampledNegatives(shares_of(counts, num, power=power), num_negatives)
    p_V = dense_probability(counts, num, power=power)
    r_V = dense_probability(counts, num, power=1.0)
    mixed = MixedNegatives(InBatchNegatives(shares_of(counts, num, power=1.0)), sampled)
    drawable_V = torch.arange(2, num)
    alone = sampled.log_q(drawable_V, num_positives=num_positives).numpy()
    both = mixed.log_q(drawable_V, num_positives=num_positives).numpy()
    missed_V = (1 - p_V[2:]) ** num_negatives
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(alone, np.log1p(-missed_V), rtol=1e-9, atol=1e-12)
        expected = np.log1p(-missed_V * (1 - r_V[2:]) ** num_positives)
    np.testing.assert_allclose(both, expected, rtol=1e-9, atol=1e-12)
    assert sampled.log_q(torch.tensor([0, 1]), num_positives=1).tolist() == [-math.inf, -math.inf]


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
@pytest.mark.parametrize("counts", [{}, {2: 9, 3: 0, 11: 4, 29: 100}, dict.fromkeys(range(30), 5)])
def test_draws_are_as_frequent_as_their_probability(counts, power):
    shares = shares_of(counts, 30, power=power)
    drawn_N = shares.sample(200_000, torch.Generator().manual_seed(0))
    count_V = np.bincount(drawn_N.numpy(), minlength=30)
    assert (count_V[:2] == 0).all()
    expected_V = dense_probability(counts, 30, power=power)[2:] * 200_000
    assert chisquare(count_V[2:], expected_V).pvalue > 1e-3


@pytest.mark.parametrize("power", [0.0, 0.75])
def test_twenty_million_candidates_are_drawn_evenly_and_those_with_a_count_as_often_as_said(power):
    rng = np.random.default_rng(0)
    index = np.unique(rng.integers(2, LARGE, 50_000))
    count = rng.integers(1, 1000, len(index))
    shares = SparseShares.from_counts(
        torch.from_numpy(index), torch.from_numpy(count), num_candidates=LARGE, power=power
    )
    num = 1_000_000
    drawn_N = shares.sample(num, torch.Generator().manual_seed(1))
    assert int(drawn_N.min()) >= 2 and int(drawn_N.max()) < LARGE
    weight = np.where(power, (1.0 + count) ** power, 1.0)
    own_share = weight.sum() / (weight.sum() + LARGE - 2 - len(index))
    is_own_N = np.isin(drawn_N.numpy(), index)
    assert abs(is_own_N.mean() - own_share) < 6 * math.sqrt(own_share * (1 - own_share) / num)
    # The rest in a thousand stretches of the catalogue, each as large as its number of such candidates.
    edges = np.linspace(2, LARGE, 1001).astype(np.int64)
    size = np.diff(edges) - np.histogram(index, edges)[0]
    found = np.histogram(drawn_N.numpy()[~is_own_N], edges)[0]
    assert chisquare(found, size / size.sum() * found.sum()).pvalue > 1e-3
    total = np.exp(shares.log_prob(torch.from_numpy(index)).numpy()).sum()
    total += (LARGE - 2 - len(index)) * math.exp(shares.log_prob_rest)
    assert total == pytest.approx(1.0, abs=1e-9)


def test_every_number_of_the_generator_finds_the_candidate_of_the_dense_bisection():
    """The k-th of the rest is the k-th candidate without a count, whatever lies between."""
    counts = {2: 1, 3: 1, 7: 1, 8: 1, 12: 1}
    shares = shares_of(counts, 13, power=1.0)
    rest = [index for index in range(2, 13) if index not in counts]
    rank_N = torch.arange(len(rest))
    found = shares.first + rank_N + torch.searchsorted(shares._rest_before_S, rank_N, right=True)
    assert found.tolist() == rest
