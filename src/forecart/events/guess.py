"""A proposal for an unknown log: which column is what, what counts as a conversion, and where to cut.

Takes the path of a log and perhaps of a product feed, gives the fields of the configuration as plain values
and a sentence for every decision, to be shown to the person whose data it is. Nothing is guessed that cannot
be said.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import polars as pl

from forecart import columns as c
from forecart.errors import DataError
from forecart.events.catalogue import find_catalogue_columns
from forecart.events.guess_columns import (
    MAX_EVENT_TYPES,
    Sample,
    guess_columns,
    guess_time,
    name_columns,
    read_sample,
)
from forecart.events.readers import read_column_names, read_table
from forecart.events.schema import CATALOGUE_SCHEMA, RowRules, SourceConfig
from forecart.events.validation import EARLIEST_US, LATEST_US, parse_text, parse_time
from forecart.object_store import Place

_MEANINGS: Final[dict[str, str]] = {
    "page_visit": "page_visit pagevisit pageview page_view visit session_start",
    "view_category": "view_category viewcategory category_view view_item_list category list_view",
    "view": "view click clk pv impression_click detail detail_view product_view view_item viewcontent "
    "view_content item_view watch",
    "search": "search query search_query",
    "add_to_cart": "add_to_cart addtocart cart cart_add basket add_to_basket begin_checkout",
    "checkout": "checkout purchase buy order transaction purchased sale bought conversion payment",
    "signup": "signup sign_up register registration complete_registration subscribe",
    "lead": "lead favourite favorite fav like wishlist add_to_wishlist save bookmark contact",
    "custom": "custom remove_from_cart remove_cart other",
}
_MEANING_OF: Final = {word: meaning for meaning, words in _MEANINGS.items() for word in words.split()}
_WEIGHTS: Final = {"checkout": 1.0, "signup": 1.0, "add_to_cart": 0.5}
_MAX_ROWS: Final = 5_000_000
_ONE_ADVERTISER: Final = "all"
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True)
class Guess:
    """What was guessed, as plain values, and why, in sentences."""

    source: dict[str, Any]
    """Fields of `SourceConfig`; paths are text."""
    label: dict[str, Any]
    """`positives` (event type -> weight) and `window_days`."""
    cuts: dict[str, list[str]]
    """`validation` and `test` cut-offs, ISO 8601 in UTC, the earliest first."""
    sentences: list[str]


@dataclass
class _Facts:
    """What one pass over the log tells."""

    num_rows: int = 0
    num_ahead: int = 0
    first_us: int | None = None
    last_us: int | None = None
    event_types: dict[str, int] = field(default_factory=dict)
    is_cut_short: bool = False


def guess_config(events_path: Place, catalogue_path: Place | None = None) -> Guess:
    """Returns a proposed configuration for a log.

    Raises:
        DataError: the file cannot be read, or lacks a column for the user, the time, or what was acted on.
    """
    sample = read_sample(events_path)
    columns = guess_columns(sample)
    _check_found(sample, columns)
    sentences = [f"{canonical} is the column {name!r}" for canonical, name in columns.items()]
    unused = [name for name in sample.names if name not in columns.values()]
    if unused:
        names = ", ".join(map(repr, unused))
        sentences.append(f"not used: {names}; what matters can be named under [source.columns]")
    catalogue_columns = _guess_catalogue(catalogue_path, sample.separator, sentences)
    constants = _guess_constants(columns, catalogue_columns, sentences)
    time = guess_time(sample.column(columns[c.OCCURRED_AT]))
    sentences += _say_time(time.time_unit, time.time_format)
    source: dict[str, Any] = {
        "adapter": "files",
        "events": [str(events_path)],
        "columns": _place_price(columns, sentences),
        "constants": constants,
        "time_unit": time.time_unit,
        "separator": sample.separator,
    }
    source |= {"time_format": time.time_format} if time.time_format else {}
    if catalogue_path is not None:
        source |= {"catalogue": str(catalogue_path), "catalogue_columns": catalogue_columns}
    facts = _scan(sample, columns, RowRules(time_unit=time.time_unit, time_format=time.time_format))
    source["event_types"] = _guess_event_types(facts, sentences)
    canonical_types = set(source["event_types"].values()) or set(constants.values()) & set(c.EVENT_TYPES)
    window_days, cuts = _guess_cuts(facts, sentences)
    label = {"positives": _guess_positives(canonical_types, sentences), "window_days": window_days}
    SourceConfig.model_validate(source)
    return Guess(source, label, cuts, sentences)


def _check_found(sample: Sample, columns: dict[str, str]) -> None:
    wanted = {c.USER_ID: "who acted (such as user_id)", c.OCCURRED_AT: "when (such as timestamp)"}
    missing = [words for name, words in wanted.items() if name not in columns]
    if c.ADVERTISER_ID not in columns and c.ITEM_ID not in columns:
        missing.append("on what (such as advertiser_id, brand or product_id)")
    if missing:
        raise DataError(
            f"a log must say {' and '.join(missing)}; {sample.path.name} has the columns "
            f"{', '.join(sample.names)}; rename a column, or write a configuration with `columns`"
        )


def _guess_catalogue(path: Place | None, separator: str, sentences: list[str]) -> dict[str, str]:
    """Returns canonical -> the feed's name of every column of the catalogue that can be told."""
    if path is None:
        return {}
    names = read_column_names(path, separator=separator)
    known = find_catalogue_columns(names, {})
    found = known | {name: column for name, column in name_columns(names).items() if name not in known}
    found = {name: column for name, column in found.items() if name in CATALOGUE_SCHEMA}
    missing = [name for name in (c.ITEM_ID, c.ADVERTISER_ID) if name not in found]
    if missing:
        raise DataError(
            f"a catalogue must name {' and '.join(missing)} of each product; {path.name} has the columns "
            f"{', '.join(names)}: rename a column, or leave the catalogue out"
        )
    pairs = ", ".join(f"{name} is {column!r}" for name, column in found.items())
    sentences.append(f"in the catalogue {pairs}")
    return found


def _guess_constants(
    columns: dict[str, str], catalogue_columns: dict[str, str], sentences: list[str]
) -> dict[str, str]:
    constants = {}
    if c.EVENT_TYPE not in columns:
        constants[c.EVENT_TYPE] = "checkout"
        sentences.append("NO COLUMN SAYS WHAT KIND OF EVENT A ROW IS: every row is taken as a checkout")
    if c.ADVERTISER_ID in columns:
        return constants
    if catalogue_columns:
        name = catalogue_columns[c.ADVERTISER_ID]
        sentences.append(f"the advertiser of an event is its item's {name!r} in the catalogue")
        return constants
    constants[c.ADVERTISER_ID] = _ONE_ADVERTISER
    sentences.append(
        "nothing names an advertiser: all rows are put under one, so that only the next product is worth "
        "predicting"
    )
    return constants


def _say_time(unit: str, pattern: str | None) -> list[str]:
    if pattern is not None:
        return [
            f"times are read by the pattern {pattern}, as UTC; check that day and month are not exchanged"
        ]
    words = {"auto": "as ISO 8601 or as seconds since 1970", "ms": "as milliseconds since 1970"}
    words |= {"us": "as microseconds since 1970", "ns": "as nanoseconds since 1970"}
    return [f"times are read {words[unit]}; without a zone they are UTC"]


def _place_price(columns: dict[str, str], sentences: list[str]) -> dict[str, str]:
    """Takes a price as the value of the event where nothing else is, and a row is one piece."""
    if c.PRICE not in columns or c.VALUE in columns or c.QUANTITY in columns:
        return columns
    sentences.append(f"the value of an event is {columns[c.PRICE]!r}, as there is no quantity and no total")
    return columns | {c.VALUE: columns[c.PRICE]}


def _scan(sample: Sample, columns: dict[str, str], rules: RowRules) -> _Facts:
    """Reads the time and the type of the log's rows, up to five million."""
    wanted: dict[str, str] = {
        name: columns[name] for name in (c.OCCURRED_AT, c.EVENT_TYPE) if name in columns
    }
    facts = _Facts()
    for chunk in read_table(sample.path, wanted, separator=sample.separator):
        _note_times(facts, chunk, rules)
        if c.EVENT_TYPE in wanted:
            types = (
                chunk.select(parse_text(c.EVENT_TYPE, chunk.schema[c.EVENT_TYPE])).to_series().drop_nulls()
            )
            for name, count in types.value_counts(sort=True).iter_rows():
                facts.event_types[name] = facts.event_types.get(name, 0) + count
        facts.num_rows += chunk.height
        if facts.num_rows >= _MAX_ROWS:
            facts.is_cut_short = True
            break
    return facts


def _note_times(facts: _Facts, chunk: pl.DataFrame, rules: RowRules) -> None:
    micros = chunk.select(parse_time(c.OCCURRED_AT, chunk.schema[c.OCCURRED_AT], rules)).to_series()
    plausible = micros.filter(micros.is_between(EARLIEST_US, LATEST_US))
    # One typing error in a year must not move the cuts to where there is nothing.
    tomorrow_us = round((datetime.now(UTC) + _DAY).timestamp() * 1e6)
    facts.num_ahead += int((plausible > tomorrow_us).sum())
    plausible = plausible.filter(plausible <= tomorrow_us)
    if plausible.len():
        first, last = cast(int, plausible.min()), cast(int, plausible.max())
        facts.first_us = first if facts.first_us is None else min(first, facts.first_us)
        facts.last_us = last if facts.last_us is None else max(last, facts.last_us)


def _guess_event_types(facts: _Facts, sentences: list[str]) -> dict[str, str]:
    mapping = {}
    # Broken rows hold anything; what is rare among the most frequent is still worth a name.
    frequent = sorted(facts.event_types, key=lambda name: (-facts.event_types[name], name))[:MAX_EVENT_TYPES]
    for name in frequent:
        plain = name.strip().lower().replace(" ", "_").replace("-", "_")
        mapping[name] = _MEANING_OF.get(plain, "custom")
    if mapping:
        pairs = ", ".join(f"{name!r} is {meaning}" for name, meaning in mapping.items())
        sentences.append(f"event types: {pairs}")
    return mapping


def _guess_positives(types: set[str], sentences: list[str]) -> dict[str, float]:
    positives = {name: weight for name, weight in _WEIGHTS.items() if name in types}
    if not positives:
        fallback = next((name for name in ("lead", "view", "custom") if name in types), None)
        positives = {name: 1.0 for name in ([fallback] if fallback else sorted(types))}
    shown = ", ".join(f"{name} (weight {weight})" for name, weight in positives.items())
    sentences.append(f"a conversion is: {shown}")
    return positives


def _guess_cuts(facts: _Facts, sentences: list[str]) -> tuple[int, dict[str, list[str]]]:
    """Places the last windows of the log as test, the one before them as validation."""
    if facts.first_us is None or facts.last_us is None:
        raise DataError("a log must hold times between 1980 and today, none of the rows read has one")
    if facts.num_ahead:
        sentences.append(f"{facts.num_ahead:,} rows lie in the future: the cuts are placed without them")
    first = datetime.fromtimestamp(facts.first_us / 1e6, UTC)
    end = _floor_day(datetime.fromtimestamp(facts.last_us / 1e6, UTC)) + _DAY
    num_days = (end - _floor_day(first)).days
    if num_days < 4:
        raise DataError(f"a log must span 4 days to be cut into past and future, this one spans {num_days}")
    window_days = 7 if num_days >= 28 else max(1, num_days // 4)
    num_tests = 4 if num_days >= 12 * window_days else 1
    window = timedelta(days=window_days)
    tests = [end - window * number for number in range(num_tests, 0, -1)]
    cuts = {"validation": [_show(tests[0] - window)], "test": [_show(cut) for cut in tests]}
    known = " (by its first five million rows)" if facts.is_cut_short else ""
    last = end - _DAY
    sentences.append(
        f"the log runs from {first:%Y-%m-%d} to {last:%Y-%m-%d}{known}: a label window of {window_days} "
        f"days, tested on the last {num_tests}, configured on the one before"
    )
    return window_days, cuts


def _floor_day(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _show(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
