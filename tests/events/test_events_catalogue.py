"""Product feeds: Google Merchant names, prices as people write them, bad rows set apart."""

from pathlib import Path

import polars as pl
import pytest
from small_logs import ingest, read_quarantine, read_store, write_lines

from forecart.errors import DataError
from forecart.events.catalogue import parse_price
from forecart.events.schema import CATALOGUE_SCHEMA

EVENTS = [b"event_id,user_id,event_type,item_id,occurred_at"] + [
    b"e%d,u%d,view,i%d,2024-01-01" % (n, n, n % 3) for n in range(9)
]
FEED = [
    b"id,title,brand,google_product_category,price,availability",
    b'i2,"Lamp, red",Lumo,Home >Lighting> Lamps,"1,299.00 USD",in stock',
    b"i0,Chair,Sedia,Home > Chairs,12.99 USD,out of stock",
    b"i1,,Sedia,,,",
    b"i0,Chair again,Sedia,Home > Chairs,13.99 USD,in stock",
]


def _ingest(tmp_path: Path, feed: list[bytes], **settings: object) -> dict[str, object]:
    events = write_lines(tmp_path / "events.csv", EVENTS)
    source = {"catalogue": write_lines(tmp_path / "feed.csv", feed)}
    return ingest(events, tmp_path / "events", source=source, **settings)


def test_merchant_feed(tmp_path: Path) -> None:
    facts = _ingest(tmp_path, FEED)
    frame = pl.read_parquet(tmp_path / "events" / "catalogue.parquet")
    assert dict(frame.schema) == CATALOGUE_SCHEMA
    assert frame.rows() == [
        ("i0", "Sedia", "Chair", "Home > Chairs", 12.99, "out of stock", None),
        ("i1", "Sedia", None, None, None, None, None),
        ("i2", "Lumo", "Lamp, red", "Home > Lighting > Lamps", 1299.0, "in stock", None),
    ]
    assert facts["catalogue"] == {
        "rows_read": 4,
        "accepted": 3,
        "duplicates": 1,
        "filtered": {},
        "rejected": {},
    }
    # The events name no advertiser: it is that of their item.
    owners = dict(read_store(tmp_path / "events").select("item_id", "advertiser_id").unique().iter_rows())
    assert owners == {"i0": "Sedia", "i1": "Sedia", "i2": "Lumo"}


def test_bad_feed_rows_are_quarantined(tmp_path: Path) -> None:
    bad = [
        (b",Nameless,Sedia,,1 USD,", "missing_item_id"),
        (b"i8,Nobody's,,,1 USD,", "missing_advertiser"),
        (b"i8,Free lunch,Sedia,,free,", "wrong_type"),
        (b"i8,Debt,Sedia,,-4.00 USD,", "negative_price"),
        (b"i8,Void,Sedia,,NaN,", "not_finite_value"),
        (b"i8,Short,Sedia", "wrong_number_of_columns"),
        (b"i8," + b"t" * 9000 + b",Sedia,,1 USD,", "field_too_long"),
    ]
    _ingest(tmp_path, [*FEED, *(line for line, _ in bad)], max_rejected_share=0.9)
    found = read_quarantine(tmp_path / "events").select("offset", "reason").rows()
    assert found == [(4 + number, reason) for number, (_, reason) in enumerate(bad)]
    with pytest.raises(DataError, match="of the catalogue rows may be rejected"):
        _ingest(tmp_path, [*FEED, bad[0][0]])


def test_embeddings_from_json_text_and_parquet(tmp_path: Path) -> None:
    records = [
        b'{"item_id": "i0", "advertiser_id": "a", "embedding": [1.0, 0.5]}',
        b'{"item_id": "i1", "advertiser_id": "a", "embedding": [0, 2]}',
        b'{"item_id": "i2", "advertiser_id": "a"}',
        b'{"item_id": "i3", "advertiser_id": "a", "embedding": [1, 2, 3]}',
        b'{"item_id": "i4", "advertiser_id": "a", "embedding": [1, "x"]}',
    ]
    events = write_lines(tmp_path / "events.csv", EVENTS)
    feed = write_lines(tmp_path / "feed.jsonl", records)
    ingest(events, tmp_path / "a", source={"catalogue": feed}, max_rejected_share=0.5)
    frame = pl.read_parquet(tmp_path / "a" / "catalogue.parquet")
    assert frame["embedding"].to_list() == [[1.0, 0.5], [0.0, 2.0], None]
    reasons = dict(read_quarantine(tmp_path / "a").select("offset", "reason").iter_rows())
    assert reasons == {3: "embedding_width", 4: "not_finite_value"}
    frame.with_columns(pl.col("embedding").cast(pl.List(pl.Float64))).write_parquet(tmp_path / "feed.parquet")
    ingest(events, tmp_path / "b", source={"catalogue": tmp_path / "feed.parquet"})
    assert pl.read_parquet(tmp_path / "b" / "catalogue.parquet").equals(frame)


def test_catalogue_is_drawn_from_a_log_that_describes_its_items(tmp_path: Path) -> None:
    lines = [
        b"user_id,event_type,advertiser_id,item_id,occurred_at,title,price",
        b"u,view,a,i1,2024-01-02,New name,7",
        b"u,view,a,i1,2024-01-01,Old name,5",
        b"u,view,a,,2024-01-01,No item,5",
        b"v,view,b,i0,2024-01-03,Other,",
    ]
    ingest(write_lines(tmp_path / "log.csv", lines), tmp_path / "events")
    frame = pl.read_parquet(tmp_path / "events" / "catalogue.parquet")
    assert frame.select("item_id", "advertiser_id", "title", "price").rows() == [
        ("i0", "b", "Other", None),
        ("i1", "a", "Old name", 5.0),
    ]


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("12.99 USD", 12.99),
        ("USD 12.99", 12.99),
        ("$1,299.00", 1299.0),
        ("1.299,00 €", 1299.0),
        ("12,5", 12.5),
        ("1,299", 1299.0),
        ("1 299,50 EUR", 1299.5),
        ("-3", -3.0),
        ("twelve", None),
        ("12.99 or less", None),
        ("1.2.3", None),
    ],
)
def test_prices_as_people_write_them(text: str, price: float | None) -> None:
    frame = pl.DataFrame({"price": [text]})
    assert frame.select(parse_price("price", frame.schema["price"])).item() == price
