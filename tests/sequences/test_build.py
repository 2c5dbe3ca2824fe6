"""Sequences against a plain reading of the log, and the leak tests: what comes later changes nothing."""

import numpy as np
import pytest

from forecart import artifacts
from forecart.columns import EVENT_TYPE_CODES
from forecart.errors import ArtifactError, DataError
from forecart.sequences.build import Sequences, build_sequences, sequences_key

DAY = 86_400_000_000
EPOCH = 1_700_006_400_000_000
CUT = EPOCH + 20 * DAY
CATALOGUE = [
    {"item_id": "i30", "advertiser_id": "a3", "category": "home > bath > towels", "price": 9.0},
    {"item_id": "i4", "advertiser_id": "shop", "category": "home", "price": None},
    {"item_id": "unsold", "advertiser_id": "a1", "category": None, "price": -1.0},
    {"item_id": "blank", "advertiser_id": "a1", "category": "", "price": 2.0},
]


def arrival_key(event: dict) -> tuple:
    return (event["arrived_at"], event["occurred_at"], event["ordinal"], event["event_id"])


def build(folder, tmp_path, name="sequences", read_until_us=CUT, **more) -> Sequences:
    build_sequences(folder, tmp_path / name, read_until_us=read_until_us, **more)
    return Sequences.load(tmp_path / name)


def test_histories_are_the_events_that_arrived_in_order_of_arrival(write_events, random_events, tmp_path):
    events = random_events(1, 300)
    built = build(write_events(events, CATALOGUE), tmp_path)
    read = sorted((event for event in events if event["arrived_at"] < CUT), key=arrival_key)
    assert built.manifest["num_events"] == len(read) < len(events)
    for user in {event["user_id"] for event in read}:
        index = int(built.users.index([user])[0])
        rows = slice(
            built.histories.start[index], built.histories.start[index] + built.histories.length[index]
        )
        mine = [event for event in read if event["user_id"] == user]
        history = built.histories
        assert history.arrived_us[rows].tolist() == [event["arrived_at"] for event in mine]
        assert history.occurred_us[rows].tolist() == [event["occurred_at"] for event in mine]
        assert history.event_type[rows].tolist() == [EVENT_TYPE_CODES[event["event_type"]] for event in mine]
        assert built.advertisers.ids(history.advertiser[rows]) == [event["advertiser_id"] for event in mine]
        assert [built.items.ids([i])[0] if i else None for i in history.item[rows]] == [
            event["item_id"] for event in mine
        ]
        expected_price = np.array([event["value"] / event["quantity"] for event in mine], np.float32)
        np.testing.assert_array_equal(history.price[rows], expected_price)


def first_seen(events: list[dict], name: str) -> list[str]:
    first: dict[str, int] = {}
    for event in events:
        if event[name] is not None:
            first[event[name]] = min(event["arrived_at"], first.get(event[name], event["arrived_at"]))
    return sorted(first, key=lambda id_: (first[id_], id_))


def test_indices_are_catalogue_first_then_first_arrival(write_events, random_events, tmp_path):
    events = random_events(2, 200)
    built = build(write_events(events, CATALOGUE), tmp_path)
    read = [event for event in events if event["arrived_at"] < CUT]
    in_catalogue = {
        "user_id": [],
        "advertiser_id": ["a1", "a3", "shop"],
        "item_id": ["blank", "i30", "i4", "unsold"],
    }
    for name, vocabulary in zip(in_catalogue, (built.users, built.advertisers, built.items), strict=True):
        expected = list(dict.fromkeys(in_catalogue[name] + first_seen(read, name)))
        assert vocabulary.ids(range(2, len(vocabulary))) == expected


def test_an_advertiser_may_come_from_the_first_event_and_a_price_only_from_the_catalogue(
    write_events, random_events, tmp_path
):
    events = random_events(3, 300)
    built = build(write_events(events, CATALOGUE), tmp_path)
    first: dict[str, dict] = {}
    for event in sorted((event for event in events if event["arrived_at"] < CUT), key=arrival_key):
        first.setdefault(event["item_id"], event)
    listed = {row["item_id"]: row for row in CATALOGUE}
    for index in range(2, len(built.items)):
        item = built.items.ids([index])[0]
        event, row = first.get(item), listed.get(item, {})
        advertiser = row.get("advertiser_id") or event["advertiser_id"]
        assert built.advertisers.ids([built.item_advertiser[index]]) == [advertiser]
        price = {"i30": 9.0, "blank": 2.0}.get(item, np.nan)
        np.testing.assert_array_equal(built.item_price[index], np.float32(price))
    assert built.item_advertiser[:2].tolist() == [0, 1]


def test_categories_are_path_prefixes(write_events, random_events, tmp_path):
    built = build(write_events(random_events(4, 50), CATALOGUE), tmp_path)
    names = ["home", "home > bath", "home > bath > towels"]
    assert built.categories.ids(range(2, 5)) == names
    wanted = built.items.index(["i30", "i4", "unsold", "blank"])
    assert built.item_category[wanted].tolist() == [[2, 4], [2, 2], [1, 1], [1, 1]]
    assert built.item_category[:2].tolist() == [[0, 0], [1, 1]]


def poison(events: list[dict], random_events) -> list[dict]:
    """Adds what arrived later: by known ids and new ones, also of events that occurred before the cut."""
    late = [
        event | {"event_id": f"late{n}", "arrived_at": CUT + n % 3 * DAY}
        for n, event in enumerate(events)
        if event["occurred_at"] <= CUT and n % 2
    ]
    strangers = [event | {"arrived_at": CUT + DAY} for event in random_events(77, 60, prefix="a-new-")]
    strangers = [event for event in strangers if event["occurred_at"] <= CUT + DAY]
    return events + late + strangers


def test_what_arrives_later_changes_no_byte(write_events, random_events, tmp_path):
    events = [event for event in random_events(5, 300) if event["arrived_at"] < CUT]
    clean = write_events(events, CATALOGUE)
    poisoned = write_events(poison(events, random_events), CATALOGUE, name="poisoned")
    manifests = [
        build_sequences(folder, tmp_path / name, read_until_us=CUT)
        for folder, name in ((clean, "one"), (poisoned, "two"))
    ]
    assert artifacts.hash_folder(tmp_path / "one") == artifacts.hash_folder(tmp_path / "two")
    assert manifests[0] == manifests[1]


def test_reading_on_changes_no_index_and_no_prefix(write_events, random_events, tmp_path):
    events = poison(random_events(6, 300), random_events)
    folder = write_events(events, CATALOGUE)
    early = build(folder, tmp_path, "early")
    late = build(folder, tmp_path, "late", read_until_us=EPOCH + 90 * DAY)
    for name in ("users", "advertisers", "items", "categories"):
        before, after = getattr(early, name), getattr(late, name)
        assert before.ids(range(2, len(before))) == after.ids(range(2, len(before)))
        assert len(after) > len(before) or name == "categories"
    np.testing.assert_array_equal(early.item_advertiser, late.item_advertiser[: len(early.items)])
    np.testing.assert_array_equal(early.item_price, late.item_price[: len(early.items)])
    users = np.arange(len(early.users))
    np.testing.assert_array_equal(
        late.histories.end_at(users, CUT) - late.histories.start[users], early.histories.length
    )
    rows = np.concatenate([np.arange(late.histories.start[u], late.histories.end_at(u, CUT)) for u in users])
    for name in ("event_type", "advertiser", "item", "occurred_us", "arrived_us", "price"):
        np.testing.assert_array_equal(getattr(late.histories, name)[rows], getattr(early.histories, name))


def test_order_and_partitions_of_the_log_do_not_matter(write_events, random_events, tmp_path):
    events = random_events(7, 200)
    one = write_events(events, CATALOGUE, num_parts=1)
    four = write_events(events[::-1], CATALOGUE[::-1], name="four", num_parts=4)
    build(one, tmp_path, "one")
    build(four, tmp_path, "two")
    assert artifacts.hash_folder(tmp_path / "one") == artifacts.hash_folder(tmp_path / "two")


def test_a_continued_build_keeps_every_index(write_events, random_events, tmp_path):
    events = random_events(8, 300)
    first = build(write_events(events, CATALOGUE[:2]), tmp_path, "first")
    grown = [{"item_id": "aaa", "advertiser_id": "aaa", "category": "garden", "price": 1.0}, *CATALOGUE[1:]]
    recent = [event for event in events if event["occurred_at"] > EPOCH + 10 * DAY]
    log = write_events(recent, grown, name="grown")
    second = build(log, tmp_path, "second", read_until_us=EPOCH + 90 * DAY, previous=tmp_path / "first")
    for name in ("users", "advertisers", "items", "categories"):
        before, after = getattr(first, name), getattr(second, name)
        assert after.ids(range(2, len(before))) == before.ids(range(2, len(before)))
        assert after.generation == before.generation + (len(after) > len(before))
    gone = first.items.index(["i30"])[0]
    np.testing.assert_array_equal(second.item_category[gone], first.item_category[gone])
    assert second.item_price[gone] == 9.0
    new = second.items.index(["aaa"])[0]
    assert new >= len(first.items)
    assert second.advertisers.ids([second.item_advertiser[new]]) == ["aaa"]


def test_a_key_changes_with_the_inputs_and_the_format(write_events, random_events, tmp_path, monkeypatch):
    folder = write_events(random_events(9, 30))
    key = sequences_key(folder, read_until_us=CUT)
    build_sequences(folder, tmp_path / "out", read_until_us=CUT)
    assert artifacts.is_stage_complete(tmp_path / "out", key)
    assert sequences_key(folder, read_until_us=CUT + 1) != key
    assert sequences_key(folder, read_until_us=CUT, previous=tmp_path / "out") != key
    monkeypatch.setattr("forecart.sequences.build._FORMAT", 0)
    assert sequences_key(folder, read_until_us=CUT) != key
    with pytest.raises(ArtifactError, match="format 0"):
        build_sequences(folder, tmp_path / "next", read_until_us=CUT, previous=tmp_path / "out")


def test_a_failed_build_is_not_complete(write_events, random_events, tmp_path):
    folder, out = write_events(random_events(10, 30)), tmp_path / "out"
    build_sequences(folder, out, read_until_us=CUT)
    with pytest.raises(DataError, match="later cut"):
        build_sequences(folder, out, read_until_us=EPOCH)
    assert not (out / artifacts.MANIFEST).exists()
    for path in folder.glob("part-*"):
        path.unlink()
    with pytest.raises(ArtifactError, match="partitions"):
        build_sequences(folder, out, read_until_us=CUT)
    (folder / artifacts.MANIFEST).unlink()
    with pytest.raises(ArtifactError):
        build_sequences(folder, out, read_until_us=CUT)


def test_a_user_in_two_partitions_is_refused(write_events, random_events, tmp_path):
    folder = write_events(random_events(11, 30), num_parts=1)
    (folder / "part-00001.parquet").write_bytes((folder / "part-00000.parquet").read_bytes())
    with pytest.raises(ArtifactError, match="one partition"):
        build_sequences(folder, tmp_path / "out", read_until_us=CUT)
