"""What the columns of an unknown log mean, judged by their names and by what they hold.

A name is only a proposal: a time column must parse, an event id must be unique, an event type must have few
values. What is proposed is always said, because a wrong guess that is silent costs a stranger a day.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from forecart import columns as c
from forecart.errors import DataError
from forecart.events.lines import read_line_blocks
from forecart.events.readers import find_kind, read_column_names, read_table
from forecart.events.schema import DEFECT, RowRules, TimeUnit
from forecart.events.validation import COUNTRY, EARLIEST_US, LATEST_US, is_blank, parse_time
from forecart.object_store import Place

_NAMES: Final[dict[str, str]] = {
    c.EVENT_ID: "event_id eventid uuid message_id insert_id row_id",
    c.USER_ID: "user_id userid user uid customer_id customerid customer client_id clientid "
    "visitor_id visitorid household_id member_id account_id shopper_id buyer_id "
    "person_id profile_id anonymous_id cookie_id device_id shopper visitor member household",
    c.EVENT_TYPE: "event_type eventtype event event_name action action_type behavior behavior_type "
    "behaviour activity interaction type",
    c.ADVERTISER_ID: "advertiser_id advertiser brand_id brand merchant_id merchant seller_id seller "
    "vendor_id vendor manufacturer_id manufacturer shop_id shop retailer_id retailer "
    "store",
    c.ITEM_ID: "item_id itemid item product_id productid product sku asin article_id stock_code "
    "stockcode content_id product_code item_code",
    c.OCCURRED_AT: "occurred_at timestamp event_time event_timestamp event_date datetime date_time "
    "time ts date created_at order_date purchase_date invoice_date invoicedate "
    "transaction_timestamp transaction_date unix_time",
    c.ARRIVED_AT: "arrived_at received_at ingested_at server_time processed_at",
    c.VALUE: "value total total_price amount revenue sales_value sales order_value",
    c.QUANTITY: "quantity qty units count",
    c.CURRENCY: "currency currency_code",
    c.COUNTRY: "country country_code geo_country user_country",
    c.CONSENT: "consent has_consent ad_consent ads_consent gdpr_consent marketing_consent opt_in",
    c.TITLE: "title product_name item_name name product_title description",
    c.CATEGORY: "category category_code category_name product_category category_path department",
    c.PRICE: "price unit_price unitprice list_price",
}
_SAMPLE_ROWS: Final = 50_000
_FORMATS: Final = tuple(
    f"{date}{time}"
    for date in ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%Y/%m/%d", "%Y%m%d")
    for time in ("", " %H:%M", " %H:%M:%S")
)
MAX_EVENT_TYPES: Final = 60


@dataclass(frozen=True)
class Sample:
    """The first rows of a file, its columns by position (`names[i]` is called `column_i` in the frame)."""

    path: Place
    names: list[str]
    frame: pl.DataFrame
    separator: str

    def column(self, name: str) -> pl.Series:
        """Returns the sampled values of a column, by its name in the file."""
        return self.frame[f"column_{self.names.index(name)}"]


@dataclass(frozen=True)
class TimeGuess:
    """How a column's times are read."""

    time_unit: TimeUnit
    time_format: str | None
    share: float


def read_sample(path: Place) -> Sample:
    """Returns the first rows of a file of any kind.

    Raises:
        DataError: the file cannot be read, or holds no whole row.
    """
    separator = _guess_separator(path)
    names = read_column_names(path, separator=separator)
    columns = {f"column_{number}": name for number, name in enumerate(names)}
    chunk = next(read_table(path, columns, separator=separator), None)
    if chunk is not None and DEFECT in chunk.columns:
        chunk = chunk.filter(pl.col(DEFECT).is_null())
    if chunk is None or chunk.is_empty():
        raise DataError(f"a log must hold rows to guess from, {path} holds none that can be read")
    return Sample(path, names, chunk.select(*columns).head(_SAMPLE_ROWS), separator)


def _guess_separator(path: Place) -> str:
    if find_kind(path) != "csv":
        return ","
    first = next(read_line_blocks(path), b"").split(b"\n", 1)[0].decode("utf-8", "replace")
    return max(",;\t|", key=first.count)


def guess_columns(sample: Sample) -> dict[str, str]:
    """Returns canonical -> the file's name for every column that can be told."""
    found = name_columns(sample.names, accepts=lambda canonical, name: _holds(canonical, sample.column(name)))
    if c.OCCURRED_AT not in found:
        found |= _find_by_content(sample, found)
    return found


def name_columns(
    names: Sequence[str], *, accepts: Callable[[str, str], bool] = lambda canonical, name: True
) -> dict[str, str]:
    """Returns canonical -> the file's name: by names alone, unless `accepts(canonical, name)` says no."""
    found: dict[str, str] = {}
    for canonical, wanted in _NAMES.items():
        for name in _find_named(names, wanted.split()):
            if name not in found.values() and accepts(canonical, name):
                found[canonical] = name
                break
    return found


def _find_named(available: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Returns the columns with one of the wanted names, in the order of `wanted`."""
    plain = {_plain(name): name for name in reversed(available)}
    return [plain[name] for name in wanted if name in plain]


def _plain(name: str) -> str:
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^a-z0-9]+", "_", snake.lower()).strip("_")


def _holds(canonical: str, values: pl.Series) -> bool:
    """Says whether a column's values can be what its name suggests."""
    if canonical in (c.OCCURRED_AT, c.ARRIVED_AT):
        return guess_time(values).share > 0.9
    if canonical == c.EVENT_ID:
        return values.null_count() == 0 and values.n_unique() > 0.95 * len(values)
    if canonical == c.EVENT_TYPE:
        return values.n_unique() <= MAX_EVENT_TYPES
    if canonical == c.COUNTRY:  # a name in words would be read as none
        given = values.to_frame("v").filter(~is_blank("v", values.dtype))["v"].cast(pl.String, strict=False)
        share = given.str.contains(COUNTRY).mean()
        return isinstance(share, float) and share > 0.9
    return not values.to_frame("v").select(is_blank("v", values.dtype).all()).item()


def _find_by_content(sample: Sample, found: dict[str, str]) -> dict[str, str]:
    for name in sample.names:
        values = sample.column(name)
        # A number can always be a time by accident; text and dates cannot.
        if name not in found.values() and not values.dtype.is_numeric():
            is_number = values.cast(pl.String, strict=False).str.contains(r"^[\d.]+$").mean()
            if guess_time(values).share > 0.95 and isinstance(is_number, float) and is_number < 0.05:
                return {c.OCCURRED_AT: name}
    return {}


def guess_time(values: pl.Series) -> TimeGuess:
    """Returns the reading of a time column by which most values are plausible times."""
    guesses = [_try_time(values, unit, None) for unit in _units(values.dtype)]
    if values.dtype == pl.String or values.dtype.is_integer():
        guesses += [_try_time(values, "auto", pattern) for pattern in _FORMATS]
    return max(guesses, key=lambda guess: guess.share)


def _units(dtype: pl.DataType) -> tuple[TimeUnit, ...]:
    is_text_or_number = dtype == pl.String or dtype.is_numeric()
    return ("auto", "ms", "us", "ns") if is_text_or_number else ("auto",)


def _try_time(values: pl.Series, unit: TimeUnit, pattern: str | None) -> TimeGuess:
    rules = RowRules(time_unit=unit, time_format=pattern)
    frame = values.alias("v").to_frame()
    micros = frame.select(parse_time("v", values.dtype, rules)).to_series()
    is_plausible = micros.is_between(EARLIEST_US, LATEST_US).fill_null(False)
    is_present = frame.select(~is_blank("v", values.dtype)).to_series()
    return TimeGuess(unit, pattern, int(is_plausible.sum()) / max(int(is_present.sum()), 1))
