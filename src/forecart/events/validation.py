"""Raw values to typed event rows, or a reason why not: vectorised, one reason a row, the first that applies.

Reasons: missing_user_id, missing_event_id, missing_event_type, missing_timestamp, missing_advertiser,
wrong_type, field_too_long, unknown_event_type, bad_timestamp, millisecond_epoch, timestamp_out_of_range,
not_finite_value; the readers add invalid_utf8, malformed_json, malformed_csv and wrong_number_of_columns.
Nothing is repaired by guessing: a time in milliseconds where seconds were declared is rejected with that
name, because a wrong year is worse than a lost row.
"""

from datetime import UTC, datetime
from typing import Final

import polars as pl

from forecart import columns as c
from forecart.events.schema import EVENT_SCHEMA, TIME, RowRules

MAX_ID_CHARS: Final = 512
EARLIEST_US: Final = int(datetime(1980, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
LATEST_US: Final = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
_FAR_US: Final = 9e18
"""Beyond any time, within an Int64: what overflows is out of range, not unreadable."""
_US_PER_UNIT: Final = {"auto": 1e6, "iso": 1e6, "s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
_NUMBER: Final = r"^[+-]?\d+(\.\d+)?$"
COUNTRY: Final = r"^\s*[A-Za-z]{2}\s*$"
"""Two letters, ISO 3166-1."""
_NOTHING: Final = ["", "null", "none", "nan", "undefined"]
_TEXTS: Final = (c.USER_ID, c.EVENT_ID, c.EVENT_TYPE, c.ADVERTISER_ID, c.ITEM_ID, c.CURRENCY)
_NUMBERS: Final = (c.VALUE, c.QUANTITY, c.ORDINAL)
_TIMES: Final = (c.OCCURRED_AT, c.ARRIVED_AT)


def validate_events(frame: pl.DataFrame, rules: RowRules) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Splits raw rows into good ones, typed as `EVENT_SCHEMA`, and rejected ones, raw with a `reason`.

    A missing arrival is the time of the event, as is one before it; a missing ordinal is 0. A country that is
    not two letters is none: no reason to lose an event, as no history reads it.
    """
    raw = frame.with_columns(
        pl.lit(None, dtype=pl.String).alias(n) for n in EVENT_SCHEMA if n not in frame.columns
    )
    typed = raw.with_columns(_parse_columns(raw, rules))
    reason = pl.coalesce(_find_reasons(raw.schema, rules))
    reasons = typed.select(reason.alias(c.REASON)).to_series()
    is_good = reasons.is_null()
    if is_good.all():
        return _finish(typed), frame.clear().with_columns(reasons.clear())
    return _finish(typed.filter(is_good)), frame.with_columns(reasons).filter(~is_good)


def _finish(typed: pl.DataFrame) -> pl.DataFrame:
    occurred = pl.col(_typed(c.OCCURRED_AT))
    country = pl.col(_typed(c.COUNTRY)).str.to_uppercase()
    return typed.select(
        *(pl.col(_typed(name)).alias(name) for name in (*_TEXTS, c.VALUE, c.QUANTITY)),
        pl.when(country.str.contains(COUNTRY)).then(country).alias(c.COUNTRY),
        pl.col(_typed(c.ORDINAL)).fill_null(0).cast(pl.Int64).alias(c.ORDINAL),
        occurred.cast(TIME).alias(c.OCCURRED_AT),
        pl.max_horizontal(occurred, _typed(c.ARRIVED_AT)).cast(TIME).alias(c.ARRIVED_AT),
    ).select(pl.col(name).cast(dtype) for name, dtype in EVENT_SCHEMA.items())


def _typed(column: str) -> str:
    return f"typed_{column}"


def _parse_columns(raw: pl.DataFrame, rules: RowRules) -> list[pl.Expr]:
    parsed = {name: parse_text(name, raw.schema[name]) for name in _TEXTS}
    if rules.event_types:
        parsed[c.EVENT_TYPE] = parsed[c.EVENT_TYPE].replace_strict(
            rules.event_types, default=None, return_dtype=pl.String
        )
    parsed[c.COUNTRY] = parse_text(c.COUNTRY, raw.schema[c.COUNTRY])
    parsed |= {name: parse_number(name, raw.schema[name]) for name in _NUMBERS}
    parsed |= {name: parse_time(name, raw.schema[name], rules) for name in _TIMES}
    return [expression.alias(_typed(name)) for name, expression in parsed.items()]


def parse_text(column: str, dtype: pl.DataType) -> pl.Expr:
    """Returns a column as stripped text, null for nothing; whole numbers give digits, other types null."""
    if dtype == pl.String or dtype == pl.Categorical or dtype == pl.Enum:
        text = pl.col(column).cast(pl.String).str.strip_chars()
        return pl.when(~text.str.to_lowercase().is_in(_NOTHING)).then(text)
    if dtype.is_integer():
        return pl.col(column).cast(pl.String)
    if dtype.is_float():
        is_whole = pl.col(column) == pl.col(column).round()
        return pl.when(is_whole).then(pl.col(column).cast(pl.Int64, strict=False)).cast(pl.String)
    return pl.lit(None, dtype=pl.String)


def parse_number(column: str, dtype: pl.DataType) -> pl.Expr:
    """Returns a column as Float64; null where it holds no number (NaN and infinities stay)."""
    if dtype == pl.String:
        return pl.col(column).str.strip_chars().cast(pl.Float64, strict=False)
    if dtype.is_numeric():
        return pl.col(column).cast(pl.Float64)
    return pl.lit(None, dtype=pl.Float64)


def parse_time(column: str, dtype: pl.DataType, rules: RowRules) -> pl.Expr:
    """Returns a column of times as Int64 microseconds since the epoch, UTC; null where it holds no time."""
    if dtype == pl.Date:
        return pl.col(column).cast(pl.Datetime("us")).dt.epoch("us")
    if isinstance(dtype, pl.Datetime):
        zoned = pl.col(column).dt.convert_time_zone("UTC") if dtype.time_zone else pl.col(column)
        return zoned.dt.epoch("us")
    if dtype == pl.String and rules.time_format is not None:
        return _parse_format(pl.col(column).str.strip_chars(), rules.time_format)
    if dtype.is_numeric() and rules.time_format is not None:
        return _parse_format(pl.col(column).cast(pl.Int64, strict=False).cast(pl.String), rules.time_format)
    number = _parse_epoch(column, dtype, rules)
    return pl.coalesce(number, _parse_iso(column)) if dtype == pl.String else number


def _parse_epoch(column: str, dtype: pl.DataType, rules: RowRules) -> pl.Expr:
    if rules.time_unit == "iso":
        return pl.lit(None, dtype=pl.Int64)
    micros = _epoch_number(column, dtype) * _US_PER_UNIT[rules.time_unit]
    return micros.round().clip(-_FAR_US, _FAR_US).cast(pl.Int64, strict=False)


def _epoch_number(column: str, dtype: pl.DataType) -> pl.Expr:
    """Returns the number in a time column as Float64 (exact to the microsecond until 2255), null for text."""
    if dtype == pl.String:
        text = pl.col(column).str.strip_chars()
        return pl.when(text.str.contains(_NUMBER)).then(text).cast(pl.Float64, strict=False)
    return parse_number(column, dtype)


def _parse_format(text: pl.Expr, time_format: str) -> pl.Expr:
    parsed = text.str.to_datetime(time_format, time_unit="us", strict=False)
    return parsed.dt.epoch("us")


def _parse_iso(column: str) -> pl.Expr:
    """Reads `2019-10-01[ 00:00[:00[.000]]]`, T or a space between, then `Z`, ` UTC`, an offset or nothing."""
    text = (
        pl.col(column)
        .str.strip_chars()
        .str.replace(r"^(\d{4}-\d{2}-\d{2})[Tt]", "${1} ")
        .str.replace(r"^(\d{4}-\d{2}-\d{2})$", "${1} 00:00:00")
        .str.replace(r"^(.{10} \d{2}:\d{2})($|[^:\d])", "${1}:00${2}")
        .str.replace(r"\s*(Z|z|UTC|GMT)$", "+00:00")
        .str.replace(r"^(.{10} \d{2}:\d{2}:\d{2}(?:\.\d+)?)$", "${1}+00:00")
    )
    return text.str.to_datetime(
        "%Y-%m-%d %H:%M:%S%.f%#z", time_unit="us", time_zone="UTC", strict=False
    ).dt.epoch("us")


def _find_reasons(schema: pl.Schema, rules: RowRules) -> list[pl.Expr]:
    return [
        *(_text_reason(name, schema[name], missing) for name, missing in _REQUIRED),
        *(_text_reason(name, schema[name], None) for name in (c.ITEM_ID, c.CURRENCY)),
        *_time_reasons(c.OCCURRED_AT, schema[c.OCCURRED_AT], rules, is_required=True),
        *_time_reasons(c.ARRIVED_AT, schema[c.ARRIVED_AT], rules, is_required=False),
        *(_number_reason(name, schema[name]) for name in _NUMBERS),
    ]


_REQUIRED: Final = (
    (c.USER_ID, "missing_user_id"),
    (c.EVENT_ID, "missing_event_id"),
    (c.EVENT_TYPE, "missing_event_type"),
    (c.ADVERTISER_ID, "missing_advertiser"),
)


def _text_reason(column: str, dtype: pl.DataType, missing: str | None) -> pl.Expr:
    typed = pl.col(_typed(column))
    is_missing = is_blank(column, dtype)
    unread = "unknown_event_type" if column == c.EVENT_TYPE else "wrong_type"
    is_unknown = ~typed.is_in(c.EVENT_TYPES) if column == c.EVENT_TYPE else pl.lit(False)
    return (
        pl.when(is_missing)
        .then(pl.lit(missing, dtype=pl.String))
        .when(typed.is_null() | is_unknown)
        .then(pl.lit(unread))
        .when(typed.str.len_chars() > MAX_ID_CHARS)
        .then(pl.lit("field_too_long"))
    )


def is_blank(column: str, dtype: pl.DataType) -> pl.Expr:
    """Says which rows of a column hold nothing: null, blank text, NaN, or a word for nothing."""
    if dtype == pl.String:
        return pl.col(column).is_null() | pl.col(column).str.strip_chars().str.to_lowercase().is_in(_NOTHING)
    if dtype.is_float():
        return pl.col(column).is_null() | pl.col(column).is_nan()
    return pl.col(column).is_null()


def _time_reasons(column: str, dtype: pl.DataType, rules: RowRules, *, is_required: bool) -> list[pl.Expr]:
    micros = pl.col(_typed(column))
    missing = pl.when(is_blank(column, dtype)).then(pl.lit("missing_timestamp" if is_required else None))
    is_present = ~is_blank(column, dtype)
    in_range = micros.is_between(EARLIEST_US, LATEST_US)
    reads_numbers = rules.time_unit in ("auto", "iso", "s") and rules.time_format is None
    is_epoch = reads_numbers and (dtype == pl.String or dtype.is_numeric())
    as_millis = _epoch_number(column, dtype) * 1e3 if is_epoch else pl.lit(None, dtype=pl.Float64)
    is_millis = is_present & as_millis.is_between(EARLIEST_US, LATEST_US)
    return [
        missing,
        pl.when(is_millis.fill_null(False)).then(pl.lit("millisecond_epoch")),
        pl.when(is_present & micros.is_null()).then(pl.lit("bad_timestamp")),
        pl.when(is_present & ~in_range).then(pl.lit("timestamp_out_of_range")),
    ]


def _number_reason(column: str, dtype: pl.DataType) -> pl.Expr:
    typed = pl.col(_typed(column))
    is_empty = pl.col(column).str.strip_chars() == "" if dtype == pl.String else pl.lit(False)
    is_broken = pl.col(column).is_not_null() & ~is_empty & typed.is_null()
    is_fraction = (typed != typed.round()) if column == c.ORDINAL else pl.lit(False)
    return (
        pl.when(typed.is_not_null() & ~typed.is_finite())
        .then(pl.lit("not_finite_value"))
        .when(is_broken | is_fraction)
        .then(pl.lit("wrong_type"))
    )
