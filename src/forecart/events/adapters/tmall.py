"""Tmall 2014 (Alibaba's brand recommendation log): user_id, brand_id, event_type, date, row; brand =
advertiser.

A click is a view, a purchase a checkout, a favourite a lead, a cart an add_to_cart. Days are the only times
there are, so equal rows are many and real: `row` is the event's id and breaks the ties. There are no items
and there is no catalogue.
"""

from functools import partial
from typing import Final

from forecart import columns as c
from forecart.events.readers import read_table
from forecart.events.schema import RowRules, Source, SourceConfig

_COLUMNS: Final = {
    c.USER_ID: "user_id",
    c.ADVERTISER_ID: "brand_id",
    c.EVENT_TYPE: "event_type",
    c.OCCURRED_AT: "date",
    c.EVENT_ID: "row",
    c.ORDINAL: "row",
}
_EVENT_TYPES: Final = {
    "click": "view",
    "purchase": "checkout",
    "favourite": "lead",
    "cart": "add_to_cart",
}


def open_tmall(config: SourceConfig) -> Source:
    """Opens the log: one or more files with the columns above."""
    blocks = [partial(read_table, path, _COLUMNS, separator=config.separator) for path in config.events]
    return Source.of_blocks(blocks, rules=RowRules(event_types=_EVENT_TYPES))
