"""Lists chosen anew against a plain loop over one user at a time, and what must not change them."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from forecart.retrieval.diversity import Reranker, RerankRule, RerankSettings, build_reranker
from forecart.retrieval.top_k import TopK
from forecart.sequences.population import read_population
from forecart.sequences.vocabulary import FIRST_INDEX
from planted_world import CODES, DAY, START, random_world

N, D, P, K = 60, 8, 30, 10


def make_reranker(rule, seed=0):
    generator = np.random.default_rng(seed)
    vector_ND = generator.standard_normal((N, D)).astype(np.float32)
    vector_ND /= np.linalg.norm(vector_ND, axis=1, keepdims=True)
    log_share_N = np.log(generator.random(N)).astype(np.float32)
    return Reranker(rule, vector_ND, log_share_N, temperature=0.25)


def make_best(num_users, *, seed=1, num_ties=0, shortest=P):
    """The best P of random scores as a search gives them; lists may be short and scores equal."""
    generator = np.random.default_rng(seed)
    score_BP = -np.sort(-generator.random((num_users, P)).astype(np.float32), axis=1)
    score_BP[:, 1 : 1 + num_ties] = score_BP[:, :1]
    candidate_BP = np.stack(
        [FIRST_INDEX + generator.permutation(N - FIRST_INDEX)[:P] for _ in range(num_users)]
    )
    length_B = generator.integers(shortest, P + 1, num_users)
    is_padding_BP = np.arange(P) >= length_B[:, None]
    return TopK(
        np.where(is_padding_BP, 0, candidate_BP).astype(np.int32),
        np.where(is_padding_BP, np.float32(-np.inf), score_BP),
    )


def choose_naively(reranker, candidates, scores, top_k):
    """The greedy rule as it is written down, for one user, in double precision."""
    rule = reranker.rule
    left = [(c, s) for c, s in zip(candidates, scores, strict=True) if s > -math.inf]
    listed = []
    while left and len(listed) < top_k:

        def worth(pair):
            candidate, score = pair
            popularity = rule.popularity * reranker.temperature * float(reranker.log_share_N[candidate])
            cosines = [float(reranker.vector_ND[candidate] @ reranker.vector_ND[c]) for c, _ in listed]
            alike = max(cosines) if cosines else 0.0
            return (1 - rule.similarity) * (score - popularity) - rule.similarity * alike

        is_kept = len(listed) < round(rule.kept_share * top_k)
        chosen = left[0] if is_kept else max(left, key=worth)  # max takes the first of equal ones
        left.remove(chosen)
        listed.append(chosen)
    return listed


RULES = [
    RerankRule(popularity=popularity, similarity=similarity, kept_share=kept)
    for popularity in (0.0, 0.3, 2.0)
    for similarity in (0.0, 0.3, 1.0)
    for kept in (0.0, 0.35, 1.0)
]


@pytest.mark.parametrize("rule", RULES)
def test_lists_are_those_of_the_plain_loop(rule):
    reranker = make_reranker(rule)
    for best in (make_best(7), make_best(7, seed=3, shortest=0)):
        found = reranker.rerank(best, top_k=K)
        assert found.candidate.shape == found.score.shape == (7, K)
        for row in range(7):
            expected = choose_naively(reranker, best.candidate[row].tolist(), best.score[row].tolist(), K)
            num = len(expected)
            assert found.candidate[row, :num].tolist() == [candidate for candidate, _ in expected]
            assert found.score[row, :num].tolist() == [score for _, score in expected]
            assert (found.candidate[row, num:] == 0).all() and np.isneginf(found.score[row, num:]).all()


@pytest.mark.parametrize("kept_share", [0.0, 0.5])
def test_with_lambda_1_and_no_price_the_order_is_that_of_the_scores(kept_share):
    rule = RerankRule(popularity=0.0, similarity=0.0, kept_share=kept_share)
    best = make_best(9, num_ties=4, shortest=0)
    found = make_reranker(rule).rerank(best, top_k=K)
    assert found.candidate.tolist() == best.candidate[:, :K].tolist()
    assert found.score.tolist() == best.score[:, :K].tolist()


@given(st.sampled_from(RULES), st.integers(1, P), st.integers(0, 1000))
def test_lists_hold_k_different_candidates_of_the_best(rule, top_k, seed):
    best = make_best(3, seed=seed, shortest=5)
    found = make_reranker(rule, seed).rerank(best, top_k=top_k)
    for row in range(3):
        there = set(best.candidate[row, best.score[row] > -np.inf].tolist())
        listed = [c for c in found.candidate[row].tolist() if c]
        assert len(listed) == len(set(listed)) == min(top_k, len(there))
        assert set(listed) <= there
        kept = min(round(rule.kept_share * top_k), len(there))
        assert listed[:kept] == best.candidate[row, :kept].tolist()


@pytest.mark.parametrize("rule", [RerankRule(), RerankRule(similarity=0.4, kept_share=0.2)])
def test_a_block_is_its_users_one_by_one_and_a_second_time_the_same(rule):
    reranker, best = make_reranker(rule), make_best(41)  # more than two blocks of the greedy choice
    whole, again = reranker.rerank(best, top_k=K), reranker.rerank(best, top_k=K)
    assert whole.candidate.tobytes() == again.candidate.tobytes()
    for row in range(41):
        one = TopK(best.candidate[row : row + 1], best.score[row : row + 1])
        alone = reranker.rerank(one, top_k=K)
        assert alone.candidate.tolist() == whole.candidate[row : row + 1].tolist()
        assert alone.score.tolist() == whole.score[row : row + 1].tolist()


def test_of_no_users_there_are_no_lists():
    for rule in (RerankRule(), RerankRule(similarity=0.5)):
        nobody = TopK(np.zeros((0, P), np.int32), np.zeros((0, P), np.float32))
        assert make_reranker(rule).rerank(nobody, top_k=K).candidate.shape == (0, K)


def test_the_search_must_give_as_many_as_are_listed():
    with pytest.raises(ValueError, match=f"lists of {P + 1} .* got {P}"):
        make_reranker(RerankRule()).rerank(make_best(2), top_k=P + 1)
    assert [RerankRule(pool_factor=factor).pool_size(25) for factor in (1.0, 1.5, 3.0)] == [25, 38, 75]


def test_popularity_takes_places_from_the_popular_and_similarity_from_the_alike():
    reranker, best = make_reranker(RerankRule(popularity=0.0, kept_share=0.0)), make_best(50)

    def mean_of(measure, **changes):
        rule = reranker.rule.model_copy(update=changes)
        found = dataclasses.replace(reranker, rule=rule).rerank(best, top_k=K)
        return np.mean([measure(row) for row in found.candidate])

    def share(row):
        return reranker.log_share_N[row].mean()

    def cosine(row):
        return (reranker.vector_ND[row] @ reranker.vector_ND[row].T).mean()

    shares = [mean_of(share, popularity=price) for price in (0.0, 0.5, 5.0)]
    cosines = [mean_of(cosine, similarity=weight) for weight in (0.0, 0.3, 0.9)]
    assert shares[0] > shares[1] > shares[2]
    assert cosines[0] > cosines[1] > cosines[2]


def test_popularity_is_the_users_who_converted_before_the_cut_and_nothing_after_it():
    world, cut_us = random_world(), START + 30 * DAY
    log = world.log()
    vector_ND = make_reranker(RerankRule()).vector_ND[: log.num_candidates]

    def built(of):
        population = read_population(of, cut_us)
        return build_reranker(RerankRule(), population, vector_ND=vector_ND, temperature=0.1)

    is_known = world.histories.arrived_us < cut_us
    is_conversion = world.histories.event_type == CODES["checkout"]
    user = world.histories.event_users()
    pairs = {
        (u, a)
        for u, a in zip(
            user[is_known & is_conversion], world.histories.advertiser[is_known & is_conversion], strict=True
        )
        if a >= FIRST_INDEX
    }
    everyone = len({u for u, _ in pairs})
    expected = [
        math.log((sum(a == n for _, a in pairs) + 0.5) / (everyone + 1)) for n in range(log.num_candidates)
    ]
    assert 0 < is_known.sum() < len(is_known)
    assert built(log).log_share_N == pytest.approx(expected, abs=1e-5)

    # What arrived at the cut or later: all of one advertiser, all conversions.
    histories = world.histories
    poisoned = dataclasses.replace(
        histories,
        advertiser=np.where(is_known, histories.advertiser, np.int32(FIRST_INDEX)),
        event_type=np.where(is_known, histories.event_type, np.uint8(CODES["checkout"])),
    )
    assert (poisoned.advertiser != histories.advertiser).any()
    found = built(dataclasses.replace(world, histories=poisoned).log())
    assert found.log_share_N.tobytes() == built(log).log_share_N.tobytes()


def test_settings_are_closed_and_off_until_asked_for():
    assert RerankSettings().rule is None
    assert RerankSettings(is_enabled=True).rule == RerankRule()
    for wrong in ({"lamda": 1}, {"popularity": -0.1}, {"similarity": 1.1}, {"pool_factor": 0.5}):
        with pytest.raises(ValidationError):
            RerankRule(**wrong)
