"""The one home of column names and of the event types (docs/conventions.md).

Tables are addressed with these constants and never with literals, so that a name is changed in one place.
"""

from typing import Final

EVENT_ID: Final = "event_id"
USER_ID: Final = "user_id"
EVENT_TYPE: Final = "event_type"
ADVERTISER_ID: Final = "advertiser_id"
ITEM_ID: Final = "item_id"
OCCURRED_AT: Final = "occurred_at"
ARRIVED_AT: Final = "arrived_at"
ORDINAL: Final = "ordinal"
VALUE: Final = "value"
CURRENCY: Final = "currency"
QUANTITY: Final = "quantity"
COUNTRY: Final = "country"
CONTEXT: Final = "context"
CONSENT: Final = "consent"

TITLE: Final = "title"
CATEGORY: Final = "category"
PRICE: Final = "price"
AVAILABILITY: Final = "availability"
EMBEDDING: Final = "embedding"

REASON: Final = "reason"
SOURCE: Final = "source"
OFFSET: Final = "offset"
RAW: Final = "raw"

POOL: Final = "pool"
LIST: Final = "list"
CUT: Final = "cut"
RANK: Final = "rank"
SCORE: Final = "score"
IS_REPEAT: Final = "is_repeat"
AS_OF: Final = "as_of"

# The canonical event types. An event type's code is its position here plus one; 0 is padding.
# Append only: a code keeps its meaning for life.
EVENT_TYPES: Final = (
    "page_visit",
    "view_category",
    "view",
    "search",
    "add_to_cart",
    "checkout",
    "signup",
    "lead",
    "custom",
)
EVENT_TYPE_CODES: Final = {name: code for code, name in enumerate(EVENT_TYPES, start=1)}
