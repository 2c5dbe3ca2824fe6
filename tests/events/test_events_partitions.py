"""The user hash against published vectors, and dedup against what the test planted."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecart.events.partitions import (
    assign_partitions,
    drop_repeated_ids,
    drop_second_deliveries,
    hash_texts,
)
from forecart.events.schema import EVENT_SCHEMA

START = datetime(2024, 5, 1, tzinfo=UTC)


def test_hash_is_fnv_1a_by_its_published_vectors() -> None:
    texts = pl.Series(["", "a", "b", "foobar", "chongo was here!\n"])
    expected = [
        0xCBF29CE484222325,
        0xAF63DC4C8601EC8C,
        0xAF63DF4C8601F1A5,
        0x85944171F73967E8,
        0x46810940EFF5F915,
    ]
    assert [int(value) for value in hash_texts(texts)] == expected
    assert hash_texts(texts[2:4]).tolist() == expected[2:4]


@given(st.lists(st.text(max_size=20), max_size=30))
@settings(max_examples=40, deadline=None)
def test_hash_equals_the_naive_loop(texts: list[str]) -> None:
    expected = []
    for text in texts:
        value = 0xCBF29CE484222325
        for byte in text.encode():
            value = ((value ^ byte) * 0x100000001B3) % 2**64
        expected.append(value)
    assert hash_texts(pl.Series(texts, dtype=pl.String)).tolist() == expected


def test_partitions_are_even_and_frozen() -> None:
    partitions = assign_partitions(pl.Series([str(n) for n in range(8000)]), 8)
    assert np.bincount(partitions).min() > 900
    # A store written today must be found by the code of tomorrow: these values may never change.
    assert assign_partitions(pl.Series(["1", "2", "user-17", "käufer"]), 64).tolist() == [22, 14, 47, 17]


def _events(rows: list[tuple[str, float, float, float]]) -> pl.DataFrame:
    """Rows of (event id, hours until it occurred, hours until it arrived, value)."""
    full = [
        {
            "event_id": event_id,
            "user_id": "u",
            "event_type": "view",
            "advertiser_id": "a",
            "occurred_at": START + timedelta(hours=occurred),
            "arrived_at": START + timedelta(hours=arrived),
            "ordinal": 0,
            "value": value,
        }
        for event_id, occurred, arrived, value in rows
    ]
    return pl.DataFrame(full, schema=EVENT_SCHEMA)


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([("pixel", 0, 0, 1.0), ("server", 0.01, 5, 1.0)], ["pixel"]),
        ([("pixel", 0, 0, 1.0), ("server", 47.9, 48, 1.0)], ["pixel"]),
        ([("pixel", 0, 0, 1.0), ("again", 48.1, 48.1, 1.0)], ["pixel", "again"]),
        ([("one", 0, 0, 1.0), ("other", 0, 0, 2.0)], ["one", "other"]),
        ([("a1", 0, 0, 1.0), ("a2", 0.1, 0.1, 1.0), ("b1", 9, 9, 1.0), ("b2", 9.1, 9.1, 1.0)], ["a1", "b1"]),
    ],
)
def test_a_pair_within_the_window_is_one_event(
    rows: list[tuple[str, float, float, float]], kept: list[str]
) -> None:
    for order in (rows, rows[::-1]):
        assert drop_second_deliveries(_events(order), window_h=48)["event_id"].to_list() == kept


def test_the_pair_arrives_with_its_first_delivery() -> None:
    pair = _events([("server", 0, 7, 1.0), ("pixel", 0.01, 0.02, 1.0)])
    kept = drop_second_deliveries(pair, window_h=48)
    assert kept["event_id"].to_list() == ["server"]
    assert kept["arrived_at"][0] == START + timedelta(hours=0.02)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(0, 3)), max_size=12),
    st.randoms(),
)
@settings(max_examples=30, deadline=None)
def test_dedup_keeps_the_first_arrival_of_each_id(rows: list[tuple[str, int, int]], draw: object) -> None:
    events = [(event_id, 0.0, float(arrived), float(value)) for event_id, arrived, value in rows]
    expected = {event_id: min(e[2:] for e in events if e[0] == event_id) for event_id, *_ in events}
    draw.shuffle(events)  # type: ignore[attr-defined]
    kept = drop_repeated_ids(_events(events))
    found = {
        row["event_id"]: ((row["arrived_at"] - START).seconds / 3600, row["value"])
        for row in kept.iter_rows(named=True)
    }
    assert found == expected
