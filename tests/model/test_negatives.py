"""Samplers against simulated frequencies and the full softmax; masks against sets; sketch against counts."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forecart.model.losses import (
    OwnNegatives,
    Positives,
    SharedNegatives,
    full_softmax_loss,
    sampled_softmax_loss,
)
from forecart.model.negatives import (
    CountMinSketch,
    InBatchNegatives,
    MixedNegatives,
    RowCandidates,
    SampledNegatives,
    count_in_pool,
    log_inclusion,
    log_q_from_counts,
    mask_accidental_hits,
    mask_pairs,
    mixture_log_q,
)
from forecart.model.sparse_shares import SparseShares

NUM_CANDIDATES = 40


def zipf(exponent=1.0):
    """Probabilities over [0, 40), nothing on padding and unknown."""
    probability_V = torch.arange(1, NUM_CANDIDATES + 1, dtype=torch.float64) ** -exponent
    probability_V[:2] = 0
    return probability_V / probability_V.sum()


def build_sampler(name, *, is_set, num_negatives):
    in_batch = InBatchNegatives(zipf().log().float(), is_set=is_set)
    uniform_V = SampledNegatives.uniform(NUM_CANDIDATES, num_negatives=1).log_prob_V
    sampled = SampledNegatives(uniform_V, num_negatives, is_set=is_set)
    skewed = SampledNegatives(zipf(0.5).log().float(), num_negatives, is_set=is_set)
    counted_S, count_S = torch.tensor([0, 3, 4, 17, 39]), torch.tensor([5, 7, 1, 30, 2])
    sparse = SampledNegatives(
        SparseShares.from_counts(counted_S, count_S, num_candidates=NUM_CANDIDATES, power=0.75),
        num_negatives,
        is_set=is_set,
    )
    sparse_in_batch = InBatchNegatives(
        SparseShares(torch.arange(2, 40), zipf().log()[2:], -math.inf, NUM_CANDIDATES), is_set=is_set
    )
    return {
        "in_batch": in_batch,
        "uniform": sampled,
        "skewed": skewed,
        "mixed": MixedNegatives(in_batch, sampled),
        "sparse": sparse,
        "sparse mixed": MixedNegatives(sparse_in_batch, sparse),
    }[name]


SAMPLERS = pytest.mark.parametrize(
    "name", ["in_batch", "uniform", "skewed", "mixed", "sparse", "sparse mixed"]
)
SETS = pytest.mark.parametrize("is_set", [True, False])


@SAMPLERS
@SETS
def test_log_q_is_the_log_of_how_often_a_candidate_stands_in_the_pool(name, is_set):
    sampler = build_sampler(name, is_set=is_set, num_negatives=25)
    generator, num_pools = torch.Generator().manual_seed(0), 500
    count_V = torch.zeros(NUM_CANDIDATES)
    for _ in range(num_pools):
        positive_P = torch.multinomial(zipf(), 15, replacement=True, generator=generator)
        pool = sampler.draw(positive_P, generator=generator)
        count_V.index_add_(0, pool.index_N, torch.ones(len(pool.index_N)))
        if is_set:
            assert (pool.index_N[1:] > pool.index_N[:-1]).all()
    expected_V = sampler.log_q(torch.arange(NUM_CANDIDATES), num_positives=15).exp()
    assert (count_V[:2] == 0).all() and (expected_V[:2] == 0).all()
    # Six standard errors of a Poisson count, which varies more than being in a set does.
    assert ((count_V / num_pools - expected_V).abs() <= 6 * (expected_V / num_pools).sqrt()).all()
    torch.testing.assert_close(pool.log_q_N, expected_V.log()[pool.index_N].float())


@SAMPLERS
@SETS
def test_the_same_generator_state_draws_the_same_pool(name, is_set):
    sampler = build_sampler(name, is_set=is_set, num_negatives=25)
    positive_P = torch.tensor([5, 9, 5])
    first, second = (sampler.draw(positive_P, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first.index_N, second.index_N) and torch.equal(first.log_q_N, second.log_q_N)
    if name != "in_batch":
        other = sampler.draw(positive_P, generator=torch.Generator().manual_seed(8))
        assert not torch.equal(first.index_N, other.index_N)


POSITIVE = RowCandidates(torch.tensor([0, 0, 1]), torch.tensor([2, 11, 6]))
HISTORY = RowCandidates(torch.tensor([0, 0, 2]), torch.tensor([11, 4, 3]))


def gradient_error(sampler, num_positives, *, form="standard", alpha_pos=0.0, has_own=False, repeats=16):
    """Relative RMS error of the sampled gradient, everything wired as a training step wires it."""
    generator = torch.Generator().manual_seed(1)
    logit_BV = (1.5 * torch.randn(3, NUM_CANDIDATES, generator=generator)).double().requires_grad_()
    full = full_softmax_loss(
        logit_BV,
        positive_row_P=POSITIVE.row_M,
        positive_column_P=POSITIVE.index_M,
        masked_BN=torch.arange(NUM_CANDIDATES) < 2,
    )
    target = torch.autograd.grad(full, logit_BV, retain_graph=True)[0]
    errors = []
    for _ in range(repeats):
        drawn_P = torch.multinomial(zipf(), num_positives, replacement=True, generator=generator)
        pool = sampler.draw(drawn_P, generator=generator)
        masked_sets, own = [POSITIVE], None
        if has_own:
            masked_M = mask_pairs(HISTORY, POSITIVE, num_candidates=NUM_CANDIDATES)
            own = OwnNegatives(logit_BV[HISTORY.row_M, HISTORY.index_M], HISTORY.row_M, masked_M)
            masked_sets.append(HISTORY)
        masked_BN = mask_accidental_hits(pool.index_N, *masked_sets, num_rows=3)
        positives = Positives(
            logit_BV[POSITIVE.row_M, POSITIVE.index_M],
            POSITIVE.row_M,
            log_q_P=sampler.log_q(POSITIVE.index_M, num_positives=num_positives),
            count_P=count_in_pool(pool.index_N, POSITIVE.index_M),
        )
        shared = SharedNegatives(logit_BV[:, pool.index_N], pool.log_q_N, masked_BN)
        loss = sampled_softmax_loss(positives, shared=[shared], own=own, alpha_pos=alpha_pos, form=form)
        errors.append(torch.autograd.grad(loss, logit_BV, retain_graph=True)[0] - target)
    return (torch.stack(errors).square().sum((1, 2)).mean().sqrt() / target.norm()).item()


@pytest.mark.parametrize("has_own", [False, True])
@pytest.mark.parametrize(("form", "alpha_pos"), [("standard", 0.0), ("standard", 1.0), ("corrected", 0.0)])
@SAMPLERS
def test_pools_with_duplicates_converge_to_the_full_softmax_as_one_over_root_n(
    name, form, alpha_pos, has_own
):
    options = {"form": form, "alpha_pos": alpha_pos, "has_own": has_own}
    small = gradient_error(build_sampler(name, is_set=False, num_negatives=300), 300, **options)
    large = gradient_error(build_sampler(name, is_set=False, num_negatives=4800), 4800, **options)
    assert 2.6 < small / large < 6.0
    assert large < 0.1


@pytest.mark.parametrize(("form", "alpha_pos"), [("standard", 0.0), ("standard", 1.0), ("corrected", 0.0)])
@SAMPLERS
def test_pools_that_are_sets_converge_faster(name, form, alpha_pos):
    options = {"form": form, "alpha_pos": alpha_pos, "has_own": True}
    with_duplicates = gradient_error(build_sampler(name, is_set=False, num_negatives=300), 300, **options)
    small = gradient_error(build_sampler(name, is_set=True, num_negatives=300), 300, **options)
    large = gradient_error(build_sampler(name, is_set=True, num_negatives=4800), 4800, repeats=4, **options)
    assert small < 0.8 * with_duplicates
    assert large < 1e-3


def test_in_batch_negatives_without_logq_do_not_converge():
    flat = InBatchNegatives(torch.full((NUM_CANDIDATES,), -math.log(NUM_CANDIDATES)), is_set=False)
    assert gradient_error(flat, 4800, repeats=4) > 0.2


def test_uniform_skips_padding_and_unknown():
    sampler = SampledNegatives.uniform(5, num_negatives=500)
    sampled_N = sampler.sample(torch.Generator().manual_seed(0))
    assert sampled_N.dtype == torch.int64 and set(sampled_N.tolist()) == {2, 3, 4}
    assert sampler.log_prob_V[2:].exp().tolist() == pytest.approx([1 / 3] * 3)


def test_mixture_log_q_is_the_log_of_the_summed_expected_counts():
    first_N, second_N = torch.tensor([0.5, 0.5, 0.0]).log(), torch.tensor([0.1, 0.0, 0.9]).log()
    mixed_N = mixture_log_q((first_N, 10), (second_N, 20)).exp()
    assert mixed_N.tolist() == pytest.approx([7.0, 5.0, 18.0])


def test_log_inclusion_of_rare_candidates_is_the_expected_count():
    log_prob_N = torch.tensor([1e-9, 0.5, 0.0]).log()
    included_N = log_inclusion((log_prob_N, 100)).exp()
    assert included_N[0].item() == pytest.approx(1e-7, rel=1e-5)
    assert included_N[1:].tolist() == [1.0, 0.0]
    both = log_inclusion((torch.tensor([0.3]).log(), 2), (torch.tensor([0.2]).log(), 1)).exp()
    assert both.item() == pytest.approx(1 - 0.7**2 * 0.8)


def test_log_q_from_counts_is_the_share_of_all_counts():
    count_V = torch.tensor([0, 0, 6, 2, 0])
    assert log_q_from_counts(count_V).exp().tolist() == pytest.approx([0, 0, 0.75, 0.25, 0])
    floored_V = log_q_from_counts(count_V, min_count=1.0).exp()
    assert floored_V.tolist() == pytest.approx([0.125, 0.125, 0.75, 0.25, 0.125])


pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), max_size=25)


def ragged(items):
    row_M, index_M = torch.tensor(items, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return RowCandidates(row_M.contiguous(), index_M.contiguous())


@settings(deadline=None, max_examples=60, derandomize=True)
@given(pool=st.lists(st.integers(0, 12), max_size=20), sets=st.lists(pairs, max_size=3))
def test_accidental_hits_are_what_sets_of_python_say(pool, sets):
    masked_BN = mask_accidental_hits(
        torch.tensor(pool, dtype=torch.int64), *(ragged(items) for items in sets), num_rows=5
    )
    union = {pair for items in sets for pair in items}
    assert masked_BN.shape == (5, len(pool)) and masked_BN.dtype == torch.bool
    assert masked_BN.tolist() == [[(row, index) in union for index in pool] for row in range(5)]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(items=pairs, sets=st.lists(pairs, max_size=3))
def test_masked_pairs_are_what_sets_of_python_say(items, sets):
    masked_M = mask_pairs(ragged(items), *(ragged(other) for other in sets), num_candidates=13)
    union = {pair for other in sets for pair in other}
    assert masked_M.tolist() == [pair in union for pair in items]


def test_count_in_pool_counts_occurrences_and_is_at_least_one():
    counts_P = count_in_pool(torch.tensor([7, 3, 7, 7]), torch.tensor([3, 7, 5]))
    assert counts_P.tolist() == [1, 3, 1]


@pytest.fixture(scope="module")
def zipf_keys():
    """200,000 draws of 20,000 keys whose ids are far apart; and the true counts."""
    rng = np.random.default_rng(0)
    share = 1.0 / np.arange(1, 20_001)
    drawn = rng.choice(20_000, size=200_000, p=share / share.sum())
    keys = np.arange(20_000, dtype=np.int64) * 1_000_003 - 5
    return keys, keys[drawn], np.bincount(drawn, minlength=20_000)


@pytest.mark.parametrize("is_conservative", [False, True])
def test_a_sketch_never_underestimates_and_keeps_the_slope(zipf_keys, is_conservative):
    keys, stream, true = zipf_keys
    sketch = CountMinSketch(width=1 << 13, depth=4, seed=1, is_conservative=is_conservative)
    for part in np.array_split(stream, 7):
        sketch.add(part)
    estimate = sketch.estimate(keys)
    assert (estimate >= true).all()
    bound = math.e / (1 << 13) * len(stream)
    assert np.mean(estimate - true > bound) < math.exp(-4)
    frequent = true >= 50
    slope = np.polyfit(np.log(true[frequent]), np.log(estimate[frequent]), 1)[0]
    assert 0.93 < slope < 1.01


def test_conservative_update_is_closer(zipf_keys):
    keys, stream, true = zipf_keys
    errors = []
    for is_conservative in (False, True):
        sketch = CountMinSketch(width=1 << 12, seed=1, is_conservative=is_conservative)
        sketch.add(stream[:50_000])
        sketch.add(stream[50_000:])
        errors.append((sketch.estimate(keys) - true).mean())
    assert errors[1] < 0.8 * errors[0]


def test_a_wide_sketch_gives_the_log_q_of_exact_counts(zipf_keys):
    keys, stream, true = zipf_keys
    sketch = CountMinSketch(width=1 << 20, depth=4, seed=3)
    sketch.add(stream)
    estimated = log_q_from_counts(torch.from_numpy(sketch.estimate(keys)))
    exact = log_q_from_counts(torch.from_numpy(true))
    seen = torch.from_numpy(true > 0)
    torch.testing.assert_close(estimated[seen], exact[seen], rtol=1e-4, atol=1e-3)


def test_sketches_are_seeded_and_plain_ones_add_up(zipf_keys):
    keys, stream, _ = zipf_keys
    whole, first, second = (CountMinSketch(width=256, seed=9) for _ in range(3))
    whole.add(stream)
    first.add(stream[:1000])
    second.add(stream[1000:])
    assert np.array_equal(whole.counters, first.counters + second.counters)
    other = CountMinSketch(width=256, seed=10)
    other.add(stream)
    assert not np.array_equal(whole.estimate(keys), other.estimate(keys))


def test_a_sketch_width_that_is_no_power_of_two_is_named():
    with pytest.raises(ValueError, match=r"power of two.*it is 100"):
        CountMinSketch(width=100)
