"""Group features against loops over the pairs of each group."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from forecart.sequences.own_groups import GROUP_FEATURES, group_features, read_candidate_groups

OWN = {
    "visits": [2, 1, 0, 4],
    "visits_30d": [1.0, 0.5, 0.0, 2.0],
    "visits_120d": [1.5, 0.8, 0.0, 3.0],
    "first": [20.0, 9.0, 0.0, 40.0],
    "last": [4.0, 9.0, 400.0, 2.0],
}


def features(row, category, family):
    own = {name: np.array(values, np.float32) for name, values in OWN.items()}
    group = np.stack([np.array(category, np.int32), np.array(family, np.int32)], axis=1)
    return group_features(np.array(row, np.int64), group, own)


def test_a_group_sums_the_pairs_of_one_user_and_no_others():
    found = features([0, 0, 0, 1], [5, 5, 6, 5], [7, 7, 7, 7])
    assert tuple(found) == GROUP_FEATURES
    assert found["log_category_visits"] == pytest.approx([math.log(4), math.log(4), 0, math.log(5)])
    assert found["log_family_visits"] == pytest.approx([math.log(4)] * 3 + [math.log(5)])
    assert found["log_category_visits_30d"][0] == pytest.approx(math.log(2.5))
    assert found["log_days_since_category"] == pytest.approx(
        [math.log(5), math.log(5), math.log(401), math.log(3)], rel=1e-5
    )
    assert found["is_latest_of_category"].tolist() == [1, 0, 1, 1]
    assert found["is_latest_of_family"].tolist() == [1, 0, 0, 1]
    # First visit of the category 20 days ago, last 4, three visits: eight days apart, so half due.
    assert found["category_due"][0] == pytest.approx(4 / 8)


def test_a_group_visited_once_is_held_against_thirty_days():
    found = features([0, 1, 2, 3], [5, 5, 5, 5], [2, 2, 2, 2])
    assert found["category_due"][1] == pytest.approx(9 / 30)


def test_no_pairs_give_no_features():
    empty = {name: np.zeros(0, np.float32) for name in OWN}
    found = group_features(np.zeros(0, np.int64), np.zeros((0, 2), np.int32), empty)
    assert all(len(values) == 0 for values in found.values())


def test_the_category_of_an_advertiser_is_the_one_of_most_of_its_products():
    sequences = SimpleNamespace(
        item_category=np.array([[0, 0], [1, 1], [2, 3], [2, 4], [2, 4], [5, 6], [2, 3]], np.int32),
        item_advertiser=np.array([0, 1, 2, 2, 2, 3, 3], np.int32),
        advertisers=range(5),
    )
    assert read_candidate_groups(sequences, "item")[4].tolist() == [4, 2]
    groups = read_candidate_groups(sequences, "advertiser")
    assert groups[2].tolist() == [4, 2]
    assert groups[3].tolist() == [3, 2], "of equals the lower"
    assert groups[4].tolist() == [1, 1], "without products it is unknown"
