"""The spread measures against answers worked out by hand and by naive loops."""

import numpy as np
import pytest

from forecart.metrics import catalog


def test_p90_coverage_by_hand():
    assert catalog.p90_coverage(np.array([90, 5, 5, 0])) == 1 / 4
    assert catalog.p90_coverage(np.array([89, 6, 5, 0])) == 2 / 4
    assert catalog.p90_coverage(np.full(10, 7)) == 9 / 10
    assert catalog.p90_coverage(np.zeros(5, int)) == 0.0


def test_p90_coverage_equals_a_loop():
    generator = np.random.default_rng(2)
    for _ in range(200):
        count = generator.integers(0, 9, int(generator.integers(1, 30)))
        taken, needed = 0, 0
        for value in sorted(count.tolist(), reverse=True):
            if 10 * taken >= 9 * count.sum():
                break
            taken, needed = taken + value, needed + 1
        assert catalog.p90_coverage(count) == pytest.approx(needed / len(count), abs=1e-12)


def test_gini_equals_the_mean_absolute_difference():
    generator = np.random.default_rng(4)
    for _ in range(50):
        count = generator.integers(0, 20, 17)
        pairs = np.abs(count[:, None] - count[None, :]).sum()
        assert catalog.gini(count) == pytest.approx(pairs / (2 * 17 * count.sum()), abs=1e-9)
    assert catalog.gini(np.array([0, 0, 0, 8])) == pytest.approx(3 / 4)
    assert catalog.gini(np.zeros(3, int)) == 0.0


def test_catalogue_coverage_and_counts():
    count = catalog.exposure_counts(np.array([[1, 2], [1, -1]]), num_candidates=4)
    assert count.tolist() == [0, 2, 1, 0]
    assert catalog.catalogue_coverage(count) == 0.5
    assert catalog.catalogue_coverage(np.zeros(0, int)) == 0.0


def test_intra_list_similarity_is_the_mean_over_pairs():
    generator = np.random.default_rng(8)
    vector_ND = generator.standard_normal((20, 5))
    vector_ND /= np.linalg.norm(vector_ND, axis=1, keepdims=True)
    lists = [[3, 4, 9], [7, 1, -1], [5, -1, -1], [-1, -1, -1], *([[0, 1, 2]] * 300)]
    found = catalog.intra_list_similarity(np.array(lists), vector_ND)
    for row in (0, 1, 150, len(lists) - 1):
        listed = [c for c in lists[row] if c >= 0]
        pairs = [(a, b) for a in listed for b in listed if a != b]
        expected = sum(float(vector_ND[a] @ vector_ND[b]) for a, b in pairs) / len(pairs)
        assert found[row] == pytest.approx(expected, abs=1e-9)
    assert np.isnan(found[2:4]).all()
