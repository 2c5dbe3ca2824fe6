"""Group-max search where there are many groups: exact, ties and all."""

import numpy as np
import pytest
import torch

from forecart.retrieval.index import group_max
from forecart.retrieval.index.group_max import GROUP, GroupMaxScan
from forecart.retrieval.index.scan import scan
from forecart.retrieval.top_k import sort_lists


def make(num, width=8, users=7, *, low=-3, high=4):
    """Small whole numbers: few distinct scores, exact in float32 and in bfloat16."""
    generator = np.random.default_rng(num)
    vectors = generator.integers(low, high, (num, width)).astype(np.float32)
    return vectors, np.arange(5, num + 5, dtype=np.int32), vectors[:users].copy()


def sorted_lists(vectors, candidates, queries, top_k):
    score = queries @ vectors.T
    return sort_lists(np.tile(candidates, (len(queries), 1)), score, top_k)


@pytest.mark.parametrize("search", [GroupMaxScan(), scan], ids=["group_max", "scan"])
@pytest.mark.parametrize("num", [GROUP * 64, GROUP * 64 + 1, GROUP * 100 - 1, 40_000])
@pytest.mark.parametrize("top_k", [1, 20])
def test_lists_are_those_of_sorting_every_score(search, num, top_k):
    vectors, candidates, queries = make(num)
    found = search(vectors, candidates, queries, top_k=top_k)
    expected = sorted_lists(vectors, candidates, queries, top_k)
    assert found.candidate.tolist() == expected.candidate.tolist()
    assert found.score.tolist() == expected.score.tolist()


@pytest.mark.parametrize("search", [GroupMaxScan(), scan], ids=["group_max", "scan"])
def test_of_equal_scores_the_lowest_are_listed(search):
    vectors, candidates = np.ones((20_000, 4), np.float32), np.arange(2, 20_002, dtype=np.int32)
    found = search(vectors, candidates, np.ones((2, 4), np.float32), top_k=50)
    assert found.candidate.tolist() == [list(range(2, 52))] * 2


def test_negative_scores_are_listed_too():
    vectors, candidates, queries = make(GROUP * 200, low=-5, high=0)
    expected = sorted_lists(vectors, candidates, -queries, 10)
    for is_bfloat16 in (False, True):
        found = GroupMaxScan(is_bfloat16)(vectors, candidates, -queries, top_k=10)
        assert found.score.tolist() == expected.score.tolist()
        assert (expected.score < 0).all()


def test_scores_picked_by_bfloat16_are_float32():
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((GROUP * 400, 16)).astype(np.float32)
    queries = generator.standard_normal((9, 16)).astype(np.float32)
    candidates = np.arange(2, len(vectors) + 2, dtype=np.int32)
    expected = sorted_lists(vectors, candidates, queries, 50)
    found = GroupMaxScan(is_bfloat16=True)(vectors, candidates, queries, top_k=50)
    assert (
        np.mean([np.isin(*pair).mean() for pair in zip(found.candidate, expected.candidate, strict=True)])
        > 0.99
    )
    score = np.einsum("bd,bkd->bk", queries, vectors[found.candidate - 2])
    np.testing.assert_allclose(found.score, score, rtol=1e-5)


def test_products_of_fewer_bits_are_seen_and_made_again(monkeypatch):
    """As on a processor where the fast precision cuts float32."""
    vectors, candidates, queries = make(GROUP * 300)
    asked, find = [], group_max.find_maxima

    def find_roughly(vector_ND, query_BD, maximum_BG, dtype):
        asked.append(torch.get_float32_matmul_precision())
        find(vector_ND, query_BD, maximum_BG, dtype)
        if asked[-1] == "medium":
            maximum_BG += torch.rand(maximum_BG.shape)

    monkeypatch.setattr(group_max, "find_maxima", find_roughly)
    before = torch.get_float32_matmul_precision()
    found = GroupMaxScan()(vectors, candidates, queries, top_k=10)
    assert asked == ["medium", "highest"] and torch.get_float32_matmul_precision() == before
    assert found.candidate.tolist() == sorted_lists(vectors, candidates, queries, 10).candidate.tolist()


def test_users_in_tiles_get_what_they_get_alone(monkeypatch):
    vectors, candidates, queries = make(GROUP * 200, users=23)
    together = GroupMaxScan()(vectors, candidates, queries, top_k=10)
    monkeypatch.setattr(group_max, "_MAX_MAXIMA", 5 * 200)
    tiled = GroupMaxScan()(vectors, candidates, queries, top_k=10)
    assert tiled.candidate.tolist() == together.candidate.tolist()
    assert tiled.score.tolist() == together.score.tolist()
