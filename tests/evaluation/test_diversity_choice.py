"""Which rule the diversity benchmark chooses: the bound holds for the whole interval, on both levels."""

import pytest
from benchmarks.diversity import RULES, choose, coverage_gain, recall_change

BY_SCORE = {"rule": None, "values": {"p90_coverage": 0.1, "recall_at_100": 0.5}}


def point(name, coverage, low):
    """A rule with this coverage, whose change of Recall@100 is at the least `low`, absolute."""
    difference = {"recall_at_100": {"mean": low + 0.001, "ci_low": low, "ci_high": low + 0.002}}
    values = {"p90_coverage": coverage, "recall_at_100": 0.5 + low + 0.001}
    return {"rule": {"name": name}, "values": values, "difference": difference}


def test_the_highest_gain_of_the_weaker_level_within_the_bound_is_chosen():
    one = [BY_SCORE, point("a", 0.12, -0.002), point("b", 0.30, -0.006), point("c", 0.18, -0.005)]
    other = [BY_SCORE, point("a", 0.50, 0.001), point("b", 0.30, 0.001), point("c", 0.13, -0.004)]
    # b has most, but its interval ends below -1 % on one level; of a and c, c has more where it has less.
    found = {"next_advertiser": {"points": one}, "next_product": {"points": other}}
    assert choose(found) == {"name": "c"}
    assert choose({"next_advertiser": {"points": [BY_SCORE, point("b", 0.3, -0.006)]}}) == {}
    assert choose({"next_advertiser": {"points": [BY_SCORE, point("less", 0.1, 0.0)]}}) == {}


def test_changes_are_relative_to_the_best_by_score():
    found = point("c", 0.18, -0.005)
    assert coverage_gain(found, BY_SCORE) == pytest.approx(0.8)
    assert recall_change(found, BY_SCORE) == pytest.approx((-0.008, -0.01, -0.006))


def test_no_rule_is_measured_twice():
    assert len(set(RULES)) == len(RULES)
