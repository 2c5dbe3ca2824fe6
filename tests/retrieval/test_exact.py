"""Exact search against sorting every row of scores in plain Python."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forecart.embedding.candidates import CandidateEmbeddings
from forecart.embedding.users import PairTerms, UserEmbeddings
from forecart.retrieval.exact import score_exact, search_exact

# Few distinct scores, so that ties are everywhere, also at the end of a list.
SCORES = st.integers(2, 12).flatmap(
    lambda num: st.lists(
        st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=num, max_size=num), min_size=1, max_size=4
    )
)


def naive_list(scores: list[float], is_eligible: list[bool], top_k: int) -> list[tuple[int, float]]:
    listed = [(-score, index) for index, score in enumerate(scores) if index >= 2 and is_eligible[index]]
    best = [(index, -negative) for negative, index in sorted(listed)[:top_k]]
    return best + [(0, -math.inf)] * (top_k - len(best))


@given(SCORES, st.integers(1, 14), st.data())
def test_lists_are_the_best_eligible_by_score_and_then_by_index(scores, top_k, data):
    num = len(scores[0])
    is_eligible = data.draw(st.lists(st.booleans(), min_size=num, max_size=num))
    found = search_exact(torch.tensor(scores), top_k=top_k, is_eligible_N=torch.tensor(is_eligible))
    assert found.candidate.shape == found.score.shape == (len(scores), top_k)
    assert found.candidate.dtype == np.int32 and found.score.dtype == np.float32
    for row, one in enumerate(scores):
        pairs = zip(found.candidate[row].tolist(), found.score[row].tolist(), strict=True)
        assert list(pairs) == naive_list(one, is_eligible, top_k)


def test_of_many_equal_scores_the_lowest_indices_are_listed():
    found = search_exact(torch.zeros(2, 5000), top_k=100, is_eligible_N=torch.ones(5000, dtype=torch.bool))
    assert found.candidate.tolist() == [list(range(2, 102))] * 2


def test_lists_fill_up_when_the_best_are_not_eligible():
    scores = torch.arange(1000, 0, -1.0).repeat(3, 1)
    is_eligible = torch.zeros(1000, dtype=torch.bool)
    is_eligible[990:] = True
    found = search_exact(scores, top_k=10, is_eligible_N=is_eligible)
    assert found.candidate.tolist() == [list(range(990, 1000))] * 3


def test_a_score_that_is_no_number_is_an_error_where_it_could_be_listed():
    scores = torch.tensor([[0.0, 0.0, 1.0, math.nan, 2.0]])
    is_eligible = torch.tensor([True, True, True, False, True])
    found = search_exact(scores.clone(), top_k=2, is_eligible_N=is_eligible)
    assert found.candidate.tolist() == [[4, 2]]
    with pytest.raises(ValueError, match="NaN"):
        search_exact(scores, top_k=2, is_eligible_N=torch.ones(5, dtype=torch.bool))


def test_a_score_is_cosine_and_bias_and_the_sparse_terms():
    generator = torch.Generator().manual_seed(0)
    vectors, bias = torch.randn(6, 4, generator=generator), torch.randn(6, generator=generator)
    people = torch.randn(3, 4, generator=generator)
    own = {(0, 2): 1.5, (0, 5): -2.0, (2, 3): 0.25}
    followed = {(0, 2): 0.5, (1, 4): 0.75}
    rows, candidates = torch.tensor(list(own)).T
    users = UserEmbeddings(
        user_index=np.array([2, 3, 4], np.int32),
        vector_BD=people,
        own_row_M=rows,
        own_candidate_M=candidates,
        own_term_M=torch.tensor(list(own.values())),
        has_converted_M=torch.ones(3, dtype=torch.bool),
        successors=PairTerms(*torch.tensor(list(followed)).T, torch.tensor(list(followed.values()))),
    )
    scores = score_exact(users, CandidateEmbeddings(vectors, bias, temperature=0.1))
    for user in range(3):
        for candidate in range(6):
            cosine = sum(float(a) * float(b) for a, b in zip(people[user], vectors[candidate], strict=True))
            expected = cosine + float(bias[candidate]) + own.get((user, candidate), 0.0)
            expected += followed.get((user, candidate), 0.0)
            assert float(scores[user, candidate]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("num", [700, 5_000, 40_000])
def test_many_candidates_are_listed_as_by_sorting_all(num):
    """Bounds by groups and all: few distinct scores, rows of one score, few eligible or none."""
    generator = torch.Generator().manual_seed(num)
    scores = torch.randint(-50, 50, (9, num), generator=generator).float()
    scores[1], scores[2] = 3.0, torch.arange(float(num))
    scores[3:6] += torch.rand(3, num, generator=generator)
    is_eligible = torch.rand(num, generator=generator) < 0.9
    for share in (0.9, 0.01, 0.0):
        is_eligible &= torch.rand(num, generator=generator) < share
        masked = torch.where(is_eligible & (torch.arange(num) >= 2), scores, -torch.inf)
        expected, order = masked.sort(dim=1, descending=True, stable=True)
        found = search_exact(scores.clone(), top_k=20, is_eligible_N=is_eligible)
        assert found.score.tolist() == expected[:, :20].tolist()
        listed = torch.where(expected.isneginf(), 0, order)[:, :20]
        assert found.candidate.tolist() == listed.tolist()


def test_a_score_that_is_no_number_is_seen_among_many():
    scores = torch.arange(5_000.0).repeat(3, 1)
    scores[1, 4_321] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        search_exact(scores, top_k=20, is_eligible_N=torch.ones(5_000, dtype=torch.bool))
