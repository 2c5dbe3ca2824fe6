"""Centroids by region, against a look at all of them, and learned ones against planted directions."""

import faiss
import numpy as np
import pytest

from forecart.retrieval.index import centroids
from forecart.retrieval.index.centroids import Regions, find_nearest, hold_for_users, learn_centroids

WIDTH = 32


def make_directions(num, seed=0):
    directions = np.random.default_rng(seed).standard_normal((num, WIDTH)).astype(np.float32)
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def make_around(direction_CD, cluster_N, *, spread=0.1, seed=1):
    noise = np.random.default_rng(seed).standard_normal((len(cluster_N), WIDTH)).astype(np.float32)
    return direction_CD[cluster_N] + spread * noise


def test_the_nearest_is_found_and_what_is_served_badly_looks_further():
    centroid_LD = make_directions(4000)
    vectors = 3 * make_around(centroid_LD, np.random.default_rng(2).integers(0, 4000, 5000))
    score = vectors @ centroid_LD.T
    shares = []
    for regions in (Regions.of(centroid_LD, 0, ((1.0, 4),)), Regions.of(centroid_LD, 0)):
        found, cosine = regions(vectors)
        is_right = found == score.argmax(axis=1)
        expected = score[np.arange(5000), found] / np.linalg.norm(vectors, axis=1)
        np.testing.assert_allclose(cosine, expected, rtol=1e-4)
        shares.append(is_right.mean())
    assert shares[0] < 0.95 and shares[1] > 0.99


@pytest.mark.parametrize("max_flat", [1 << 12, 16], ids=["flat", "regions"])
def test_a_vector_is_nearest_to_its_own_centroid(max_flat, monkeypatch):
    monkeypatch.setattr(centroids, "MAX_FLAT", max_flat)
    centroid_LD = make_directions(50)
    found, cosine = find_nearest(centroid_LD, 0)(5 * centroid_LD)
    assert found.tolist() == list(range(50)) and found.dtype == np.int32
    np.testing.assert_allclose(cosine, 1, atol=1e-5)


def test_small_clusters_get_centroids_too(monkeypatch):
    monkeypatch.setattr(centroids, "MAX_FLAT", 100)
    directions = make_directions(200)
    cluster = np.repeat(np.arange(200), np.where(np.arange(200) < 20, 1000, 20))
    sample = make_around(directions, cluster)
    has_one = {}
    for moved in ((0.0,) * 6, centroids._MOVED):
        monkeypatch.setattr(centroids, "_MOVED", moved)
        learned = learn_centroids(sample, 400, 0)
        np.testing.assert_allclose(np.linalg.norm(learned, axis=1), 1, atol=1e-5)
        has_one[moved] = ((directions @ learned.T).max(axis=1) > 0.85).mean()
    without, with_moves = has_one.values()
    assert without < 0.8 < 0.87 < with_moves


def test_users_find_most_of_the_nearest_by_codes(monkeypatch):
    monkeypatch.setattr(centroids, "MAX_FLAT", 100)
    centroid_LD = make_directions(3000)
    users = make_directions(100, seed=3)
    held = hold_for_users(centroid_LD)
    assert isinstance(held, faiss.IndexPQFastScan)
    exact = np.argsort(-(users @ centroid_LD.T), axis=1)[:, :50]
    found = held.search(users, 50)[1]
    shares = [np.isin(one, other).mean() for one, other in zip(found, exact, strict=True)]
    assert np.mean(shares) > 0.8
