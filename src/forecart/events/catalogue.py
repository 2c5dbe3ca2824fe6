"""A product feed as the catalogue: unique items with advertiser, title, category path, price and content
vector.

Google Merchant names are understood as they are (id, title, brand, google_product_category or product_type,
price "12.99 USD", availability). A bad row goes to quarantine like a bad event; of rows with one id the
first is kept. The catalogue is static by declaration: it describes items, and says nothing about who did
what when.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import polars as pl

from forecart import columns as c
from forecart.events.quarantine import Counts, count_reasons, to_quarantine
from forecart.events.schema import CATALOGUE_SCHEMA, DEFECT, QUARANTINE_SCHEMA
from forecart.events.validation import MAX_ID_CHARS, is_blank, parse_text

_FEED_NAMES: Final[dict[str, tuple[str, ...]]] = {
    c.ITEM_ID: ("item_id", "id", "g:id", "product_id", "sku"),
    c.ADVERTISER_ID: ("advertiser_id", "brand", "g:brand", "brand_id", "vendor", "seller_id", "manufacturer"),
    c.TITLE: ("title", "g:title", "name", "product_name"),
    c.CATEGORY: (
        "category",
        "google_product_category",
        "g:google_product_category",
        "product_type",
        "g:product_type",
    ),
    c.PRICE: ("price", "g:price"),
    c.AVAILABILITY: ("availability", "g:availability"),
    c.EMBEDDING: ("embedding", "vector"),
}
_MAX_TEXT_CHARS: Final = 8192


@dataclass(frozen=True)
class Catalogue:
    """A feed once read: the table, its rejected rows as quarantine rows, and counts that add up."""

    frame: pl.DataFrame
    rejected: pl.DataFrame
    counts: Counts

    @classmethod
    def empty(cls) -> Self:
        """Returns the catalogue of a source without a feed."""
        return cls(pl.DataFrame(schema=CATALOGUE_SCHEMA), pl.DataFrame(schema=QUARANTINE_SCHEMA), Counts())


def find_catalogue_columns(available: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Returns canonical -> feed name: what `columns` says, else the first known name that the feed has."""
    lower = {name.lower().replace(" ", "_"): name for name in reversed(available)}
    known = {
        canonical: next((lower[name] for name in names if name in lower), None)
        for canonical, names in _FEED_NAMES.items()
    }
    return {name: source for name, source in known.items() if source is not None} | dict(columns)


def read_catalogue(chunks: Iterator[pl.DataFrame]) -> Catalogue:
    """Returns the catalogue of a feed; no chunks give an empty one."""
    good, rejected, rows_read = (
        [pl.DataFrame(schema=_TRACED_SCHEMA)],
        [pl.DataFrame(schema=QUARANTINE_SCHEMA)],
        0,
    )
    for chunk in chunks:
        rows_read += chunk.height
        accepted, refused = validate_catalogue(chunk)
        good.append(accepted)
        rejected.append(refused)
    frame, misfits = _split_widths(pl.concat(good))
    refused = pl.concat([*rejected, misfits])
    unique = frame.unique(c.ITEM_ID, keep="first", maintain_order=True).select(*CATALOGUE_SCHEMA)
    counts = Counts(
        rows_read=rows_read,
        accepted=unique.height,
        duplicates=frame.height - unique.height,
        rejected=Counter(count_reasons(refused)),
    )
    return Catalogue(unique.sort(c.ITEM_ID).rechunk(), refused, counts)


_TRACED_SCHEMA: Final = CATALOGUE_SCHEMA | {c.SOURCE: pl.String(), c.OFFSET: pl.Int64()}


def validate_catalogue(chunk: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Splits raw feed rows into typed ones (with source and offset) and quarantine rows."""
    absent = [
        pl.lit(None, dtype=pl.String).alias(n) for n in (*CATALOGUE_SCHEMA, DEFECT) if n not in chunk.columns
    ]
    raw = chunk.with_columns(absent)
    typed = raw.with_columns(
        expression.alias(f"typed_{name}") for name, expression in _parse(raw.schema).items()
    )
    reason = typed.select(pl.coalesce(_find_reasons(raw.schema)).alias(c.REASON)).to_series()
    columns = (pl.col(f"typed_{name}").cast(dtype).alias(name) for name, dtype in CATALOGUE_SCHEMA.items())
    good = typed.filter(reason.is_null()).select(*columns, c.SOURCE, pl.col(c.OFFSET).cast(pl.Int64))
    return good, to_quarantine(chunk.with_columns(reason).filter(reason.is_not_null()))


def _parse(schema: pl.Schema) -> dict[str, pl.Expr]:
    texts = (c.ITEM_ID, c.ADVERTISER_ID, c.TITLE, c.CATEGORY, c.AVAILABILITY)
    parsed = {name: parse_text(name, schema[name]) for name in texts}
    parsed[c.CATEGORY] = parsed[c.CATEGORY].str.replace_all(r"\s*>\s*", " > ")
    parsed[c.PRICE] = parse_price(c.PRICE, schema[c.PRICE])
    parsed[c.EMBEDDING] = _parse_embedding(schema[c.EMBEDDING])
    return parsed


def parse_price(column: str, dtype: pl.DataType) -> pl.Expr:
    """Returns a price as Float64 from `12.99`, `12.99 USD`, `$1,299.00` or `12,99 EUR`; else null."""
    if dtype != pl.String:
        return pl.col(column).cast(pl.Float64) if dtype.is_numeric() else pl.lit(None, dtype=pl.Float64)
    text = pl.col(column).str.strip_chars()
    word = text.str.to_lowercase().is_in(["nan", "inf", "-inf", "infinity", "-infinity"])
    shape = r"^(?:[A-Za-z]{3}|\p{Sc})?\s*(-?\d[\d.,\s]*?)\s*(?:[A-Za-z]{3}|\p{Sc})?$"
    digits = text.str.extract(shape).str.replace_all(r"\s", "")
    is_comma_decimal = digits.str.contains(r",\d{1,2}$")
    as_comma = digits.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    as_point = digits.str.replace_all(",", "", literal=True)
    number = pl.when(is_comma_decimal).then(as_comma).otherwise(as_point).cast(pl.Float64, strict=False)
    return pl.when(word).then(pl.lit(float("nan"))).otherwise(number)


def _parse_embedding(dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.String:
        inner = pl.col(c.EMBEDDING).str.strip_chars().str.strip_chars("[]")
        parts = inner.str.split(",").list.eval(pl.element().str.strip_chars().cast(pl.Float32, strict=False))
        return pl.when(inner != "").then(parts)
    if isinstance(dtype, pl.List | pl.Array):
        return pl.col(c.EMBEDDING).cast(pl.List(pl.Float32), strict=False)
    return pl.lit(None, dtype=pl.List(pl.Float32))


def _find_reasons(schema: pl.Schema) -> list[pl.Expr]:
    numbers = pl.col(f"typed_{c.EMBEDDING}").list
    has_hole = numbers.eval(pl.element().is_null() | ~pl.element().is_finite()).list.any()
    price = pl.col(f"typed_{c.PRICE}")
    has_price = ~is_blank(c.PRICE, schema[c.PRICE]) | (
        pl.col(c.PRICE).cast(pl.String).str.to_lowercase().str.strip_chars() == "nan"
    )
    return [
        pl.col(DEFECT).cast(pl.String),
        *_required(c.ITEM_ID, "missing_item_id", schema),
        *_required(c.ADVERTISER_ID, "missing_advertiser", schema),
        *(
            pl.when(pl.col(f"typed_{name}").str.len_chars() > _MAX_TEXT_CHARS).then(pl.lit("field_too_long"))
            for name in (c.TITLE, c.CATEGORY, c.AVAILABILITY)
        ),
        pl.when(price.is_not_null() & ~price.is_finite()).then(pl.lit("not_finite_value")),
        pl.when(has_price & price.is_null()).then(pl.lit("wrong_type")),
        pl.when(price < 0).then(pl.lit("negative_price")),
        pl.when(has_hole).then(pl.lit("not_finite_value")),
    ]


def _required(column: str, missing: str, schema: pl.Schema) -> list[pl.Expr]:
    typed = pl.col(f"typed_{column}")
    return [
        pl.when(is_blank(column, schema[column])).then(pl.lit(missing)),
        pl.when(typed.is_null()).then(pl.lit("wrong_type")),
        pl.when(typed.str.len_chars() > MAX_ID_CHARS).then(pl.lit("field_too_long")),
    ]


def _split_widths(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sets apart the rows whose content vector is not as wide as most are."""
    width = frame[c.EMBEDDING].list.len()
    if width.drop_nulls().n_unique() < 2:
        return frame, pl.DataFrame(schema=QUARANTINE_SCHEMA)
    usual = width.drop_nulls().mode().sort()[-1]
    is_misfit = (width != usual).fill_null(False)
    shown = pl.format("an embedding of width {}, most have {}", pl.col(c.EMBEDDING).list.len(), pl.lit(usual))
    misfits = frame.filter(is_misfit).select(
        c.SOURCE, c.OFFSET, pl.lit("embedding_width").alias(c.REASON), shown.alias(c.RAW)
    )
    return frame.filter(~is_misfit), misfits


def fill_advertisers(events: pl.DataFrame, catalogue: pl.DataFrame) -> pl.DataFrame:
    """Returns raw event rows with a missing advertiser taken from the catalogue's row of their item."""
    if catalogue.is_empty() or c.ITEM_ID not in events.columns:
        return events
    own = pl.lit(None, dtype=pl.String)
    if c.ADVERTISER_ID in events.columns:
        dtype = events.schema[c.ADVERTISER_ID]
        if not events.select(is_blank(c.ADVERTISER_ID, dtype).any()).item():
            return events
        if not (dtype == pl.String or dtype.is_integer()):
            return events
        own = parse_text(c.ADVERTISER_ID, dtype)
    key, found = "item_text", "advertiser_of_item"
    owners = catalogue.select(pl.col(c.ITEM_ID).alias(key), pl.col(c.ADVERTISER_ID).alias(found))
    items = parse_text(c.ITEM_ID, events.schema[c.ITEM_ID]).alias(key)
    joined = events.with_columns(items).join(owners, on=key, how="left", maintain_order="left")
    return joined.with_columns(pl.coalesce(own, found).alias(c.ADVERTISER_ID)).drop(key, found)
