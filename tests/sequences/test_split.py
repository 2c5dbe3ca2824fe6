"""Label windows against a naive reading of the label contract, and what late arrivals may not change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from forecart.columns import EVENT_TYPE_CODES
from forecart.errors import ConfigError
from forecart.sequences.build import Sequences, build_sequences
from forecart.sequences.histories import Histories
from forecart.sequences.split import LabelContract, label_windows, training_cuts

DAY = 86_400_000_000
EPOCH = 1_700_006_400_000_000
TYPES = ["view", "add_to_cart", "checkout", "signup"]
CONTRACT = LabelContract(positives={"checkout": 1.0, "add_to_cart": 0.5, "signup": 0.25}, window_days=7)

# user, type, advertiser, item, occurred and lateness in quarters of a day: small numbers make many ties.
EVENTS = st.lists(
    st.tuples(
        st.integers(2, 4),
        st.sampled_from(TYPES),
        st.integers(2, 5),
        st.sampled_from([0, 2, 3, 4]),
        st.integers(0, 60),
        st.sampled_from([0, 0, 1, 9]),
    ),
    max_size=60,
)


def make_histories(events: list[tuple]) -> Histories:
    rows = sorted(events, key=lambda event: (event[0], event[4] + event[5], event[4]))
    user, kind, advertiser, item, occurred, late = (
        map(np.array, zip(*rows, strict=True)) if rows else [[]] * 6
    )
    length = np.bincount(np.array(user, np.int64), minlength=6)
    occurred_us = np.array(occurred, np.int64) * DAY // 4
    return Histories(
        start=np.cumsum(length) - length,
        length=length,
        event_type=np.array([EVENT_TYPE_CODES[name] for name in kind], np.uint8),
        advertiser=np.array(advertiser, np.int32),
        item=np.array(item, np.int32),
        occurred_us=occurred_us,
        arrived_us=occurred_us + np.array(late, np.int64) * DAY // 4,
        price=np.full(len(rows), np.nan, np.float32),
    )


def read_labels(labels) -> dict:
    """Labels as {(cut, user): {candidate: (weight, is_repeat)}}, in their own order."""
    rows = {}
    for x in range(len(labels)):
        span = slice(labels.offsets[x], labels.offsets[x + 1])
        found = zip(labels.candidate[span], labels.weight[span], labels.is_repeat[span], strict=True)
        rows[int(labels.cut_us[x]), int(labels.user_index[x])] = {
            int(c): (float(w), bool(r)) for c, w, r in found
        }
    return rows


def naive_labels(events, cuts, contract, level, known_before, with_prior_only) -> dict:
    """The label contract read aloud, one event at a time."""
    conversions = [
        (
            user,
            kind,
            advertiser if level == "advertiser" else item,
            occurred * DAY // 4,
            (occurred + late) * DAY // 4,
        )
        for user, kind, advertiser, item, occurred, late in events
        if kind in contract.positives
    ]
    labels = {}
    for cut in cuts:
        begin = cut + contract.gap_days * DAY
        for user in range(2, 6):
            prior = [c for c in conversions if c[0] == user and c[4] < cut]
            types: dict[int, set] = {}
            first: dict[int, int] = {}
            for owner, kind, candidate, occurred, arrived in conversions:
                is_inside = begin <= occurred < begin + contract.window_days * DAY
                if (
                    owner == user
                    and candidate
                    and is_inside
                    and (known_before is None or arrived < known_before)
                ):
                    types.setdefault(candidate, set()).add(kind)
                    first[candidate] = min(occurred, first.get(candidate, occurred))
            weights = {c: sum(contract.positives[kind] for kind in kinds) for c, kinds in types.items()}
            best = sorted(weights, key=lambda c: (-weights[c], first[c], c))[: contract.max_positives]
            if best and (prior or not with_prior_only):
                repeats = {c[2] for c in prior}
                labels[cut, user] = {c: (weights[c], c in repeats) for c in sorted(best)}
    return labels


@settings(max_examples=200, deadline=None)
@given(
    events=EVENTS,
    cuts=st.lists(st.integers(0, 60), unique=True, max_size=4),
    gap=st.sampled_from([0, 1]),
    cap=st.sampled_from([None, 1, 2]),
    level=st.sampled_from(["advertiser", "item"]),
    known_before=st.sampled_from([None, 30, 45]),
    with_prior_only=st.booleans(),
)
def test_labels_are_what_the_contract_says(events, cuts, gap, cap, level, known_before, with_prior_only):
    contract = CONTRACT.model_copy(update={"gap_days": gap, "max_positives": cap, "window_days": 3})
    cuts_us = [cut * DAY // 4 for cut in cuts]
    known_before_us = None if known_before is None else known_before * DAY // 4
    labels = label_windows(
        make_histories(events),
        cuts_us=cuts_us,
        contract=contract,
        level=level,
        known_before_us=known_before_us,
        with_prior_only=with_prior_only,
    )
    expected = naive_labels(events, cuts_us, contract, level, known_before_us, with_prior_only)
    assert read_labels(labels) == expected
    assert list(read_labels(labels)) == list(expected)
    assert [list(row) for row in read_labels(labels).values()] == [list(row) for row in expected.values()]
    assert labels.rows().tolist() == [x for x, row in enumerate(expected.values()) for _ in row]


def test_two_of_one_type_weigh_as_one():
    events = [(2, "checkout", 2, 0, 0, 0), (2, "checkout", 3, 0, 4, 0), (2, "checkout", 3, 0, 5, 0)]
    events.append((2, "add_to_cart", 3, 0, 6, 0))
    labels = label_windows(make_histories(events), cuts_us=DAY, contract=CONTRACT, level="advertiser")
    assert read_labels(labels) == {(DAY, 2): {3: (1.5, False)}}


def test_a_prior_conversion_without_an_item_counts_for_items_too():
    events = [(2, "signup", 2, 0, 0, 0), (2, "checkout", 3, 4, 4, 0)]
    labels = label_windows(make_histories(events), cuts_us=DAY, contract=CONTRACT, level="item")
    assert read_labels(labels) == {(DAY, 2): {4: (1.0, False)}}


def test_a_cut_named_twice_is_refused():
    with pytest.raises(ValueError, match="distinct"):
        label_windows(make_histories([]), cuts_us=[1, 1], contract=CONTRACT, level="item")


@settings(max_examples=100, deadline=None)
@given(
    as_of=st.integers(EPOCH, EPOCH + 999 * DAY),
    window=st.integers(1, 40),
    num=st.integers(1, 60),
    stride=st.integers(1, 30),
    gap=st.integers(0, 5),
)
def test_every_training_window_is_over_at_the_cut_off(as_of, window, num, stride, gap):
    cuts = training_cuts(as_of, window_days=window, num_cuts=num, stride_days=stride, gap_days=gap)
    assert len(cuts) == num
    assert cuts.dtype == np.int64
    assert all(np.diff(cuts) == stride * DAY)
    assert max(cuts) + (gap + window) * DAY == as_of


@pytest.mark.parametrize(
    "broken", [{"window_days": 0}, {"num_cuts": 0}, {"stride_days": -1}, {"gap_days": -1}]
)
def test_training_cuts_out_of_range_are_refused(broken):
    with pytest.raises(ConfigError, match="at least"):
        training_cuts(EPOCH, **({"window_days": 7, "num_cuts": 2, "stride_days": 7} | broken))


@pytest.mark.parametrize(
    "broken",
    [
        {"positives": {}},
        {"positives": {"purchase": 1.0}},
        {"positives": {"checkout": 0.0}},
        {"positives": {"checkout": float("nan")}},
        {"positives": {"checkout": float("inf")}},
        {"window_days": 0},
        {"gap_days": -1},
        {"max_positives": 0},
        {"cuts_per_user": 0},
        {"windowdays": 7},
    ],
)
def test_a_contract_is_closed_and_validated(broken):
    with pytest.raises(ValidationError):
        LabelContract.model_validate({"positives": {"checkout": 1.0}} | broken)


def test_a_contract_knows_its_codes_and_can_drop_its_cap():
    assert CONTRACT.conversion_codes == {5, 6, 7}
    assert CONTRACT.max_positives == 32
    assert CONTRACT.without_cap().max_positives is None


def by_id(sequences: Sequences, labels, level: str) -> dict:
    vocabulary = sequences.advertisers if level == "advertiser" else sequences.items
    return {
        (cut, sequences.users.ids([user])[0]): {vocabulary.ids([c])[0]: value for c, value in row.items()}
        for (cut, user), row in read_labels(labels).items()
    }


@pytest.mark.parametrize("level", ["advertiser", "item"])
def test_what_arrives_after_the_cut_off_changes_no_training_label(
    write_events, random_events, tmp_path, level
):
    as_of = EPOCH + 20 * DAY
    events = random_events(21, 400)
    clean = [event for event in events if event["arrived_at"] < as_of]
    late = [
        e | {"event_id": f"late-{e['event_id']}", "arrived_at": as_of + DAY}
        for e in clean
        if "7" in e["event_id"]
    ]
    strangers = [
        e | {"arrived_at": as_of} for e in random_events(22, 80, prefix="new-") if e["occurred_at"] < as_of
    ]
    cuts = training_cuts(as_of, window_days=7, num_cuts=4, stride_days=2)
    found = []
    for name, log in (("clean", clean), ("poisoned", events + late + strangers)):
        folder = write_events(log, name=name)
        build_sequences(folder, tmp_path / f"{name}-out", read_until_us=EPOCH + 90 * DAY)
        built = Sequences.load(tmp_path / f"{name}-out")
        labels = label_windows(
            built.histories, cuts_us=cuts, contract=CONTRACT, level=level, known_before_us=as_of
        )
        found.append(by_id(built, labels, level))
    assert found[0] == found[1]
    assert len(found[0]) > 10
