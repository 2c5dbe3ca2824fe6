"""The ranking measures against naive loops and against ranx, on random cases with ties, empties and K > n."""

import math
import warnings

import numpy as np
import pytest

from forecart.metrics import ranking

NUM_CASES = 500
K_VALUES = (1, 3, 10, 40)


@pytest.fixture(scope="module")
def cases():
    """(scores, relevant) with many ties, some -inf, some rows without anything relevant or listed."""
    generator = np.random.default_rng(11)
    made = []
    for _ in range(NUM_CASES):
        size = int(generator.integers(1, 30))
        score = generator.integers(0, generator.integers(1, 12) + 1, size).astype(np.float32)
        score[generator.random(size) < generator.choice([0.0, 0.2, 1.0], p=[0.5, 0.45, 0.05])] = -np.inf
        made.append((score, generator.random(size) < generator.choice([0.0, 0.1, 0.5])))
    return made


def naive_list(score):
    listed = [index for index in range(len(score)) if score[index] > -math.inf]
    return sorted(listed, key=lambda index: (-score[index], index))


def hit_matrix(cases, depth):
    """Hits and numbers of relevant candidates of all cases, through the code under test."""
    is_hit, num_relevant = np.zeros((len(cases), depth), bool), np.zeros(len(cases), np.int64)
    for row, (score, relevant) in enumerate(cases):
        candidate, _ = ranking.rank_top_k(score[None, :], k=depth)
        is_hit[row] = relevant[np.maximum(candidate[0], 0)] & (candidate[0] >= 0)
        num_relevant[row] = relevant.sum()
    return is_hit, num_relevant


def naive_measures(score, relevant, k):
    hits = [bool(relevant[index]) for index in naive_list(score)]
    total = int(relevant.sum())
    if total == 0:
        return dict.fromkeys(("recall", "capped", "hit", "ndcg", "mrr"), math.nan)
    found = sum(hits[:k])
    gain = sum(1 / math.log2(rank + 2) for rank, hit in enumerate(hits[:k]) if hit)
    ideal = sum(1 / math.log2(rank + 2) for rank in range(min(k, total)))
    first = next((1 / (rank + 1) for rank, hit in enumerate(hits[:40]) if hit), 0.0)
    return {
        "recall": found / total,
        "capped": found / min(k, total),
        "hit": float(found > 0),
        "ndcg": gain / ideal,
        "mrr": first,
    }


@pytest.mark.parametrize("k", K_VALUES)
def test_measures_equal_naive_loops(cases, k):
    is_hit, num_relevant = hit_matrix(cases, 40)
    measured = {
        "recall": ranking.recall_at_k(is_hit, num_relevant, k=k),
        "capped": ranking.capped_recall_at_k(is_hit, num_relevant, k=k),
        "hit": ranking.hit_rate_at_k(is_hit, num_relevant, k=k),
        "ndcg": ranking.ndcg_at_k(is_hit, num_relevant, k=k),
        "mrr": ranking.mrr(is_hit, num_relevant),
    }
    expected = [naive_measures(score, relevant, k) for score, relevant in cases]
    for name, values in measured.items():
        np.testing.assert_allclose(values, [row[name] for row in expected], rtol=0, atol=1e-9)


@pytest.mark.slow  # ranx compiles its measures when it is first used: once, in one test for every k
def test_measures_equal_ranx(cases):
    is_hit, num_relevant = hit_matrix(cases, 40)
    rated = [row for row in range(len(cases)) if num_relevant[row] and naive_list(cases[row][0])]
    hits, totals = is_hit[rated], num_relevant[rated]
    qrels = {row: {int(i): 1 for i in np.flatnonzero(cases[row][1])} for row in rated}
    # ranx breaks ties its own way, so it is given our order as distinct scores.
    runs = {row: {i: 1000.0 - rank for rank, i in enumerate(naive_list(cases[row][0]))} for row in rated}
    expected = {"mrr": ranking.mrr(hits, totals)}
    for k in K_VALUES:
        expected[f"recall@{k}"] = ranking.recall_at_k(hits, totals, k=k)
        expected[f"ndcg@{k}"] = ranking.ndcg_at_k(hits, totals, k=k)
        expected[f"hit_rate@{k}"] = ranking.hit_rate_at_k(hits, totals, k=k)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ranx import evaluate

        # Plain dicts: objects of ranx's own would compile for another minute.
        theirs = evaluate(qrels, runs, list(expected), return_mean=False)
    assert len(rated) > 250
    for name, ours in expected.items():
        np.testing.assert_allclose(theirs[name], ours, rtol=0, atol=1e-9)


def test_order_of_record_equals_a_sort(cases):
    for k in K_VALUES:
        for score, _ in cases:
            candidate, best = ranking.rank_top_k(score[None, :], k=k)
            expected = naive_list(score)[:k]
            assert candidate[0, : len(expected)].tolist() == expected
            assert (candidate[0, len(expected) :] == ranking.NO_CANDIDATE).all()
            assert best[0, : len(expected)].tolist() == [score[i] for i in expected]


def test_rows_are_ranked_apart():
    score = np.random.default_rng(3).integers(0, 4, (50, 60)).astype(np.float32)
    candidate, _ = ranking.rank_top_k(score, k=7)
    assert candidate.tolist() == [naive_list(row)[:7] for row in score]


def test_index_recall_counts_only_the_index(cases):
    generator = np.random.default_rng(5)
    score = generator.integers(0, 6, (40, 25)).astype(np.float64)
    relevant = generator.random((40, 25)) < 0.2
    score[(generator.random((40, 25)) < 0.3) & ~relevant] = -np.inf
    measured = ranking.index_recall_at_k(score, relevant, k=5)
    for row in range(40):
        hits = sum(relevant[row, index] for index in naive_list(score[row])[:5])
        total = relevant[row].sum()
        assert measured[row] == pytest.approx(hits / total if total else math.nan, nan_ok=True, abs=1e-12)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        ranking.recall_at_k(np.zeros((1, 2), bool), np.ones(1, int), k=0)
    with pytest.raises(ValueError, match="NaN"):
        ranking.rank_top_k(np.array([[1.0, np.nan]]), k=1)


def test_no_columns_gives_empty_lists():
    candidate, _ = ranking.rank_top_k(np.zeros((2, 0), np.float32), k=3)
    assert (candidate == ranking.NO_CANDIDATE).all()
