"""Each baseline's score against its formula as a plain loop over rows."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from forecart.baselines import ease as ease_module
from forecart.baselines.contract import BaselineScorer
from forecart.baselines.conversions import read_conversions
from forecart.baselines.ease import BasketEasePopularity, DecayedEasePopularity, Ease, ease_scores
from forecart.baselines.markov import Markov
from forecart.baselines.neighbours import ItemNeighbours
from forecart.baselines.own_history import (
    BasketPopularity,
    DecayedPopularity,
    FrequencyPopularity,
    HistoryThenPopularity,
    OwnHistory,
)
from forecart.baselines.popularity import Popularity
from forecart.baselines.skip_markov import SkipMarkov
from forecart.columns import EVENT_TYPE_CODES
from forecart.errors import ConfigError, DataError
from forecart.sequences.histories import Histories

DAY_US = 86_400_000_000
CUT_DAY, NUM_USERS, NUM_CANDIDATES = 50, 14, 9
CHECKOUT, VIEW = EVENT_TYPE_CODES["checkout"], EVENT_TYPE_CODES["view"]


def make_events(seed):
    """(user, candidate, day, is_checkout) rows by user and day; several rows may share a basket."""
    generator = np.random.default_rng(seed)
    rows = [
        (
            int(generator.integers(2, NUM_USERS)),
            int(generator.integers(2, NUM_CANDIDATES)),
            int(day),
            bool(generator.random() < 0.8),
        )
        for day in generator.integers(0, 60, 300)
    ]
    return sorted(rows, key=lambda row: (row[0], row[2]))


EVENTS = make_events(7)
KNOWN = [row[:3] for row in EVENTS if row[2] < CUT_DAY and row[3]]


@pytest.fixture(scope="module")
def histories():
    length = np.bincount([row[0] for row in EVENTS], minlength=NUM_USERS)
    day = np.array([row[2] for row in EVENTS], np.int64)
    candidate = np.array([row[1] for row in EVENTS], np.int32)
    return Histories(
        start=np.cumsum(length) - length,
        length=length,
        event_type=np.array([CHECKOUT if row[3] else VIEW for row in EVENTS], np.uint8),
        advertiser=candidate,
        item=np.zeros_like(candidate),
        occurred_us=day * DAY_US,
        arrived_us=day * DAY_US,
        price=np.zeros(len(day), np.float32),
    )


def fitted_scores(baseline, histories):
    scorer = BaselineScorer(baseline, histories, "advertiser", NUM_CANDIDATES, frozenset({CHECKOUT}))
    assert scorer.name == baseline.name
    return scorer.score_at(CUT_DAY * DAY_US, np.arange(NUM_USERS, dtype=np.int32))


def share(last_days=None):
    users = len({user for user, _, _ in KNOWN})
    recent = {(u, c) for u, c, day in KNOWN if last_days is None or CUT_DAY - day <= last_days}
    return np.array([sum(1 for _, c in recent if c == j) / users for j in range(NUM_CANDIDATES)])


def table(weight_of_pair):
    score = np.zeros((NUM_USERS, NUM_CANDIDATES))
    for (user, candidate), weight in weight_of_pair.items():
        score[user, candidate] = weight
    return score


def rows_sum(weight, rows=KNOWN):
    sums = defaultdict(float)
    for user, candidate, day in rows:
        sums[user, candidate] += weight(CUT_DAY - day)
    return table(sums)


COUNT = rows_sum(lambda age: 1.0)
DECAYED = rows_sum(lambda age: math.exp(-age / 90))
BASKETS = rows_sum(lambda age: math.exp(-age / 120), sorted(set(KNOWN)))


def test_own_history_formulas(histories):
    for baseline, expected in (
        (Popularity(None), np.tile(share(), (NUM_USERS, 1))),
        (Popularity(7), np.tile(share(7) + 0.001 * share(), (NUM_USERS, 1))),
        (FrequencyPopularity(), COUNT + 0.999 * share()),
        (DecayedPopularity(), DECAYED + 0.001 * share()),
        (BasketPopularity(), BASKETS + 0.5 * share()),
        (BasketPopularity(last_days=7), BASKETS + 0.5 * (share(7) + 0.001 * share())),
    ):
        np.testing.assert_allclose(fitted_scores(baseline, histories), expected, rtol=1e-5, atol=1e-6)


def test_history_then_popularity_orders_as_said(histories):
    score = fitted_scores(HistoryThenPopularity(), histories)
    for user in range(2, NUM_USERS):
        rows = [row for row in EVENTS if row[0] == user and row[2] < CUT_DAY]
        count = Counter(row[1] for row in rows)
        latest = {row[1]: row[2] for row in rows}
        for one, other in ((a, b) for a in range(2, NUM_CANDIDATES) for b in range(2, NUM_CANDIDATES)):
            key = [(count[c], latest.get(c, -1), share()[c]) for c in (one, other)]
            if key[0] > key[1]:
                assert score[user, one] > score[user, other]


def naive_weight(x, regularisation):
    p = np.linalg.inv(x.T @ x + regularisation * np.eye(x.shape[1]))
    weight = -p / np.diag(p)
    np.fill_diagonal(weight, 0.0)
    return weight


def test_ease_formulas(histories):
    x = np.log1p(COUNT)
    ease = x @ naive_weight(x, 300.0)
    np.testing.assert_allclose(fitted_scores(Ease(), histories), ease + 1e-6 * share(), atol=1e-6)
    mixed = np.log1p(BASKETS) + 0.3 * ease + 0.2 * share()
    np.testing.assert_allclose(fitted_scores(BasketEasePopularity(), histories), mixed, atol=1e-5)
    mixed = np.log1p(DECAYED) + 0.3 * ease + 0.2 * share()
    np.testing.assert_allclose(fitted_scores(DecayedEasePopularity(), histories), mixed, atol=1e-5)


@pytest.mark.parametrize("knows_later_rows", [False, True])
@pytest.mark.parametrize("num_users", [20, 60])
def test_ease_is_the_same_on_either_side(num_users, knows_later_rows):
    x, later = np.random.default_rng(0).poisson(0.4, (2, num_users, 25)).astype(np.float32)
    y = x + later if knows_later_rows else None
    by_users = ease_module._scores_by_users(x, 20.0, y)
    by_candidates = ease_module._scores_by_candidates(x, 20.0, y)
    expected = (x if y is None else y) @ naive_weight(x.astype(np.float64), 20.0)
    np.testing.assert_allclose(by_users, expected, atol=2e-5)
    np.testing.assert_allclose(by_candidates, expected, atol=2e-5)
    smaller = by_users if num_users < 25 else by_candidates
    assert np.array_equal(ease_scores(x, 20.0, y_UM=y), smaller)


def test_ease_minimises_its_objective():
    x = np.random.default_rng(1).poisson(0.5, (40, 6)).astype(np.float64)
    predicted = ease_scores(x.astype(np.float32), 5.0)
    for column in range(6):
        others = np.delete(x, column, axis=1)
        ridge = np.linalg.solve(others.T @ others + 5.0 * np.eye(5), others.T @ x[:, column])
        np.testing.assert_allclose(predicted[:, column], others @ ridge, atol=1e-4)


def test_ease_refuses_what_has_no_closed_form(histories, monkeypatch):
    monkeypatch.setattr(ease_module, "_MAX_SIDE", 3)
    with pytest.raises(DataError, match="leave it out of the baselines"):
        fitted_scores(Ease(), histories)


def test_markov_formula(histories):
    baskets = defaultdict(lambda: defaultdict(set))
    for user, candidate, day in KNOWN:
        baskets[user][day].add(candidate)
    followed, begun = Counter(), Counter()
    for days in baskets.values():
        for earlier, later in zip(sorted(days), sorted(days)[1:], strict=False):
            begun.update(days[earlier])
            followed.update((i, j) for i in days[earlier] for j in days[later])
    expected = np.tile(0.001 * share(), (NUM_USERS, 1))
    for user, i, day in set(KNOWN):
        for j in range(NUM_CANDIDATES):
            if begun[i]:
                expected[user, j] += math.exp(-(CUT_DAY - day) / 14) * followed[i, j] / begun[i]
    np.testing.assert_allclose(fitted_scores(Markov(), histories), expected, rtol=1e-5, atol=1e-6)


def test_skip_markov_formula(histories):
    rows = defaultdict(list)
    for user, candidate, _ in KNOWN:
        rows[user].append(candidate)
    weight = np.zeros((NUM_CANDIDATES, NUM_CANDIDATES))
    for candidates in rows.values():
        for at, i in enumerate(candidates):
            for distance, j in enumerate(candidates[at + 1 : at + 4], start=1):
                weight[i, j] += 0.5 ** (distance - 1)
    total_i, total_j = weight.sum(axis=1), weight.sum(axis=0)
    expected = np.tile(1e-6 * share(), (NUM_USERS, 1))
    for user, candidates in rows.items():
        for places_back, i in enumerate(candidates[::-1][:5]):
            for j in range(NUM_CANDIDATES):
                if weight[i, j]:
                    expected[user, j] += (
                        0.5**places_back * weight[i, j] / total_i[i] ** 0.6 / total_j[j] ** 0.4
                    )
    found = fitted_scores(SkipMarkov(0.5, num_places=3, num_latest=5, row_power=0.6), histories)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_item_neighbours_formula(histories):
    has = COUNT > 0
    num_users = has.sum(axis=0)
    expected = np.tile(0.001 * share(), (NUM_USERS, 1))
    for user, i, day in set(KNOWN):
        cosine = [
            ((has[:, i] & has[:, j]).sum() / math.sqrt(num_users[i] * num_users[j])) if num_users[j] else 0.0
            for j in range(NUM_CANDIDATES)
        ]
        nearest = sorted(range(NUM_CANDIDATES), key=lambda j: (-cosine[j], j))[:3]
        for j in nearest:
            expected[user, j] += math.exp(-(CUT_DAY - day) / 90) * cosine[j]
    scored = fitted_scores(ItemNeighbours(num_neighbours=3), histories)
    np.testing.assert_allclose(scored, expected, rtol=1e-4, atol=1e-5)


def test_rare_candidates_have_no_neighbours(histories):
    scored = fitted_scores(ItemNeighbours(min_users=1000), histories)
    np.testing.assert_allclose(scored, np.tile(0.001 * share(), (NUM_USERS, 1)), rtol=1e-5)


def test_conversions_are_only_known_candidates(histories):
    given = {"cut_us": CUT_DAY * DAY_US, "conversion_codes": frozenset({CHECKOUT})}
    conversions = read_conversions(histories, level="advertiser", num_candidates=5, **given)
    expected = sorted(row for row in KNOWN if row[1] < 5)
    days = (conversions.occurred_us // DAY_US).tolist()
    rows = zip(conversions.user.tolist(), conversions.candidate.tolist(), days, strict=True)
    assert sorted(rows) == expected
    assert len(read_conversions(histories, level="item", num_candidates=5, **given).user) == 0
    with pytest.raises(ConfigError, match="level"):
        read_conversions(histories, level="brand", num_candidates=5, **given)


def test_a_scorer_fits_once_a_cut(histories, monkeypatch):
    fits = []

    class Counting(Popularity):
        def fit(self, log):
            fits.append(log.cut_us)
            return super().fit(log)

    scorer = BaselineScorer(Counting(), histories, "advertiser", NUM_CANDIDATES, frozenset({CHECKOUT}))
    for cut_us in (DAY_US, DAY_US, 2 * DAY_US):
        scorer.score_at(cut_us, np.array([2], np.int32))
    assert fits == [DAY_US, 2 * DAY_US]


def test_own_history_has_no_weights_of_its_own(histories):
    with pytest.raises(NotImplementedError):
        fitted_scores(OwnHistory("nothing", 0.0), histories)
