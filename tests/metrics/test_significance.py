"""The user bootstrap against a loop over resamples, the normal theory, and clusters known by construction."""

import numpy as np
import pytest

from forecart.metrics.significance import bootstrap_by_user, minimum_detectable_difference


def test_interval_agrees_with_a_naive_loop():
    generator = np.random.default_rng(0)
    user = generator.integers(0, 60, 200)
    value = generator.normal(size=200) + user / 30
    interval = bootstrap_by_user(value[:, None], user, num_samples=4000, seed=1)
    rows = [np.flatnonzero(user == name) for name in np.unique(user)]
    means = []
    for _ in range(4000):
        drawn = generator.integers(0, len(rows), len(rows))
        means.append(value[np.concatenate([rows[index] for index in drawn])].mean())
    assert interval.mean[0] == pytest.approx(value.mean(), abs=1e-12)
    assert interval.ci_low[0] == pytest.approx(np.quantile(means, 0.025), abs=0.02)
    assert interval.ci_high[0] == pytest.approx(np.quantile(means, 0.975), abs=0.02)
    assert interval.standard_error[0] == pytest.approx(np.std(means), abs=0.01)


def test_repeating_a_user_makes_nothing_surer():
    value = np.random.default_rng(1).normal(size=(300, 1))
    once = bootstrap_by_user(value, np.arange(300), seed=3)
    four_times = bootstrap_by_user(np.tile(value, (4, 1)), np.tile(np.arange(300), 4), seed=3)
    assert four_times.standard_error == pytest.approx(once.standard_error, rel=1e-9)


def test_standard_error_is_the_normal_one():
    value = np.random.default_rng(2).normal(size=(2000, 2)) * [1.0, 3.0]
    interval = bootstrap_by_user(value, np.arange(2000), num_samples=3000)
    assert interval.standard_error == pytest.approx(value.std(axis=0) / 2000**0.5, rel=0.06)


def test_same_seed_same_interval_and_columns_share_draws():
    value = np.random.default_rng(3).normal(size=(50, 1))
    user = np.arange(50) // 2
    alone = bootstrap_by_user(value, user, seed=9)
    beside = bootstrap_by_user(np.hstack([value, -value]), user, seed=9)
    assert beside.ci_low[0] == pytest.approx(alone.ci_low[0], abs=1e-12)
    assert beside.ci_high[1] == pytest.approx(-alone.ci_low[0], abs=1e-12)
    assert bootstrap_by_user(value, user, seed=8).ci_low[0] != alone.ci_low[0]


def test_empty_and_bad_input():
    assert np.isnan(bootstrap_by_user(np.zeros((0, 2)), np.zeros(0, int)).mean).all()
    with pytest.raises(ValueError, match="finite"):
        bootstrap_by_user(np.array([[np.nan]]), np.zeros(1, int))


def test_minimum_detectable_difference():
    assert minimum_detectable_difference(1.0) == pytest.approx(1.959964 + 0.841621, abs=1e-5)
