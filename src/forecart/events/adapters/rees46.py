"""REES46 shop logs: event_time, event_type, product_id, category_id, category_code, brand, price, user_id,
user_session.

Brand = advertiser, product = item; view, cart, remove_from_cart and purchase. The log has no event id: file
and row stand in for it. Rows without a brand (about one in seven) are filtered as `without_brand` rather
than put under a made-up advertiser that would be the largest of all. The catalogue is drawn from the log: a
product's first brand, category and price.
"""

from collections.abc import Iterator
from functools import partial
from typing import Final

import polars as pl

from forecart import columns as c
from forecart.events.adapters.files import add_row_ids
from forecart.events.derived_catalogue import derive_catalogue
from forecart.events.readers import read_table
from forecart.events.schema import FILTERED, RowRules, Source, SourceConfig
from forecart.events.validation import is_blank

_COLUMNS: Final = {
    c.USER_ID: "user_id",
    c.ADVERTISER_ID: "brand",
    c.ITEM_ID: "product_id",
    c.EVENT_TYPE: "event_type",
    c.OCCURRED_AT: "event_time",
    c.VALUE: "price",
}
_CATALOGUE_COLUMNS: Final = {
    c.ITEM_ID: "product_id",
    c.ADVERTISER_ID: "brand",
    c.CATEGORY: "category_code",
    c.PRICE: "price",
    c.OCCURRED_AT: "event_time",
}
_RULES: Final = RowRules(
    event_types={
        "view": "view",
        "cart": "add_to_cart",
        "remove_from_cart": "custom",
        "purchase": "checkout",
    }
)


def open_rees46(config: SourceConfig) -> Source:
    """Opens the log: its monthly files, in order, as CSV(.gz) or converted to Parquet."""
    return Source.of_blocks(
        [partial(_read_file, config, number) for number in range(len(config.events))],
        catalogue=lambda: _read_catalogue(config),
        rules=_RULES,
    )


def _read_file(config: SourceConfig, number: int) -> Iterator[pl.DataFrame]:
    for chunk in read_table(config.events[number], _COLUMNS, separator=config.separator):
        without_brand = pl.when(is_blank(c.ADVERTISER_ID, chunk.schema[c.ADVERTISER_ID]))
        priced = chunk.with_columns(
            without_brand.then(pl.lit("without_brand")).alias(FILTERED),
            pl.lit("USD").alias(c.CURRENCY),
            pl.lit(1.0).alias(c.QUANTITY),
        )
        yield add_row_ids(priced, file_number=number)


def _read_catalogue(config: SourceConfig) -> Iterator[pl.DataFrame]:
    yield from derive_catalogue(_read_described(config), rules=_RULES)


def _read_described(config: SourceConfig) -> Iterator[pl.DataFrame]:
    for path in config.events:
        for chunk in read_table(path, _CATALOGUE_COLUMNS, separator=config.separator):
            # "electronics.audio.headphone" is a path from the general to the particular.
            yield chunk.with_columns(
                pl.col(c.CATEGORY).cast(pl.String).str.replace_all(".", " > ", literal=True)
            )
