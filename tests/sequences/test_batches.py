"""Packed batches against slices of the events of each row, and what no row may know."""

import math
from dataclasses import replace

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
    in_arrival_order,
    known_at,
    make_histories,
    make_log,
    poison,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from forecart.columns import EVENT_TYPE_CODES
from forecart.sequences.batches import TIME_FEATURES, Batch, BatchBuilder, select_labels
from forecart.sequences.population import read_population
from forecart.sequences.split import LabelContract, label_windows

EVERYONE = [2, 3, 4, 5, 6]
LENGTHS = st.sampled_from([1, 3, 50])
CONTRACT = LabelContract(positives=dict.fromkeys(CONVERSIONS, 1.0), window_days=7)
TOKENS = ("advertiser", "item", "event_type", "log_price", "time", "position")


def build(events: list[Event], users, cuts, *, length: int = 50, level="advertiser", **given) -> Batch:
    histories, log = make_histories(events), make_log(events, level)
    labels = given.pop("labels", None)
    builder = BatchBuilder(histories, log, length, **given)
    population = read_population(log, min(cuts, default=0))
    rows = np.array(users, np.int32), np.array(cuts, np.int64)
    return builder.build(*rows, population=population, labels=labels)


def history_of(events: list[Event], user: int, cut_us: int, length: int) -> list[Event]:
    """The latest events to arrive before the cut, in order of arrival."""
    mine = [event for event in in_arrival_order(known_at(events, cut_us)) if event.user == user]
    return mine[-length:]


def tokens_of(batch: Batch, history: int) -> list[tuple]:
    span = slice(batch.events.offsets[history], batch.events.offsets[history + 1])
    columns = (batch.events.advertiser, batch.events.item, batch.events.event_type, batch.events.log_price)
    return [
        tuple(round(float(value), 4) for value in row)
        for row in zip(*(c[span] for c in columns), strict=True)
    ]


def expected_tokens(events: list[Event]) -> list[tuple]:
    def log_price(event: Event) -> float:
        return 0.0 if math.isnan(event.price) else math.log(1 + event.price)

    rows = [(e.advertiser, e.item, EVENT_TYPE_CODES[e.kind], log_price(e)) for e in events]
    return [tuple(round(float(value), 4) for value in row) for row in rows]


def arrays_of(batch: Batch) -> dict[str, np.ndarray]:
    parts = {"batch": batch, "events": batch.events, "own": batch.own}
    return {
        f"{part}.{name}": value
        for part, owner in parts.items()
        for name, value in vars(owner).items()
        if isinstance(value, np.ndarray)
    }


def assert_same(one: Batch, other: Batch) -> None:
    arrays, others = arrays_of(one), arrays_of(other)
    assert len(arrays) == 16
    for name in arrays:
        assert np.array_equal(arrays[name], others[name]), name


@settings(max_examples=40)
@given(EVENTS, LENGTHS, CUTS, CUTS)
def test_a_history_is_the_latest_arrivals_before_the_cut_in_order_of_time(events, length, cut, other_cut):
    users, cuts = [3, 6, 2, 3], [cut, cut, other_cut, other_cut]
    batch = build(events, users, cuts, length=length)
    assert len(batch) == 4 and batch.history.tolist() == [0, 1, 2, 3]
    for row, (user, cut_us) in enumerate(zip(users, cuts, strict=True)):
        history = history_of(events, user, cut_us, length)
        by_time = sorted(history, key=lambda event: event.occurred)
        assert tokens_of(batch, row) == expected_tokens(by_time)
        span = slice(batch.events.offsets[row], batch.events.offsets[row + 1])
        assert batch.events.position[span].tolist() == list(range(len(history)))[::-1]
        assert batch.last_event[row] == (span.stop - 1 if history else -1)
        for token, event in enumerate(by_time):
            previous = by_time[max(token - 1, 0)]
            times = (cut_us - event.occurred_us, by_time[-1].occurred_us - event.occurred_us)
            expected = [math.log(1 + us / DAY) for us in (*times, event.occurred_us - previous.occurred_us)]
            np.testing.assert_allclose(batch.events.time[span][token, :3], expected, rtol=1e-5, atol=1e-6)


def test_phases_are_of_the_time_of_week_and_of_day():
    batch = build([Event(2, "view", 2, 0, quarter) for quarter in (0, 1, 28, 29)], [2], [30 * DAY])
    named = dict(zip(TIME_FEATURES, batch.events.time.T, strict=True))
    assert np.allclose(named["sin_hour"], [0, 1, 0, 1], atol=1e-6)
    assert np.allclose(named["cos_hour"], [1, 0, 1, 0], atol=1e-6)
    week = 2 * math.pi * np.array([0, 1 / 28, 0, 1 / 28])
    assert np.allclose(named["sin_weekday"], np.sin(week), atol=1e-6)
    assert np.allclose(named["cos_weekday"], np.cos(week), atol=1e-6)


@settings(max_examples=40)
@given(EVENTS, LENGTHS, st.lists(CUTS, min_size=1, max_size=3, unique=True))
def test_causal_rows_of_a_user_read_prefixes_of_one_history(events, length, cuts):
    users = [user for user in EVERYONE for _ in cuts]
    batch = build(events, users, sorted(cuts) * len(EVERYONE), length=length, is_causal=True)
    assert len(batch.events.offsets) == len(EVERYONE) + 1
    for row, (user, cut_us) in enumerate(zip(users, batch.cut_us, strict=True)):
        history = batch.history[row]
        assert EVERYONE[history] == user
        start, end = batch.events.offsets[history : history + 2]
        shared = history_of(events, user, max(cuts), length)
        assert tokens_of(batch, history) == expected_tokens(shared)
        num_known = sum(event.arrived_us < cut_us for event in shared)
        assert batch.last_event[row] == (start + num_known - 1 if num_known else -1)
        assert batch.last_event[row] < end
        assert batch.events.position[start:end].tolist() == list(range(len(shared)))


@settings(max_examples=40)
@given(EVENTS, CUTS, CUTS)
def test_a_causal_event_knows_nothing_of_what_arrived_after_it(events, cut, later_cut):
    cut, later_cut = min(cut, later_cut), max(cut, later_cut) + QUARTER
    short = build(events, EVERYONE, [cut] * 5, is_causal=True)
    users = [user for user in EVERYONE for _ in range(2)]
    both = build(events, users, [cut, later_cut] * 5, is_causal=True)
    for history in range(5):
        start, end = short.events.offsets[history : history + 2]
        at = both.events.offsets[history]
        for name in TOKENS:
            early = getattr(short.events, name)[start:end]
            assert np.array_equal(early, getattr(both.events, name)[at : at + end - start]), name


@settings(max_examples=40)
@given(EVENTS, LEVELS, CUTS, LENGTHS, st.booleans())
def test_nothing_that_arrives_at_or_after_the_cut_changes_a_batch(events, level, cut, length, is_causal):
    given = {"level": level, "length": length, "is_causal": is_causal}
    clean = build(known_at(events, cut), EVERYONE, [cut] * 5, **given)
    assert_same(clean, build(events + poison(cut), EVERYONE, [cut] * 5, **given))
    assert_same(clean, build(known_at(events, cut), EVERYONE, [cut] * 5, **given))


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("users", [[], [6], [6, 0]])
def test_users_without_events_have_empty_histories(users, is_causal):
    batch = build([Event(2, "checkout", 3, 3, 1)], users, [DAY * 9] * len(users), is_causal=is_causal)
    assert batch.last_event.tolist() == [-1] * len(users)
    assert batch.events.time.shape == (0, len(TIME_FEATURES)) and len(batch.events.item) == 0
    assert batch.events.offsets.tolist() == [0] * (len(users) + 1)
    assert len(batch.own.row) == 0 and batch.positives is None


@pytest.mark.parametrize("level", ["advertiser", "item"])
@pytest.mark.parametrize("known_before", [None, 100 * QUARTER])
@settings(max_examples=40)
@given(events=EVENTS)
def test_positives_are_the_labels_and_the_future_is_the_users_other_later_conversions(
    events, level, known_before
):
    histories = make_histories(events)
    labels = label_windows(
        histories,
        cuts_us=[20 * QUARTER, 50 * QUARTER],
        contract=CONTRACT,
        level=level,
        known_before_us=known_before,
    )
    labels = select_labels(labels, np.lexsort((labels.cut_us, labels.user_index)))
    batch = build(
        events, labels.user_index, labels.cut_us, level=level, labels=labels, known_before_us=known_before
    )
    positives = batch.positives
    assert np.array_equal(positives.candidate, labels.candidate)
    assert np.array_equal(positives.weight, labels.weight)
    assert np.array_equal(positives.row, labels.rows())
    own = set(zip(positives.row.tolist(), positives.candidate.tolist(), strict=True))
    future = {
        (row, event.candidate(level))
        for row, (user, cut) in enumerate(zip(labels.user_index, labels.cut_us, strict=True))
        for event in events
        if (event.user, event.kind in CONVERSIONS) == (user, True) and event.candidate(level) >= 2
        if event.occurred_us >= cut and (known_before is None or event.arrived_us < known_before)
    }
    found = list(zip(positives.future_row.tolist(), positives.future_candidate.tolist(), strict=True))
    assert found == sorted(future - own)


@pytest.mark.parametrize(("known_before", "expected"), [(None, [3, 4, 5]), (24 * QUARTER, [3, 4])])
def test_the_future_begins_at_the_cut_and_ends_with_what_was_known(known_before, expected):
    at_cut, later, late = (
        Event(2, "checkout", c, 0, q, late) for c, q, late in ((3, 20, 0), (4, 23, 0), (5, 23, 1))
    )
    nothing = select_labels(
        label_windows(make_histories([]), cuts_us=[0], contract=CONTRACT, level="item"), np.zeros(0, np.int64)
    )
    labels = replace(
        nothing,
        user_index=np.array([2], np.int32),
        cut_us=np.array([20 * QUARTER]),
        offsets=np.zeros(2, np.int64),
    )
    events = [Event(2, "checkout", 6, 0, 19), at_cut, later, late]
    batch = build(events, [2], [20 * QUARTER], labels=labels, known_before_us=known_before)
    assert batch.positives.future_candidate.tolist() == expected
    assert batch.positives.future_row.tolist() == [0] * len(expected)


def test_labels_of_other_rows_are_refused():
    events = [Event(user, "checkout", 3, 3, quarter) for user in (2, 3) for quarter in (0, 24)]
    labels = label_windows(
        make_histories(events), cuts_us=[20 * QUARTER], contract=CONTRACT, level="advertiser"
    )
    assert labels.user_index.tolist() == [2, 3]
    with pytest.raises(ValueError, match="labels are of the rows of the batch"):
        build(events, [3, 2], [20 * QUARTER] * 2, labels=labels)


@settings(max_examples=40)
@given(EVENTS, st.data())
def test_selected_labels_are_those_rows_in_the_order_given(events, data):
    labels = label_windows(
        make_histories(events),
        cuts_us=[20 * QUARTER, 50 * QUARTER],
        contract=CONTRACT,
        level="item",
        with_prior_only=False,
    )
    rows = data.draw(st.lists(st.integers(0, max(len(labels) - 1, 0)), max_size=6 if len(labels) else 0))
    found = select_labels(labels, np.array(rows, np.int64))
    assert found.user_index.tolist() == [labels.user_index[row] for row in rows]
    assert found.cut_us.tolist() == [labels.cut_us[row] for row in rows]
    for name in ("candidate", "weight", "is_repeat"):
        whole, part = getattr(labels, name), getattr(found, name)
        for at, row in enumerate(rows):
            expected = whole[labels.offsets[row] : labels.offsets[row + 1]]
            assert np.array_equal(part[found.offsets[at] : found.offsets[at + 1]], expected)


def test_what_falls_into_the_gap_is_no_part_of_the_window():
    events = [Event(2, "checkout", candidate, 0, at) for candidate, at in {2: 0, 3: 41, 4: 44, 5: 48}.items()]
    cut = 40 * QUARTER
    contract = LabelContract(positives={"checkout": 1.0}, gap_days=1, window_days=7, max_positives=1)
    labels = label_windows(make_histories(events), cuts_us=[cut], contract=contract, level="advertiser")
    batch = build(events, [2], [cut], labels=labels, gap_us=DAY, window_us=8 * DAY)
    assert batch.positives.candidate.tolist() == [4]
    assert batch.positives.future_candidate.tolist() == [3, 5]
    assert batch.positives.is_in_window.tolist() == [False, True]


def test_what_a_cap_left_out_of_the_window_is_told_from_the_later_future():
    quarters = {2: 0, 3: 44, 4: 48, 5: 120}
    events = [Event(2, "checkout", candidate, 0, quarter) for candidate, quarter in quarters.items()]
    cut = 40 * QUARTER
    contract = LabelContract(positives={"checkout": 1.0}, window_days=7, max_positives=1)
    labels = label_windows(make_histories(events), cuts_us=[cut], contract=contract, level="advertiser")
    batch = build(events, [2], [cut], labels=labels, window_us=7 * DAY)
    assert batch.positives.candidate.tolist() == [3]
    assert batch.positives.future_candidate.tolist() == [4, 5]
    assert batch.positives.is_in_window.tolist() == [True, False]


@settings(max_examples=20)
@given(events=EVENTS)
def test_what_nothing_reads_is_left_out_and_the_rest_is_the_same(events):
    labels = label_windows(make_histories(events), cuts_us=[50 * QUARTER], contract=CONTRACT, level="item")
    rows = labels.user_index, labels.cut_us
    whole = build(events, *rows, labels=labels)
    lean = build(events, *rows, labels=labels, own_content="nothing", reads_future=False)
    assert len(lean.own.row) == len(lean.own.feature) == 0
    assert len(lean.positives.future_row) == len(lean.positives.is_in_window) == 0
    for name in ("item", "time", "offsets"):
        assert np.array_equal(getattr(lean.events, name), getattr(whole.events, name))
    for name in ("row", "candidate", "weight"):
        assert np.array_equal(getattr(lean.positives, name), getattr(whole.positives, name))


@settings(max_examples=20)
@given(events=EVENTS)
def test_pairs_without_features_are_the_same_pairs(events):
    rows = EVERYONE, [50 * QUARTER] * len(EVERYONE)
    whole, lean = build(events, *rows), build(events, *rows, own_content="pairs")
    assert lean.own.feature.shape == (len(whole.own.row), 0)
    for name in ("row", "candidate", "has_converted"):
        assert np.array_equal(getattr(lean.own, name), getattr(whole.own, name))
