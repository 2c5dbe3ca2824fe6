"""Statistics of candidates and users against loops over the events, and what the future may not change."""

import math

import numpy as np
import pytest
from event_logs import (
    CONVERSIONS,
    CUTS,
    DAY,
    EVENTS,
    LEVELS,
    NUM_CANDIDATES,
    NUM_USERS,
    QUARTER,
    Event,
    known_at,
    make_log,
    poison,
)
from hypothesis import given, settings

from forecart.sequences.population import Population, read_population

FIELDS = ("log_share", "visits_per_user", "gap_days", "user_visits", "user_visits_30d", "user_last_days")


def naive_population(events: list[Event], level: str, cut_us: int) -> Population:
    """The definitions read aloud: times of conversion by (user, candidate) and by user."""
    of_pair, of_user, interest = {}, {}, {}
    for event in known_at(events, cut_us):
        if event.candidate(level) >= 2:
            interest.setdefault((event.user, event.candidate(level)), set()).add(event.occurred_us)
        if event.kind in CONVERSIONS and event.candidate(level) >= 2:
            of_pair.setdefault((event.user, event.candidate(level)), set()).add(event.occurred_us)
            of_user.setdefault(event.user, set()).add(event.occurred_us)
    log_share, visits_per_user, gap_days = [], [], []
    for candidate in range(NUM_CANDIDATES):
        pairs = [sorted(times) for (_, one), times in of_pair.items() if one == candidate]
        recent = [sum((cut_us - times[-1]) / DAY < days for times in pairs) for days in (7, 28, math.inf)]
        shares = [math.log((number + 0.5) / (len(of_user) + 1)) for number in recent]
        latest = [max(times) for (_, one), times in interest.items() if one == candidate]
        recent = [sum((cut_us - time) / DAY < days for time in latest) for days in (28, math.inf)]
        num_users = len({user for user, _ in interest})
        log_share.append(shares + [math.log((number + 0.5) / (num_users + 1)) for number in recent])
        visits_per_user.append(sum(map(len, pairs)) / len(pairs) if pairs else 1.0)
        gaps = [(times[-1] - times[0]) / DAY / (len(times) - 1) for times in pairs if len(times) > 1]
        gap_days.append(sum(gaps) / len(gaps) if gaps else 30.0)
    ages = [[(cut_us - time) / DAY for time in of_user.get(user, ())] for user in range(NUM_USERS)]
    return Population(
        np.array(log_share),
        np.array(visits_per_user),
        np.array(gap_days),
        user_visits=np.array([len(one) for one in ages]),
        user_visits_30d=np.array([sum(math.exp(-age / 30) for age in one) for one in ages]),
        user_last_days=np.array([min(one, default=400.0) for one in ages]),
    )


@settings(max_examples=40)
@given(EVENTS, LEVELS, CUTS)
def test_statistics_are_those_of_loops_over_the_events(events, level, cut):
    found, expected = read_population(make_log(events, level), cut), naive_population(events, level, cut)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5, err_msg=name)
        assert getattr(found, name).dtype == np.float32


@settings(max_examples=40)
@given(EVENTS, LEVELS, CUTS)
def test_nothing_that_arrives_at_or_after_the_cut_changes_anything(events, level, cut):
    clean = read_population(make_log(known_at(events, cut), level), cut)
    poisoned = read_population(make_log(events + poison(cut), level), cut)
    for name in FIELDS:
        assert np.array_equal(getattr(clean, name), getattr(poisoned, name)), name


def test_before_any_conversion_every_candidate_is_alike():
    found = read_population(make_log([Event(2, "view", 2, 2, 1)]), 90 * DAY)
    assert np.allclose(found.log_share[:, :3], math.log(0.5))
    viewed, other = found.log_share[2, 3:], found.log_share[3, 3:]
    assert np.allclose(viewed, [math.log(0.5 / 2), math.log(1.5 / 2)]) and np.allclose(
        other, math.log(0.5 / 2)
    )
    assert set(found.visits_per_user) == {1.0} and set(found.gap_days) == {30.0}
    assert not found.user_visits.any() and set(found.user_last_days) == {400.0}


@pytest.mark.parametrize(("late", "num_visits"), [(0, 1), (39, 1), (40, 0)])
def test_a_late_conversion_counts_from_its_arrival(late, num_visits):
    found = read_population(make_log([Event(2, "checkout", 3, 2, occurred=0, late=late)]), 40 * QUARTER)
    assert found.user_visits[2] == num_visits


def test_logs_for_the_own_history_are_of_the_same_statistics():
    events = [Event(2, "checkout", 3, 2, 0), Event(2, "checkout", 3, 2, 40), Event(3, "checkout", 4, 2, 90)]
    found = read_population(make_log(events), 100 * QUARTER)
    week, month, *_ = found.log_share.T
    assert np.allclose(
        found.log_user, np.log1p([found.user_visits, found.user_visits_30d, found.user_last_days])
    )
    assert np.array_equal(found.log_candidate[:3], found.log_share.T[:3])
    assert np.array_equal(found.log_candidate[3], week - month)
    assert np.allclose(found.log_candidate[4:], [np.log(found.visits_per_user), np.log1p(found.gap_days)])
