"""The log by pair against sorting and filtering the same events in plain Python."""

import numpy as np
from event_logs import (
    CONVERSION_CODES,
    CONVERSIONS,
    CUTS,
    EVENTS,
    LEVELS,
    NUM_USERS,
    Event,
    known_at,
    make_histories,
    make_log,
    poison,
)
from hypothesis import given, settings

from forecart.columns import EVENT_TYPE_CODES
from forecart.sequences.pair_log import PairLog, expand_ranges, run_ends, run_starts


def rows_as_tuples(log: PairLog) -> list[tuple]:
    histories, event = log.histories, log.order
    columns = (
        histories.event_users()[event],
        log.candidate[event],
        histories.occurred_us[event],
        histories.arrived_us[event],
        histories.event_type[event],
        log.is_conversion(event),
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))


@settings(max_examples=40)
@given(EVENTS, LEVELS)
def test_rows_are_the_events_with_a_candidate_by_user_candidate_time_and_arrival(events, level):
    log = make_log(events, level)
    expected = sorted(
        (event.user, event.candidate(level), event.occurred_us, event.arrived_us)
        for event in events
        if event.candidate(level) >= 2
    )
    assert [row[:4] for row in rows_as_tuples(log)] == expected
    assert sorted(rows_as_tuples(log)) == sorted(
        (
            event.user,
            event.candidate(level),
            event.occurred_us,
            event.arrived_us,
            EVENT_TYPE_CODES[event.kind],
            event.kind in CONVERSIONS,
        )
        for event in events
        if event.candidate(level) >= 2
    )
    for user in range(NUM_USERS):
        assert {row[0] for row in rows_as_tuples(log)[log.start[user] : log.start[user + 1]]} <= {user}
    assert log.start[0] == 0 and log.start[-1] == len(log.order)


def test_candidates_of_a_later_vocabulary_are_left_out():
    histories = make_histories([Event(2, "checkout", 3, 0, 1), Event(2, "checkout", 4, 0, 2)])
    log = PairLog.build(histories, level="advertiser", num_candidates=4, conversion_codes=CONVERSION_CODES)
    assert log.candidate[log.order].tolist() == [3]


@settings(max_examples=40)
@given(EVENTS, LEVELS, CUTS, CUTS)
def test_events_before_are_those_that_arrived_before_the_cut_of_their_row(events, level, cut, other_cut):
    events = events + poison(cut)
    log = make_log(events, level)
    users = np.array([6, 3, 2, 3, 0], np.int32)
    cuts = np.array([cut, cut, other_cut, other_cut, cut])
    position, event = log.events_before(users, cuts)
    columns = (position, log.candidate[event], log.histories.occurred_us[event])
    found = list(zip(*(column.tolist() for column in columns), strict=True))
    assert found == sorted(
        (at, event.candidate(level), event.occurred_us)
        for at, (user, cut_us) in enumerate(zip(users, cuts, strict=True))
        for event in known_at(events, cut_us)
        if event.user == user and event.candidate(level) >= 2
    )


@settings(max_examples=40)
@given(EVENTS, LEVELS, CUTS)
def test_a_visit_is_known_as_soon_as_one_of_its_rows_is(events, level, cut):
    log = make_log(events, level)
    conversions = [
        event for event in known_at(events, cut) if event.kind in CONVERSIONS and event.candidate(level) >= 2
    ]
    user, event = log.known_before(cut)
    user, event = user[log.is_visit[event]], event[log.is_visit[event]]
    of_pair = zip(user, log.candidate[event], log.histories.occurred_us[event], strict=True)
    assert [tuple(map(int, one)) for one in of_pair] == sorted(
        {(event.user, event.candidate(level), event.occurred_us) for event in conversions}
    )
    user = np.repeat(np.arange(NUM_USERS), np.diff(log.visit_start))
    is_known = log.histories.arrived_us[log.user_visit] < cut
    of_user = zip(user[is_known], log.histories.occurred_us[log.user_visit[is_known]], strict=True)
    assert [tuple(map(int, one)) for one in of_user] == sorted(
        {(event.user, event.occurred_us) for event in conversions}
    )


def test_a_users_visit_is_told_of_the_candidate_that_arrived_first():
    log = make_log([Event(2, "checkout", 3, 0, 5, late=9), Event(2, "checkout", 4, 0, 5, late=1)])
    assert log.is_visit.tolist() == [True, True]
    assert log.candidate[log.user_visit].tolist() == [4]


@settings(max_examples=40)
@given(EVENTS, LEVELS, CUTS)
def test_what_is_known_of_some_users_is_a_part_of_what_is_known(events, level, cut):
    log = make_log(events, level)
    expected = sorted(
        (event.user, event.candidate(level), event.occurred_us)
        for event in known_at(events, cut)
        if event.candidate(level) >= 2
    )
    for users in (None, slice(3, 5), slice(6, 7)):
        user, event = log.known_before(cut, users)
        columns = (user, log.candidate[event], log.histories.occurred_us[event])
        found = list(zip(*(column.tolist() for column in columns), strict=True))
        asked = range(NUM_USERS)[users or slice(None)]
        assert found == [one for one in expected if one[0] in asked]


def test_an_event_takes_five_bytes_and_a_visit_four():
    """So long as four bytes can tell them apart."""
    events = [Event(2, kind, 3, 0, at) for at, kind in enumerate(("view", "view", "checkout"))]
    log = make_log(events)
    assert log.order.nbytes + log.is_visit.nbytes == 3 * 5 and log.user_visit.nbytes == 4
    assert log.candidate is log.histories.advertiser, "the columns are those of the histories"


def test_ranges_and_runs():
    position, number = expand_ranges(np.array([3, 9, 5]), np.array([5, 7, 6]))
    assert position.tolist() == [0, 0, 2] and number.tolist() == [3, 4, 5]
    assert [part.tolist() for part in expand_ranges(np.zeros(0, int), np.zeros(0, int))] == [[], []]
    first, second = np.array([1, 1, 1, 2]), np.array([1, 1, 2, 2])
    assert run_starts(first, second).tolist() == [True, False, True, True]
    assert run_ends(first, second).tolist() == [False, True, True, True]
    assert run_starts(first[:0]).tolist() == run_ends(first[:0]).tolist() == []
