"""Isotonic calibration against an example by hand, and reliability on a planted world."""

import json

import numpy as np
import pytest

from forecart.errors import DataError
from forecart.metrics.calibration import (
    MAX_KNOTS,
    Calibration,
    describe_calibrations,
    fit_calibration,
    group_by_rank,
    measure_reliability,
    parse_calibrations,
)


def rate_of(score):
    return 0.4 / (1 + np.exp(-2 * score))


def draw(seed, size):
    """Scores, and conversions at the planted rate."""
    generator = np.random.default_rng(seed)
    score = generator.uniform(-3, 3, size)
    return score, generator.random(size) < rate_of(score)


def test_the_curve_is_the_isotonic_regression_worked_out_by_hand():
    # 0 | 1 0 | 1 1 0: whoever falls is pooled with the one before, until nothing falls.
    score = np.array([3.0, 1.0, 2.0, 6.0, 4.0, 5.0])
    converted = np.array([0, 0, 1, 0, 1, 1], bool)
    found = fit_calibration(score, converted, pairs_a_knot=1)
    assert found.score == (1, 2, 3, 4, 5, 6)
    assert found.probability == pytest.approx((0, 1 / 2, 1 / 2, 2 / 3, 2 / 3, 2 / 3))
    assert found.apply(np.array([-9, 1.5, 3.5, 99])) == pytest.approx([0, 1 / 4, 7 / 12, 2 / 3])


def test_groups_are_filled_from_the_highest_and_equal_values_share_one():
    assert group_by_rank(np.array([5.0, 1, 7, 3, 2, 6, 4]), size=3).tolist() == [2, 0, 2, 1, 1, 2, 1]
    assert group_by_rank(np.array([1.0, 2, 2, 2, 2, 3]), size=2).tolist() == [0, 1, 1, 1, 1, 1]
    assert group_by_rank(np.full(5, 1.0), size=2).tolist() == [0] * 5
    assert group_by_rank(np.array([]), size=2).tolist() == []


def test_a_group_after_equal_values_is_as_large_as_any():
    """99 equal values, one below them and 100 more: 99, twice 50, and 1 is left."""
    value = np.concatenate([np.full(99, 1.0), [0.9], np.linspace(0.8, 0.1, 100)])
    assert np.bincount(group_by_rank(value, size=50)).tolist() == [1, 50, 50, 99]


def test_groups_are_those_of_a_naive_walk_from_the_highest_down():
    generator = np.random.default_rng(5)
    for _ in range(200):
        value = generator.integers(0, generator.integers(1, 40), generator.integers(1, 80)).astype(float)
        size = int(generator.integers(1, 20))
        sizes, current = [], 0
        for one in sorted(set(value.tolist()), reverse=True):
            current += int((value == one).sum())
            if current >= size:
                sizes, current = [*sizes, current], 0
        sizes += [current] if current else []
        group = group_by_rank(value, size=size)
        assert np.bincount(group).tolist() == sizes[::-1]
        assert all(np.diff(group[np.argsort(value)]) >= 0)


def test_a_few_pairs_at_the_highest_scores_say_nothing_certain():
    score, converted = draw(0, 150)
    score, converted = np.append(score, [8, 9]), np.append(converted, [True, True])
    assert max(fit_calibration(score, converted).probability) < 0.6
    assert max(fit_calibration(score, converted, pairs_a_knot=1).probability) == 1


def test_what_is_predicted_comes_as_often_as_predicted():
    score, converted = draw(0, 40_000)
    curve = fit_calibration(score, converted)
    assert len(curve.score) <= MAX_KNOTS
    assert curve.apply(score).sum() == pytest.approx(converted.sum(), rel=0.002)
    at = np.linspace(-2.5, 2.5, 11)
    assert np.abs(curve.apply(at) - rate_of(at)).max() < 0.03

    fresh, came = draw(1, 40_000)
    found = measure_reliability(curve.apply(fresh), came, np.arange(len(fresh)))
    assert found.expected_calibration_error < 0.01
    is_inside = (found.ci_low <= found.predicted) & (found.predicted <= found.ci_high)
    assert is_inside.mean() > 0.8 and found.num_pairs.sum() == len(fresh)


def test_a_scale_that_is_twice_too_high_is_seen():
    score, came = draw(2, 20_000)
    found = measure_reliability(2 * rate_of(score), came, np.arange(len(score)))
    assert (found.predicted > found.ci_high)[8:].all()
    assert found.expected_calibration_error == pytest.approx(came.mean(), rel=0.05)


def test_the_error_and_the_bins_are_those_of_a_naive_loop():
    generator = np.random.default_rng(3)
    probability, user = generator.random(60).round(1), generator.integers(0, 9, 60)
    converted = generator.random(60) < probability
    found = measure_reliability(probability, converted, user, num_samples=10)
    # Of 60 pairs a bin has 3 or more; from the top down, and never parts of equal predictions.
    bins = [[]]
    for value in sorted(set(probability.tolist()), reverse=True):
        if np.isin(probability, bins[-1]).sum() >= 3:
            bins.append([])
        bins[-1].append(value)
    rows = [np.isin(probability, values) for values in reversed(bins)]
    assert found.num_pairs.tolist() == [int(row.sum()) for row in rows]
    gaps = [abs(probability[row].mean() - converted[row].mean()) * row.sum() for row in rows]
    assert found.expected_calibration_error == pytest.approx(sum(gaps) / 60)


def test_pairs_of_one_user_move_together():
    """Ten users, each of whom converts with everything or nothing: an interval of pairs would be a tenth."""
    user = np.repeat(np.arange(10), 100)
    converted = user % 2 == 0
    found = measure_reliability(np.full(1000, 0.5), converted, user)
    assert found.ci_high[0] - found.ci_low[0] > 0.4


@pytest.mark.parametrize(
    ("score", "probability"),
    [((), ()), ((0.0, 1.0), (0.5, 0.4)), ((0.0,), (1.5,)), ((0.0,), (0.1, 0.2)), ((float("nan"),), (0.1,))],
)
def test_a_calibration_rises_between_0_and_1(score, probability):
    with pytest.raises(DataError, match="rises"):
        Calibration(score, probability)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "3",
        '{"a": {"score": [1]}}',
        '{"a": {"score": ["x"], "probability": [0]}}',
        '{"a": {"score": [1, 1], "probability": [0, 1]}}',
        '{"a": {"score": [1, 2], "probability": [1, 0]}}',
    ],
)
def test_what_is_no_calibration_is_refused(text):
    with pytest.raises(DataError):
        parse_calibrations(json.loads(text))


def test_plain_values_are_read_back():
    known = {"products": Calibration((0.1, 0.25), (0.0, 1 / 3))}
    assert parse_calibrations(json.loads(json.dumps(describe_calibrations(known)))) == known


def test_nothing_to_fit_or_to_measure_is_told():
    with pytest.raises(DataError):
        fit_calibration(np.zeros(0), np.zeros(0, bool))
    with pytest.raises(DataError):
        measure_reliability(np.zeros(0), np.zeros(0, bool), np.zeros(0, int))
