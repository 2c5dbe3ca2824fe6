"""Consent is honoured before anything else is looked at, and leaves no trace."""

from pathlib import Path

import polars as pl
import pytest
from small_logs import check_sum, ingest, make_rows, read_quarantine, read_store, to_json_lines, write_lines

from forecart.errors import DataError

ROWS = make_rows(300, seed=3)


def _files(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("consent", "reason"),
    [
        (False, "consent_denied"),
        ("denied", "consent_denied"),
        ("No", "consent_denied"),
        (0, "consent_denied"),
        ("perhaps", "consent_unreadable"),
        (True, None),
        ("granted", None),
        (1, None),
        (None, None),
    ],
)
def test_consent_decides_before_the_row_is_judged(
    tmp_path: Path, consent: object, reason: str | None
) -> None:
    canary = ROWS[0] | {"event_id": "canary", "user_id": "canary-person", "consent": consent}
    rows = [row | {"consent": True} for row in ROWS[1:]] + [canary]
    facts = ingest(write_lines(tmp_path / "log.jsonl", to_json_lines(rows)), tmp_path / "events")
    assert facts["counts"]["filtered"] == ({reason: 1} if reason else {})
    assert ("canary-person" in read_store(tmp_path / "events")["user_id"]) == (reason is None)
    check_sum(facts["counts"])


def test_a_denied_row_that_is_broken_too_is_not_quarantined(tmp_path: Path) -> None:
    denied = {"user_id": "canary-person", "consent": False}
    rows = [row | {"consent": "yes"} for row in ROWS]
    rows += [ROWS[0] | denied | {"occurred_at": "?"}, ROWS[0] | denied | {"item_id": ["list"]}]
    facts = ingest(write_lines(tmp_path / "log.jsonl", to_json_lines(rows)), tmp_path / "events")
    assert facts["counts"]["filtered"] == {"consent_denied": 2}
    assert read_quarantine(tmp_path / "events").is_empty()
    assert b"canary-person" not in _files(tmp_path / "events")


def test_a_line_whose_consent_cannot_be_read_is_quarantined_without_its_text(tmp_path: Path) -> None:
    lines = to_json_lines([row | {"consent": True} for row in ROWS])
    lines.insert(4, b'{"user_id": "canary-person", "consent": false, ')
    ingest(write_lines(tmp_path / "log.jsonl", lines), tmp_path / "events")
    assert read_quarantine(tmp_path / "events").select("offset", "reason", "raw").rows() == [
        (4, "malformed_json", None)
    ]


def test_a_shifted_csv_line_is_not_taken_at_its_word(tmp_path: Path) -> None:
    lines = [b"user_id,event_type,advertiser_id,occurred_at,consent"]
    lines += [b"u,view,a,2024-01-01,true"] * 100 + [b"canary-person,view,a,b,2024-01-01,true,false"]
    ingest(write_lines(tmp_path / "log.csv", lines), tmp_path / "events")
    assert read_quarantine(tmp_path / "events")["raw"].to_list() == [None]


def test_required_consent_drops_rows_without_one(tmp_path: Path) -> None:
    rows = [row | {"consent": True} for row in ROWS[:100]] + ROWS[100:]
    path = write_lines(tmp_path / "log.jsonl", to_json_lines(rows))
    facts = ingest(path, tmp_path / "events", require_consent=True)
    assert facts["counts"]["filtered"] == {"consent_missing": 200}
    assert facts["counts"]["accepted"] == 100


def test_ignored_event_types_are_filtered_not_rejected(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "log.jsonl", to_json_lines(ROWS))
    mapping = {"view": "view", "add_to_cart": "add_to_cart", "checkout": "checkout"}
    source = {"event_types": mapping, "ignored_event_types": ["page_visit"]}
    facts = ingest(path, tmp_path / "events", source=source)
    visits = sum(row["event_type"] == "page_visit" for row in ROWS)
    assert facts["counts"]["filtered"] == {"event_type_ignored": visits} and visits


def test_consent_as_a_parquet_boolean(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        [row | {"consent": bool(n % 3)} for n, row in enumerate(ROWS)], infer_schema_length=None
    )
    frame.write_parquet(tmp_path / "log.parquet")
    facts = ingest(tmp_path / "log.parquet", tmp_path / "events")
    assert facts["counts"]["filtered"] == {"consent_denied": 100}
    assert facts["counts"]["accepted"] == 200


def test_required_consent_without_such_a_column_keeps_nothing(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "log.jsonl", [*to_json_lines(ROWS), b"{broken"])
    with pytest.raises(DataError, match="at least one event"):
        ingest(path, tmp_path / "events", require_consent=True)
    assert read_quarantine(tmp_path / "events")["raw"].to_list() == [None]
