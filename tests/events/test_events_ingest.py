"""The event store as a function of the set of rows: order, repetition and garbage change nothing (R8, R9)."""

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from small_logs import (
    check_sum,
    hash_parts,
    ingest,
    make_rows,
    read_quarantine,
    read_store,
    to_csv_lines,
    to_json_lines,
    write_lines,
)

from forecart.artifacts import is_stage_complete
from forecart.errors import DataError
from forecart.events.adapters import open_adapter
from forecart.events.ingest import ingest_events
from forecart.events.schema import EVENT_SCHEMA, EventsConfig, SourceConfig

NUM_ROWS = 2000
ROWS = make_rows(NUM_ROWS)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    ingest(write_lines(folder / "log.jsonl", to_json_lines(ROWS)), folder / "events")
    return folder / "events"


def test_store_holds_every_row_in_store_order(clean: Path) -> None:
    store = read_store(clean)
    assert dict(store.schema) == EVENT_SCHEMA
    assert sorted(store["event_id"]) == sorted(row["event_id"] for row in ROWS)
    for path in clean.glob("part-*.parquet"):
        part = pl.read_parquet(path)
        keys = part.select("user_id", "arrived_at", "occurred_at", "ordinal", "event_id").rows()
        assert keys == sorted(keys) and keys
    by_id = {row["event_id"]: row for row in ROWS}
    for row in store.head(50).iter_rows(named=True):
        raw = by_id[row["event_id"]]
        assert row["occurred_at"] == datetime.fromtimestamp(raw["occurred_at"], UTC)
        assert row["arrived_at"] == datetime.fromtimestamp(raw["arrived_at"], UTC)
        assert all(row[name] == raw[name] for name in ("user_id", "item_id", "value", "quantity", "currency"))


def test_each_user_is_in_one_partition(clean: Path) -> None:
    users = [set(pl.read_parquet(path)["user_id"]) for path in clean.glob("part-*.parquet")]
    assert sum(map(len, users)) == len(set.union(*users)) == 40


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_and_duplicated_log_gives_the_same_bytes(clean: Path, tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    rows = ROWS + draw.sample(ROWS, 700)
    draw.shuffle(rows)
    half = len(rows) // 2
    files = [
        write_lines(tmp_path / "a.jsonl.gz", to_json_lines(rows[:half])),
        write_lines(tmp_path / "b.csv", to_csv_lines(rows[half:])),
    ]
    facts = ingest(files, tmp_path / "events")
    assert hash_parts(tmp_path / "events") == hash_parts(clean)
    assert facts["counts"]["duplicates"] == 700
    check_sum(facts["counts"])


def test_first_arrival_of_an_id_wins_whatever_the_order(tmp_path: Path) -> None:
    late = ROWS[0] | {"arrived_at": ROWS[0]["arrived_at"] + 500, "value": 1.0}
    early = ROWS[0] | {"value": 2.0}
    for name, rows in (("a", [late, early]), ("b", [early, late])):
        ingest(write_lines(tmp_path / f"{name}.jsonl", to_json_lines(rows)), tmp_path / name)
    assert read_store(tmp_path / "a")["value"].to_list() == [2.0]
    assert hash_parts(tmp_path / "a") == hash_parts(tmp_path / "b")


def test_parquet_input_gives_the_same_bytes(clean: Path, tmp_path: Path) -> None:
    pl.DataFrame(ROWS, infer_schema_length=None).write_parquet(tmp_path / "log.parquet")
    ingest(tmp_path / "log.parquet", tmp_path / "events")
    assert hash_parts(tmp_path / "events") == hash_parts(clean)


def test_arrival_is_never_missing_and_never_before_the_event(tmp_path: Path) -> None:
    rows = [
        ROWS[0] | {"event_id": "a", "arrived_at": None},
        ROWS[0] | {"event_id": "b", "arrived_at": 1_600_000_000},
    ]
    ingest(write_lines(tmp_path / "log.jsonl", to_json_lines(rows)), tmp_path / "events")
    store = read_store(tmp_path / "events")
    assert store["arrived_at"].to_list() == store["occurred_at"].to_list()


def _bad_json() -> list[tuple[bytes, str]]:
    good = ROWS[1]
    line = json.dumps(good).encode()
    return [
        (line[:-1], "malformed_json"),
        (b'{"event_id": "x", "user_id": "unclosed', "malformed_json"),
        (b"[1, 2]", "malformed_json"),
        (b"[" * 5000, "malformed_json"),
        (line.replace(b'"currency": "EUR"', b'"currency": NaN'), "not_finite_value"),
        (line.replace(b'"currency": "EUR"', b'"currency": "E\xff\xfeR"'), "invalid_utf8"),
        (json.dumps(good | {"item_id": "x" * 10_000_000}).encode(), "field_too_long"),
        (json.dumps(good | {"user_id": "x" * 900}).encode(), "field_too_long"),
        (json.dumps(good | {"user_id": ["u"]}).encode(), "wrong_type"),
        (json.dumps(good | {"advertiser_id": True}).encode(), "wrong_type"),
        (json.dumps(good | {"value": "a lot"}).encode(), "wrong_type"),
        (json.dumps(good | {"value": "NaN"}).encode(), "not_finite_value"),
        (json.dumps(good | {"quantity": "inf"}).encode(), "not_finite_value"),
        (json.dumps(good | {"user_id": None}).encode(), "missing_user_id"),
        (json.dumps(good | {"advertiser_id": " "}).encode(), "missing_advertiser"),
        (json.dumps(good | {"event_type": "teleport"}).encode(), "unknown_event_type"),
        (json.dumps(good | {"occurred_at": good["occurred_at"] * 1000}).encode(), "millisecond_epoch"),
        (json.dumps(good | {"arrived_at": good["occurred_at"] * 1000}).encode(), "millisecond_epoch"),
        (json.dumps(good | {"occurred_at": "yesterday"}).encode(), "bad_timestamp"),
        (json.dumps(good | {"occurred_at": 12}).encode(), "timestamp_out_of_range"),
    ]


def _bad_csv() -> list[tuple[bytes, str]]:
    good = to_csv_lines([ROWS[1]])[1]
    fields = good.split(b",")

    def put(position: int, value: bytes) -> bytes:
        return b",".join([*fields[:position], value, *fields[position + 1 :]])

    return [
        (good + b",surplus", "wrong_number_of_columns"),
        (fields[0], "wrong_number_of_columns"),
        (put(3, b'"never closed'), "malformed_csv"),
        (put(3, b'"quo"ted'), "malformed_csv"),
        (put(1, b"\xc3\x28"), "invalid_utf8"),
        (put(4, b"y" * 10_000_000), "field_too_long"),
        (put(7, b"NaN"), "not_finite_value"),
        (put(7, b"12 pounds"), "wrong_type"),
        (put(5, str(ROWS[1]["occurred_at"] * 1000).encode()), "millisecond_epoch"),
        (put(2, b""), "missing_event_type"),
    ] * 2


def _spread(lines: list[bytes], garbage: list[tuple[bytes, str]]) -> tuple[list[bytes], dict[int, str]]:
    """Inserts the garbage at random places; returns the lines and the reason by line number."""
    tagged: list[tuple[bytes, str | None]] = [(line, None) for line in lines]
    draw = random.Random(7)
    for bad in garbage:
        tagged.insert(draw.randrange(len(tagged) + 1), bad)
    return [line for line, _ in tagged], {n: reason for n, (_, reason) in enumerate(tagged) if reason}


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_one_percent_of_garbage_changes_nothing_and_is_all_found(
    clean: Path, tmp_path: Path, kind: str
) -> None:
    header, lines = (
        ([], to_json_lines(ROWS)) if kind == "jsonl" else ([to_csv_lines(ROWS)[0]], to_csv_lines(ROWS)[1:])
    )
    lines, expected = _spread(lines, _bad_json() if kind == "jsonl" else _bad_csv())
    path = write_lines(tmp_path / f"log.{kind}", [*header, *lines])
    facts = ingest(path, tmp_path / "events")
    assert len(expected) == NUM_ROWS // 100
    assert hash_parts(tmp_path / "events") == hash_parts(clean)
    quarantine = read_quarantine(tmp_path / "events")
    assert dict(quarantine.select("offset", "reason").iter_rows()) == expected
    assert quarantine["source"].unique().to_list() == [str(path)]
    for offset, raw in quarantine.select("offset", "raw").iter_rows():
        start = lines[offset].decode("utf-8", "backslashreplace")
        assert start.startswith(raw) and len(raw) == min(len(start), 4096)
    check_sum(facts["counts"])


def test_garbage_in_parquet_is_found_by_row(clean: Path, tmp_path: Path) -> None:
    bad = [
        ROWS[1] | {"value": float("nan")},
        ROWS[1] | {"occurred_at": 1_700_000_000_000},
        ROWS[1] | {"user_id": "z" * 10_000_000},
    ]
    rows = [*ROWS[:5], bad[0], *ROWS[5:1000], bad[1], *ROWS[1000:], bad[2]]
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(tmp_path / "log.parquet")
    ingest(tmp_path / "log.parquet", tmp_path / "events")
    assert hash_parts(tmp_path / "events") == hash_parts(clean)
    found = read_quarantine(tmp_path / "events").select("offset", "reason").rows()
    assert found == [(5, "not_finite_value"), (1001, "millisecond_epoch"), (2002, "field_too_long")]
    assert json.loads(read_quarantine(tmp_path / "events")["raw"][0])["value"] == "NaN"


def test_a_nested_value_in_parquet_is_shown_in_quarantine(tmp_path: Path) -> None:
    rows = [row | {"item_id": ["a", None] if number == 3 else None} for number, row in enumerate(ROWS[:100])]
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(tmp_path / "log.parquet")
    ingest(tmp_path / "log.parquet", tmp_path / "events")
    found = read_quarantine(tmp_path / "events").select("offset", "reason").rows()
    assert found == [(3, "wrong_type")]
    assert "'a', None" in json.loads(read_quarantine(tmp_path / "events")["raw"][0])["item_id"]


def test_pairs_are_one_event_only_where_the_log_delivers_twice(tmp_path: Path) -> None:
    pair = [ROWS[0], ROWS[0] | {"event_id": "server", "occurred_at": ROWS[0]["occurred_at"] + 60}]
    path = write_lines(tmp_path / "log.jsonl", to_json_lines(pair))
    assert ingest(path, tmp_path / "a")["counts"]["accepted"] == 2
    counts = ingest(path, tmp_path / "b", delivers_twice=True)["counts"]
    assert (counts["accepted"], counts["duplicates"]) == (1, 1)


def test_more_than_two_percent_stops_the_run_but_shows_the_rows(tmp_path: Path) -> None:
    lines, expected = _spread(to_json_lines(ROWS[:900]), _bad_json())
    path = write_lines(tmp_path / "log.jsonl", lines)
    with pytest.raises(DataError, match=r"at most 2\.0% .* 2\.2% were .*malformed_json 4.*quarantine"):
        ingest(path, tmp_path / "events")
    assert read_quarantine(tmp_path / "events").height == len(expected)
    assert not (tmp_path / "events" / "manifest.json").exists()
    assert not list((tmp_path / "events").glob("part-*"))


def test_a_log_that_is_refused_leaves_the_store_that_was_there(tmp_path: Path) -> None:
    lines, expected = _spread(to_json_lines(ROWS[:900]), _bad_json())
    sound = write_lines(tmp_path / "log.jsonl", to_json_lines(ROWS[:900]))
    ingest(sound, tmp_path / "events")
    before = {path.name: path.read_bytes() for path in (tmp_path / "events").iterdir()}
    with pytest.raises(DataError, match=r"refused\.parquet"):
        ingest(write_lines(tmp_path / "damaged.jsonl", lines), tmp_path / "events")
    assert pl.read_parquet(tmp_path / "events" / "refused.parquet").height == len(expected)
    after = {path.name: path.read_bytes() for path in (tmp_path / "events").iterdir()}
    assert after.pop("refused.parquet") and after == before
    ingest(sound, tmp_path / "events")
    assert sorted(path.name for path in (tmp_path / "events").iterdir()) == sorted(before)


def test_a_fixed_log_replayed_is_the_clean_store(clean: Path, tmp_path: Path) -> None:
    broken = [row | ({"occurred_at": "?"} if number % 50 == 0 else {}) for number, row in enumerate(ROWS)]
    ingest(
        write_lines(tmp_path / "log.jsonl", to_json_lines(broken)),
        tmp_path / "events",
        max_rejected_share=0.02,
    )
    assert read_store(tmp_path / "events").height == NUM_ROWS - 40
    ingest(write_lines(tmp_path / "log.jsonl", to_json_lines(ROWS)), tmp_path / "events")
    assert hash_parts(tmp_path / "events") == hash_parts(clean)
    assert read_quarantine(tmp_path / "events").is_empty()


def test_a_store_replaces_an_earlier_one_of_more_partitions(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "log.jsonl", to_json_lines(ROWS[:50]))
    ingest(path, tmp_path / "events", num_partitions=7)
    (tmp_path / "events" / ".spill-left").mkdir()
    ingest(path, tmp_path / "events", num_partitions=2)
    names = sorted(p.name for p in (tmp_path / "events").iterdir())
    assert names == [
        "catalogue.parquet",
        "manifest.json",
        "part-00000.parquet",
        "part-00001.parquet",
        "quarantine.parquet",
    ]
    assert is_stage_complete(tmp_path / "events", "")


def test_rows_without_an_id_are_told_apart_by_their_place(tmp_path: Path) -> None:
    row = {name: value for name, value in ROWS[0].items() if name != "event_id"}
    files = [write_lines(tmp_path / f"{n}.jsonl", to_json_lines([row] * 3)) for n in "ab"]
    facts = ingest(files, tmp_path / "events")
    assert facts["counts"]["accepted"] == 6
    assert read_store(tmp_path / "events")["event_id"].to_list() == ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"]


def test_a_log_without_a_sound_row_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "log.csv", to_csv_lines(ROWS[:1])[:1])
    with pytest.raises(DataError, match="at least one event"):
        ingest(path, tmp_path / "events")


def test_progress_is_reported_by_rows_read(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "log.jsonl", to_json_lines(ROWS[:30]))
    seen: list[int] = []
    source = open_adapter(SourceConfig(events=[path]))
    ingest_events(source, tmp_path / "events", config=EventsConfig(), key="k", report=seen.append)
    assert seen == [30]
    assert is_stage_complete(tmp_path / "events", "k")
