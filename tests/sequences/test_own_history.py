"""The features of each (user, candidate) pair against formulas over its list of events."""

import math

import numpy as np
import pytest
from event_logs import (
    CONVERSIONS,
    CUTS,
    DAY,
    EVENTS,
    LEVELS,
    QUARTER,
    Event,
    known_at,
    make_log,
    poison,
)
from hypothesis import given, settings

from forecart.sequences.own_groups import GROUP_FEATURES
from forecart.sequences.own_history import FEATURES, OwnHistory, read_own_history
from forecart.sequences.population import Population, read_population

EVERYONE = np.arange(2, 7, dtype=np.int32)


def read(events: list[Event], cut_us: int, *, level: str = "advertiser", users=EVERYONE) -> OwnHistory:
    log = make_log(events, level)
    users = np.asarray(users, np.int32)
    cuts = np.full(len(users), cut_us)
    return read_own_history(log, user_index=users, cut_us=cuts, population=read_population(log, cut_us))


def feature(own: OwnHistory, name: str, pair: int = 0) -> float:
    return float(own.feature[pair, FEATURES.index(name)])


def naive_features(
    events: list[Event], cut_us: int, population: Population, user: int, candidate: int
) -> dict:
    """Every feature of one pair from the list of its events."""

    def age(event: Event) -> float:
        return (cut_us - event.occurred_us) / DAY

    def decayed(ages: list[float], days: float) -> float:
        return sum(math.exp(-one / days) for one in ages)

    rows = [age(event) for event in events if event.kind in CONVERSIONS]
    intents = [age(event) for event in events if event.kind == "add_to_cart"]
    views = [age(event) for event in events if event.kind == "view"]
    visits = sorted(set(rows))
    last, first = (visits[0], visits[-1]) if visits else (400.0, 0.0)
    is_repeated = len(visits) > 1
    gap = (first - last) / (len(visits) - 1) if is_repeated else 0.0
    user_visits, user_recent = population.user_visits[user], population.user_visits_30d[user]
    week, month, ever = population.log_share[candidate, :3]
    newest = min(map(age, events))
    return {
        "has_converted": bool(rows),
        "log_rows": math.log(1 + len(rows)),
        "log_visits": math.log(1 + len(visits)),
        "log_visits_7d": math.log(1 + decayed(visits, 7)),
        "log_visits_30d": math.log(1 + decayed(visits, 30)),
        "log_visits_120d": math.log(1 + decayed(visits, 120)),
        "log_days_since_last": math.log(1 + last),
        "months_since_last": last / 30,
        "week_since_last": math.exp(-last / 3.5),
        # Days from the nearest whole number of weeks.
        "weekday_phase": abs(last - 7 * math.floor(last / 7 + 0.5)),
        "log_days_since_first": math.log(1 + first),
        "log_gap": math.log(1 + gap),
        "is_repeated": is_repeated,
        "due": min(last / max(gap, 1), 5) if is_repeated else 0,
        "due_for_candidate": min(last / max(population.gap_days[candidate], 1), 5),
        "log_rows_per_visit": math.log(len(rows) / len(visits)) if rows else 0,
        "log_decayed_visits": math.log(0.1 + decayed(visits, 120)),
        "log_share_of_visits": math.log(min(len(visits) / max(user_visits, 1), 1) + 0.001),
        "log_share_of_recent_visits": math.log(decayed(visits, 120) / max(4 * user_recent, 1) + 0.001),
        "log_user_visits": math.log(1 + user_visits),
        "log_user_recent_visits": math.log(1 + user_recent),
        "log_user_days_since_last": math.log(1 + population.user_last_days[user]),
        "log_candidate_share_7d": week,
        "log_candidate_share_28d": month,
        "log_candidate_share": ever,
        "log_candidate_trend": week - month,
        "log_candidate_visits_per_user": math.log(population.visits_per_user[candidate]),
        "log_candidate_gap": math.log(1 + population.gap_days[candidate]),
        "log_intents": math.log(1 + len(intents)),
        "intents_7d": math.log(1 + decayed(intents, 7)),
        "log_views": math.log(1 + len(views)),
        "views_7d": math.log(1 + decayed(views, 7)),
        "log_days_since_any": math.log(1 + newest),
        "day_since_any": math.exp(-newest),
    }


@settings(max_examples=40)
@given(EVENTS, LEVELS, CUTS, CUTS)
def test_features_are_those_of_loops_over_each_pairs_events(events, level, cut, other_cut):
    log = make_log(events, level)
    users = np.array([3, 6, 2, 3], np.int32)
    cuts = np.array([cut, cut, other_cut, other_cut])
    population = read_population(log, min(cut, other_cut))
    own = read_own_history(log, user_index=users, cut_us=cuts, population=population)
    expected = {}
    for row, (user, cut_us) in enumerate(zip(users.tolist(), cuts.tolist(), strict=True)):
        for event in known_at(events, cut_us):
            if event.user == user and event.candidate(level) >= 2:
                expected.setdefault((row, event.candidate(level)), []).append(event)
    assert list(zip(own.row.tolist(), own.candidate.tolist(), strict=True)) == sorted(expected)
    assert own.feature.shape == (len(expected), len(FEATURES)) and own.feature.dtype == np.float32
    for at, (row, candidate) in enumerate(sorted(expected)):
        mine = expected[row, candidate]
        named = naive_features(mine, int(cuts[row]), population, int(users[row]), candidate)
        np.testing.assert_allclose(
            own.feature[at, : -len(GROUP_FEATURES)],
            [named[name] for name in FEATURES if name not in GROUP_FEATURES],
            rtol=1e-4,
            atol=1e-4,
            err_msg=str(mine),
        )
        assert own.has_converted[at] == any(event.kind in CONVERSIONS for event in mine)


@settings(max_examples=40)
@given(EVENTS, LEVELS, CUTS)
def test_nothing_that_arrives_at_or_after_the_cut_changes_a_feature(events, level, cut):
    clean = read(known_at(events, cut), cut, level=level)
    poisoned = read(events + poison(cut), cut, level=level)
    for name in ("row", "candidate", "feature", "has_converted"):
        assert np.array_equal(getattr(clean, name), getattr(poisoned, name)), name


@settings(max_examples=40)
@given(EVENTS, CUTS)
def test_a_users_features_do_not_depend_on_who_else_is_in_the_batch(events, cut):
    together = read(events, cut)
    for row, user in enumerate(EVERYONE):
        alone = read(events, cut, users=[user])
        assert np.array_equal(together.feature[together.row == row], alone.feature)


def test_every_feature_has_one_name():
    assert len(set(FEATURES)) == len(FEATURES) == 34 + len(GROUP_FEATURES)


@pytest.mark.parametrize("users", [[], [6], [6, 0, 1]])
def test_users_without_events_have_no_pairs(users):
    own = read([Event(2, "checkout", 3, 3, 1)], 40 * QUARTER, users=users)
    assert own.feature.shape == (0, len(FEATURES)) and len(own.row) == len(own.has_converted) == 0
    assert own.candidate.dtype == np.int32


def test_a_pair_without_a_conversion_is_there_and_has_not_converted():
    own = read([Event(2, "view", 3, 0, 10), Event(2, "add_to_cart", 3, 0, 12)], 14 * QUARTER)
    assert own.candidate.tolist() == [3] and own.has_converted.tolist() == [False]
    assert feature(own, "log_days_since_last") == pytest.approx(math.log(401))
    assert feature(own, "log_views") == feature(own, "log_intents") == pytest.approx(math.log(2))
    assert feature(own, "log_days_since_any") == pytest.approx(math.log(1.5))
    assert feature(own, "log_visits") == feature(own, "due") == feature(own, "log_days_since_first") == 0


def test_events_without_an_item_are_in_no_pair_at_item_level():
    own = read([Event(2, "checkout", 3, 0, 10), Event(2, "checkout", 3, 1, 10)], 14 * QUARTER, level="item")
    assert len(own.row) == 0


def test_the_gap_of_a_pair_last_seen_years_ago_is_not_cut_short():
    events = [Event(2, "checkout", 3, 0, 0), Event(2, "checkout", 3, 0, 50 * 4)]
    own = read(events, 1000 * DAY)
    assert feature(own, "log_gap") == pytest.approx(math.log(51), rel=1e-4)
    assert feature(own, "months_since_last") == pytest.approx(400 / 30)


def test_a_view_does_not_make_the_groups_last_visit_of_years_ago_newer():
    events = [Event(2, "checkout", 3, 0, 0), Event(2, "checkout", 3, 0, 50 * 4), Event(2, "view", 4, 0, 9)]
    own = read(events, 1000 * DAY)
    assert own.candidate.tolist() == [3, 4]
    # Days since the last visit over the gap between two: 400 at most, over 50.
    assert feature(own, "category_due") == 5
    assert feature(own, "log_days_since_category") == pytest.approx(math.log(401))
    assert [feature(own, "is_latest_of_category", pair) for pair in (0, 1)] == [1, 0]


def test_a_basket_that_arrives_in_parts_is_one_visit_from_its_first_part_on():
    basket = [Event(2, "checkout", 3, 0, 0, late=8), Event(2, "checkout", 3, 0, 0, late=2)]
    own = read(basket, 4 * QUARTER)
    assert feature(own, "log_rows") == feature(own, "log_visits") == pytest.approx(math.log(2))
    own = read(basket, 12 * QUARTER)
    assert feature(own, "log_rows") == pytest.approx(math.log(3))
    assert feature(own, "log_visits") == pytest.approx(math.log(2))
