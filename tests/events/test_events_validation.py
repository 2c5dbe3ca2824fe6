"""Every way to write a time, and a value of every wrong kind."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecart.events.schema import EventsConfig, RowRules, SourceConfig
from forecart.events.validation import validate_events

GOOD = {
    "event_id": "e",
    "user_id": "u",
    "event_type": "view",
    "advertiser_id": "a",
    "occurred_at": "2024-01-01",
}
NOON = datetime(2024, 2, 29, 12, 30, 15, 250_000, tzinfo=UTC)


def _judge(row: dict[str, Any], rules: RowRules | None = None) -> tuple[dict[str, Any] | None, str | None]:
    good, bad = validate_events(pl.DataFrame([GOOD | row]), rules or RowRules())
    return (good.row(0, named=True), None) if good.height else (None, bad["reason"][0])


@pytest.mark.parametrize(
    ("value", "rules"),
    [
        ("2024-02-29T12:30:15.25Z", {}),
        ("2024-02-29 12:30:15.250 UTC", {}),
        ("2024-02-29 12:30:15.250000", {}),
        ("2024-02-29T14:30:15.250+02:00", {}),
        ("2024-02-29T09:00:15.25-0330", {}),
        (" 1709209815.25 ", {}),
        (1709209815.25, {}),
        (1709209815250, {"time_unit": "ms"}),
        ("1709209815250", {"time_unit": "ms"}),
        (1709209815250000, {"time_unit": "us"}),
        (1709209815250000000, {"time_unit": "ns"}),
        ("29/02/2024 12:30:15.25", {"time_format": "%d/%m/%Y %H:%M:%S%.f"}),
        (NOON, {}),
        (NOON.replace(tzinfo=None), {}),
        (NOON.astimezone(timezone(timedelta(hours=-5))), {"time_unit": "iso"}),
    ],
)
def test_times_are_read(value: Any, rules: dict[str, Any]) -> None:
    row, reason = _judge({"occurred_at": value}, RowRules(**rules))
    assert reason is None and row is not None
    assert row["occurred_at"] == row["arrived_at"] == NOON


@pytest.mark.parametrize(
    ("value", "expected"),
    [("2024-02-29", 0), (date(2024, 2, 29), 0), ("2024-02-29 07:05", 425), ("2024-02-29T07:05Z", 425)],
)
def test_coarse_times_are_read(value: Any, expected: int) -> None:
    row, _ = _judge({"occurred_at": value})
    assert row is not None
    assert row["occurred_at"] == datetime(2024, 2, 29, tzinfo=UTC) + timedelta(minutes=expected)


@given(st.datetimes(datetime(1981, 1, 1), datetime(2099, 1, 1)), st.integers(-14 * 60, 14 * 60))
@settings(max_examples=30, deadline=None)
def test_iso_times_equal_the_standard_library(naive: datetime, minutes: int) -> None:
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    row, _ = _judge({"occurred_at": moment.isoformat()})
    assert row is not None and row["occurred_at"] == moment


@pytest.mark.parametrize(
    ("value", "rules", "reason"),
    [
        ("2024-02-30", {}, "bad_timestamp"),
        ("29/02/2024", {}, "bad_timestamp"),
        (True, {}, "bad_timestamp"),
        ("1709209815", {"time_unit": "iso"}, "bad_timestamp"),
        ("1709209815250", {"time_unit": "iso"}, "millisecond_epoch"),
        ("1709209815250", {}, "millisecond_epoch"),
        (1709209815250, {"time_unit": "s"}, "millisecond_epoch"),
        (1709209815250000, {}, "timestamp_out_of_range"),
        (1709209815, {"time_unit": "ms"}, "timestamp_out_of_range"),
        ("9" * 25, {}, "timestamp_out_of_range"),
        ("1969-12-31", {}, "timestamp_out_of_range"),
        ("", {}, "missing_timestamp"),
        (float("nan"), {}, "missing_timestamp"),
    ],
)
def test_times_that_cannot_be_meant_are_rejected(value: Any, rules: dict[str, Any], reason: str) -> None:
    assert _judge({"occurred_at": value}, RowRules(**rules)) == (None, reason)
    if reason != "missing_timestamp":
        assert _judge({"arrived_at": value}, RowRules(**rules))[1] in (reason, "bad_timestamp")


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("user_id", "null", "missing_user_id"),
        ("user_id", 1.5, "wrong_type"),
        ("user_id", b"bytes", "wrong_type"),
        ("user_id", float("nan"), "missing_user_id"),
        ("event_id", "undefined", "missing_event_id"),
        ("item_id", ["x"], "wrong_type"),
        ("currency", "E" * 600, "field_too_long"),
        ("ordinal", 1.5, "wrong_type"),
        ("ordinal", "first", "wrong_type"),
        ("quantity", float("inf"), "not_finite_value"),
        ("value", True, "wrong_type"),
        ("event_type", 7, "unknown_event_type"),
    ],
)
def test_wrong_values_have_a_name(column: str, value: Any, reason: str) -> None:
    assert _judge({column: value}) == (None, reason)


def test_whole_floats_are_ids_and_blank_fields_are_missing() -> None:
    row, _ = _judge({"user_id": 123.0, "item_id": " ", "value": "", "quantity": " 2 ", "ordinal": 4.0})
    assert row is not None
    assert (row["user_id"], row["item_id"], row["value"], row["quantity"], row["ordinal"]) == (
        "123",
        None,
        None,
        2.0,
        4,
    )


def test_a_mapping_closes_the_event_types() -> None:
    rules = RowRules(event_types={"buy": "checkout", "4": "lead"})
    assert _judge({"event_type": "view"}, rules)[1] == "unknown_event_type"
    for value, expected in (("buy", "checkout"), (4, "lead")):
        row, _ = _judge({"event_type": value}, rules)
        assert row is not None and row["event_type"] == expected


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (SourceConfig, {"events": ["a.csv"], "colums": {}}, "Extra inputs"),
        (SourceConfig, {"adapter": "files"}, "at least one path"),
        (SourceConfig, {"events": ["a.csv"], "columns": {"usr": "x"}}, "canonical columns"),
        (SourceConfig, {"events": ["a.csv"], "catalogue_columns": {"user_id": "x"}}, "canonical columns"),
        (SourceConfig, {"events": ["a.csv"], "event_types": {"buy": "purchase"}}, "must map to one of"),
        (EventsConfig, {"num_partitions": 0}, "greater than or equal"),
    ],
)
def test_configuration_is_closed(section: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        section(**values)
