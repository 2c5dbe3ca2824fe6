"""Readers: any block size, any line end, any quoting gives the rows a naive reading gives."""

import csv
import gzip
import io
import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_logs import write_lines

from forecart.errors import DataError
from forecart.events.lines import MAX_LINE_BYTES, read_line_blocks, read_lines
from forecart.events.readers import find_kind, read_column_names, read_table

CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=8)


def _read(path: Path, columns: dict[str, str], **options: str) -> pl.DataFrame:
    return pl.concat(list(read_table(path, columns, **options)))


@given(rows=st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=12))
@settings(max_examples=30, deadline=None)
def test_csv_equals_the_csv_module(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]]
) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([("a", "b", "c"), *rows])
    path = tmp_path_factory.mktemp("csv") / "log.csv"
    path.write_bytes(text.getvalue().encode())
    frame = _read(path, {"one": "a", "three": "c"})
    assert frame["defect"].null_count() == frame.height
    # A record is one line: that rows are found in place is the point, so the blank ones are left out of both.
    found = {offset: cells for offset, *cells in frame.select("offset", "one", "three").rows()}
    for offset, row in enumerate(rows):
        if found.get(offset) is None:
            assert not "".join(row).strip()
        else:
            assert found[offset] == [row[0], row[2]]


@given(
    lines=st.lists(st.binary(max_size=12).filter(lambda b: b"\n" not in b), min_size=1, max_size=20),
    block_bytes=st.integers(1, 40),
)
@settings(max_examples=30, deadline=None)
def test_lines_do_not_depend_on_the_blocks(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], block_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "log.txt"
    path.write_bytes(b"\n".join([b"first", *lines]))
    expected: list[tuple[int, str | None]] = [(0, "first")]
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode().rstrip("\r\n")
            if text.strip(" \t"):
                expected.append((number, text))
        except UnicodeDecodeError:
            expected.append((number, None))
    frame = pl.concat(list(read_lines(path, block_bytes=block_bytes)))
    assert frame.select("offset", "line").rows() == expected


def test_an_endless_line_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"a\n" + b"x" * (5 * MAX_LINE_BYTES) + b"\ny\n")
    blocks = list(read_line_blocks(path, block_bytes=MAX_LINE_BYTES // 4))
    assert max(map(len, blocks)) < 2 * MAX_LINE_BYTES
    frame = pl.concat(list(read_lines(path, block_bytes=MAX_LINE_BYTES // 4)))
    assert frame.select("offset", "line", "defect").rows() == [
        (0, "a", None),
        (1, None, "field_too_long"),
        (2, "y", None),
    ]
    assert frame["raw"][1] == "x" * 4096


def test_byte_order_mark_carriage_returns_tabs_and_gzip(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbfwho\twhat\r\nu1\tv1\r\n\r\nu2\tv2"))
    frame = _read(path, {"user": "who", "item": "what"}, separator="\t")
    assert frame.select("offset", "user", "item").rows() == [(0, "u1", "v1"), (2, "u2", "v2")]
    assert read_column_names(path, separator="\t") == ["who", "what"]


def test_json_values_become_the_text_of_their_kind(tmp_path: Path) -> None:
    records = [{"a": 12}, {"a": 12.0}, {"a": 12.5}, {"a": "12"}, {"a": None}, {"b": 1}, {"a": 2**60}]
    path = write_lines(tmp_path / "log.jsonl", [json.dumps(record).encode() for record in records])
    assert _read(path, {"x": "a"})["x"].to_list() == ["12", "12", "12.5", "12", None, None, str(2**60)]
    assert read_column_names(path) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.xlsx", b"", "log.xlsx is none"),
        ("log.csv", b"", "must start with a line of column names"),
        ("log.csv", b"a,b,a\n", "repeats a"),
        ("log.csv", b"b,c\n1,2\n", "names a, log.csv has b, c"),
        ("log.jsonl", b'{"b": 1}\n', "names a, log.jsonl has b"),
        ("log.csv.gz", b"no gzip", "whole gzip file"),
        ("log.csv.gz", gzip.compress(b"a\n" + b"12,34\n" * 99, mtime=0)[:-9], "whole gzip file"),
        ("log.parquet", b"PAR1 not really", "must be a Parquet file"),
    ],
)
def test_a_file_that_cannot_be_a_log_is_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        _read(tmp_path / name, {"x": "a"})


@pytest.mark.parametrize("name", ["none.csv", "none.parquet", "none.jsonl.gz"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"expected at .*{name}"):
        _read(tmp_path / name, {"x": "a"})


def test_kinds_by_name() -> None:
    kinds = {"a.csv": "csv", "a.CSV.gz": "csv", "a.ndjson": "jsonl", "a.jsonl.gz": "jsonl", "a.pq": "parquet"}
    assert {name: find_kind(Path(name)) for name in kinds} == kinds
