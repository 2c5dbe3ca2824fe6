"""Parquet, CSV(.gz) and JSONL(.gz), files or objects of a store, as raw chunks with canonical column names,
source and offset.

The offset of a row is its number in its file, from 0 (a CSV header is not counted, a blank line is). Text
files give text, Parquet gives its own types; what the values mean is decided by `validation`. A line that is
no row keeps its offset and carries a `defect`. Nothing is read as a whole: a chunk is about 16 MB of text or
262,144 Parquet rows.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import PurePath
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from forecart import columns as c
from forecart.errors import DataError
from forecart.events.lines import LINE, read_lines
from forecart.events.schema import DEFECT, RAW_CHARS
from forecart.object_store import ObjectPath, Place

_PARQUET_ROWS: Final = 1 << 18
_CSV_SUFFIXES: Final = (".csv", ".tsv", ".txt")
_JSON_SUFFIXES: Final = (".jsonl", ".ndjson", ".json")
_MAY_NEST: Final = (c.CONTEXT, c.EMBEDDING)


def read_table(path: Place, columns: Mapping[str, str], *, separator: str = ",") -> Iterator[pl.DataFrame]:
    """Yields the chunks of one file, its columns renamed from `columns` (canonical name -> name in the file).

    Raises:
        DataError: the file is missing, of an unknown kind, damaged as a whole, or lacks a named column.
    """
    kind = find_kind(path)
    if kind == "parquet":
        chunks = _read_parquet(path, columns)
    elif kind == "csv":
        chunks = _read_csv(path, columns, separator)
    else:
        chunks = _read_jsonl(path, columns)
    for chunk in chunks:
        yield chunk.with_columns(pl.lit(str(path)).alias(c.SOURCE))


def find_kind(path: Place) -> str:
    """Returns `parquet`, `csv` or `jsonl` from the file's name.

    Raises:
        DataError: the name says none of these.
    """
    suffix = PurePath(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix.lower() in (".parquet", ".pq"):
        return "parquet"
    if suffix.lower() in _CSV_SUFFIXES:
        return "csv"
    if suffix.lower() in _JSON_SUFFIXES:
        return "jsonl"
    raise DataError(
        f"a log must be .parquet, .csv(.gz) or .jsonl(.gz), {path.name} is none; convert or rename it"
    )


def read_column_names(path: Place, *, separator: str = ",") -> list[str]:
    """Returns the names of a file's columns (for JSONL: the keys seen in its first block).

    Raises:
        DataError: as `read_table`, or the file is empty.
    """
    kind = find_kind(path)
    if kind == "parquet":
        return [str(name) for name in _open_parquet(path).schema_arrow.names]
    if kind == "csv":
        return _read_header(next(read_lines(path), None), path, separator)
    block = next(read_lines(path), None)
    if block is None:
        raise DataError(f"a log must hold at least one row, {path} is empty")
    records = (_parse_record(line)[0] for line in block[LINE].drop_nulls().head(1000))
    return list(dict.fromkeys(chain.from_iterable(record for record in records if record is not None)))


def find_mapping(
    available: Sequence[str], columns: Mapping[str, str], known: Sequence[str]
) -> dict[str, str]:
    """Returns canonical -> source name for every known column that the file has, named or by equal name."""
    return {name: columns.get(name, name) for name in known if name in columns or name in available}


def _check_columns(path: Place, columns: Mapping[str, str], available: Sequence[str]) -> None:
    missing = sorted(set(columns.values()) - set(available))
    if missing:
        raise DataError(
            f"the column mapping names {', '.join(missing)}, {path.name} has {', '.join(available)}; "
            "correct `columns` in the configuration"
        )


def _open_parquet(path: Place) -> pq.ParquetFile:
    if not path.is_file():
        raise DataError(f"a file was expected at {path}, none is there")
    try:
        return pq.ParquetFile(path.open() if isinstance(path, ObjectPath) else path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} must be a Parquet file, it cannot be read: {error}") from None


def _read_parquet(path: Place, columns: Mapping[str, str]) -> Iterator[pl.DataFrame]:
    with _open_parquet(path) as file:
        _check_columns(path, columns, [str(name) for name in file.schema_arrow.names])
        first = 0
        wanted = sorted(set(columns.values()))
        for batch in file.iter_batches(_PARQUET_ROWS, columns=wanted):
            raw = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))
            frame = raw.select(pl.col(name).alias(canonical) for canonical, name in columns.items())
            offset = pl.int_range(first, first + batch.num_rows, dtype=pl.Int64, eager=True)
            yield frame.with_columns(offset.alias(c.OFFSET))
            first += batch.num_rows


def _read_header(block: pl.DataFrame | None, path: Place, separator: str) -> list[str]:
    if block is None or block.is_empty() or block[LINE][0] is None:
        raise DataError(f"a CSV file must start with a line of column names, {path} does not")
    header = [name.strip() for name in next(csv.reader([block[LINE][0]], delimiter=separator))]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"column names must differ, {path.name} repeats {', '.join(repeated)}; rename one")
    return header


def _read_csv(path: Place, columns: Mapping[str, str], separator: str) -> Iterator[pl.DataFrame]:
    header: list[str] = []
    for lines in read_lines(path):
        if not header:
            header = _read_header(lines, path, separator)
            _check_columns(path, columns, header)
            lines = lines[1:]
        first_row = pl.col(c.OFFSET) - 1
        positions = {canonical: header.index(name) for canonical, name in columns.items()}
        yield _split_fields(lines.with_columns(first_row), positions, len(header), separator)
    if not header:
        _read_header(None, path, separator)


def _split_fields(lines: pl.DataFrame, positions: dict[str, int], width: int, separator: str) -> pl.DataFrame:
    """Cuts lines into fields: plain lines at once, those with a quote by the csv module, one by one."""
    has_quote = pl.col(LINE).str.contains('"', literal=True)
    quoted = pl.Series(
        [
            None if line is None else _parse_quoted(line, separator)
            for line in lines.select(pl.when(has_quote).then(LINE)).to_series()
        ],
        dtype=pl.List(pl.String),
    )
    fields = pl.when(has_quote).then(quoted).otherwise(pl.col(LINE).str.split(separator))
    frame = lines.with_columns(fields.alias("fields"))
    defect = (
        pl.when(pl.col(DEFECT).is_not_null())
        .then(pl.col(DEFECT))
        .when(pl.col("fields").is_null())
        .then(pl.lit("malformed_csv"))
        .when(pl.col("fields").list.len() != width)
        .then(pl.lit("wrong_number_of_columns"))
    )
    # With a field too many or too few no field can be trusted to be the one its position says.
    values = [
        pl.when(pl.col(DEFECT).is_null()).then(pl.col("fields").list.get(index, null_on_oob=True)).alias(name)
        for name, index in positions.items()
    ]
    return _keep_raw(frame.with_columns(defect.alias(DEFECT)).with_columns(values), positions)


def _parse_quoted(line: str, separator: str) -> list[str] | None:
    try:
        return next(csv.reader([line], delimiter=separator, strict=True))
    except (csv.Error, StopIteration):
        return None


def _keep_raw(frame: pl.DataFrame, names: Iterable[str]) -> pl.DataFrame:
    """Returns the chunk with the line itself as `raw`, so that a rejected row shows what arrived."""
    raw = pl.coalesce(c.RAW, LINE).str.slice(0, RAW_CHARS)
    return frame.select(c.OFFSET, *names, DEFECT, raw.alias(c.RAW))


def _read_jsonl(path: Place, columns: Mapping[str, str]) -> Iterator[pl.DataFrame]:
    seen: set[str] = set()
    wanted = set(columns.values())
    for lines in read_lines(path):
        parsed = [(None, None) if line is None else _parse_record(line) for line in lines[LINE]]
        records: list[dict[str, Any]] = [record or {} for record, _ in parsed]
        if not wanted <= seen:
            seen = seen.union(*records)
        flaws = [flaw for _, flaw in parsed]
        values: list[pl.Series] = []
        for canonical, name in columns.items():
            column = [record.get(name) for record in records]
            values.append(pl.Series(canonical, _to_texts(column, canonical, flaws), dtype=pl.String))
        defect = pl.coalesce(DEFECT, pl.Series(flaws, dtype=pl.String)).alias(DEFECT)
        yield _keep_raw(lines.with_columns(defect, *values), columns)
    _check_columns(path, columns, sorted(seen))


def _parse_record(line: str) -> tuple[dict[str, Any] | None, str | None]:
    """Returns the object of one line, or why there is none."""
    try:
        record = _DECODER.decode(line)
    except _NotFiniteError:
        return None, "not_finite_value"
    except (ValueError, RecursionError):
        return None, "malformed_json"
    return (record, None) if isinstance(record, dict) else (None, "malformed_json")


class _NotFiniteError(ValueError):
    """JSON has no NaN and no Infinity, but writers that do not know that exist."""


def _refuse_constant(name: str) -> None:
    raise _NotFiniteError(name)


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def _to_texts(values: list[Any], column: str, flaws: list[str | None]) -> list[str | None]:
    """Returns JSON values as text; notes in `flaws` the rows whose value is not of the column's kind."""
    if set(map(type, values)) <= {str, type(None)}:
        return values
    texts: list[str | None] = []
    for row, value in enumerate(values):
        if value is None or isinstance(value, str):
            texts.append(value)
        elif isinstance(value, bool | list | dict):
            texts.append(json.dumps(value))
            is_allowed = column == c.CONSENT if isinstance(value, bool) else column in _MAY_NEST
            flaws[row] = flaws[row] or (None if is_allowed else "wrong_type")
        else:
            texts.append(_show_number(value))
    return texts


def _show_number(value: int | float) -> str:
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return str(int(value)) if is_whole else repr(value)
