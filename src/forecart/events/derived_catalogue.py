"""A catalogue drawn from the log itself, for logs whose rows describe their items.

Each item is described by the first row (by time) that names it, so that what is logged later cannot change
what an item is. This is a static catalogue like any other: it says that an item exists and what it is, not
when or how often it was touched. Memory grows with the number of items, not of rows.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import polars as pl

from forecart import columns as c
from forecart.events.catalogue import parse_price
from forecart.events.schema import DEFECT, RowRules
from forecart.events.validation import parse_text, parse_time

_TEXTS: Final = (c.ITEM_ID, c.ADVERTISER_ID, c.TITLE, c.CATEGORY)
_DESCRIPTION: Final = (*_TEXTS, c.PRICE)


def derive_catalogue(chunks: Iterable[pl.DataFrame], *, rules: RowRules) -> Iterator[pl.DataFrame]:
    """Yields one raw catalogue chunk: a row for every item that has an advertiser, sorted by item.

    Rows without an item, an advertiser or a time describe nothing. Ties in time go to the smallest
    description, so that the order of the log does not matter.
    """
    earliest: pl.DataFrame | None = None
    for chunk in chunks:
        described = _describe(chunk, rules)
        earliest = _keep_earliest(described if earliest is None else pl.concat([earliest, described]))
    if earliest is not None:
        offset = pl.int_range(pl.len(), dtype=pl.Int64).alias(c.OFFSET)
        yield earliest.select(*_DESCRIPTION, offset, pl.lit("derived from the log").alias(c.SOURCE))


def _describe(chunk: pl.DataFrame, rules: RowRules) -> pl.DataFrame:
    absent = [name for name in (*_DESCRIPTION, DEFECT) if name not in chunk.columns]
    raw = chunk.with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in absent)
    raw = raw.filter(pl.col(DEFECT).is_null())
    price = parse_price(c.PRICE, raw.schema[c.PRICE])
    described = raw.select(
        *(parse_text(name, raw.schema[name]).alias(name) for name in _TEXTS),
        pl.when(price.is_finite() & (price >= 0)).then(price).alias(c.PRICE),
        parse_time(c.OCCURRED_AT, raw.schema[c.OCCURRED_AT], rules).alias(c.OCCURRED_AT),
    )
    return described.drop_nulls([c.ITEM_ID, c.ADVERTISER_ID, c.OCCURRED_AT])


def _keep_earliest(described: pl.DataFrame) -> pl.DataFrame:
    ordered = described.sort(c.ITEM_ID, c.OCCURRED_AT, *_DESCRIPTION[1:], nulls_last=True)
    return ordered.unique(c.ITEM_ID, keep="first", maintain_order=True)
