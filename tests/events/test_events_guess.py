"""A stranger's file: what is proposed is what a person would have written, and it runs."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from small_logs import make_rows, to_json_lines, write_lines

from forecart.errors import DataError
from forecart.events.adapters import open_adapter
from forecart.events.guess import Guess, guess_config
from forecart.events.guess_columns import guess_columns, read_sample
from forecart.events.ingest import ingest_events
from forecart.events.schema import EventsConfig, SourceConfig

START = datetime(2024, 1, 1, tzinfo=UTC)


def _write(path: Path, header: str, rows: list[str], *, num_days: int = 100) -> Path:
    """Writes rows with `{day}` filled in, one a day."""
    lines = [header]
    for number in range(num_days):
        day = START + timedelta(days=number)
        lines.append(
            rows[number % len(rows)].format(
                iso=day.date(), dmy=f"{day:%d/%m/%Y}", ms=int(day.timestamp() * 1000)
            )
        )
    return write_lines(path, [line.encode() for line in lines])


def _runs(guess: Guess, folder: Path, num_rows: int) -> None:
    source = json.loads(json.dumps(guess.source))
    facts = ingest_events(open_adapter(SourceConfig(**source)), folder, config=EventsConfig())
    assert facts["counts"]["accepted"] == num_rows


def test_a_shop_export(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "orders.csv",
        "CustomerID;InvoiceDate;StockCode;Brand;Quantity;Revenue",
        ["17;{dmy};A1;Lumo;2;3.50", "18;{dmy};B7;Sedia;1;12.00"],
    )
    guess = guess_config(path)
    assert guess.source["columns"] == {
        "user_id": "CustomerID",
        "occurred_at": "InvoiceDate",
        "item_id": "StockCode",
        "advertiser_id": "Brand",
        "quantity": "Quantity",
        "value": "Revenue",
    }
    assert guess.source["time_format"] == "%d/%m/%Y" and guess.source["separator"] == ";"
    assert guess.source["constants"] == {"event_type": "checkout"}
    assert guess.label == {"positives": {"checkout": 1.0}, "window_days": 7}
    # 100 days from 1 January 2024 end with 9 April: the last of four weeks starts on the 3rd.
    assert guess.cuts["test"] == [f"2024-{day}T00:00:00Z" for day in ("03-13", "03-20", "03-27", "04-03")]
    assert guess.cuts["validation"] == ["2024-03-06T00:00:00Z"]
    assert any("day and month" in sentence for sentence in guess.sentences)
    _runs(guess, tmp_path / "events", 100)


def test_a_click_log_with_a_feed(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "log.csv",
        "event,visitorid,sku,ts",
        ["click,v1,i1,{ms}", "addtocart,v1,i1,{ms}", "purchase,v2,i2,{ms}", "share,v2,i2,{ms}"],
    )
    feed = write_lines(tmp_path / "feed.csv", [b"id,title,brand", b"i1,Lamp,Lumo", b"i2,Chair,Sedia"])
    guess = guess_config(path, feed)
    types = {"click": "view", "addtocart": "add_to_cart", "purchase": "checkout", "share": "custom"}
    assert guess.source["event_types"] == types
    assert guess.source["time_unit"] == "ms"
    assert set(guess.label["positives"]) == {"checkout", "add_to_cart"}
    assert guess.source["constants"] == {}
    assert guess.source["catalogue_columns"] == {"item_id": "id", "title": "title", "advertiser_id": "brand"}
    _runs(guess, tmp_path / "events", 100)


def test_a_feed_with_the_headings_of_a_log(tmp_path: Path) -> None:
    path = _write(tmp_path / "log.csv", "user,sku,date,colour", ["u1,i1,{iso},red", "u2,i2,{iso},blue"])
    rows = [b"sku,merchant,name,department,list_price", b"i1,Lumo,Lamp,Light,3", b"i2,Sedia,Chair,Seat,4"]
    guess = guess_config(path, write_lines(tmp_path / "feed.csv", rows))
    assert guess.source["catalogue_columns"] == {
        "item_id": "sku",
        "title": "name",
        "advertiser_id": "merchant",
        "category": "department",
        "price": "list_price",
    }
    assert any("not used: 'colour'" in sentence for sentence in guess.sentences)
    _runs(guess, tmp_path / "events", 100)


@pytest.mark.parametrize(
    ("names", "message"), [(b"sku,name", "advertiser_id.*sku, name"), (None, "feed.csv")]
)
def test_a_feed_that_cannot_be_one_is_refused(tmp_path: Path, names: bytes | None, message: str) -> None:
    path = _write(tmp_path / "log.csv", "user,sku,date", ["u1,i1,{iso}"])
    if names is not None:
        write_lines(tmp_path / "feed.csv", [names, b"i1,Lamp"])
    with pytest.raises(DataError, match=message):
        guess_config(path, tmp_path / "feed.csv")


def test_a_year_mistyped_does_not_move_the_cuts(tmp_path: Path) -> None:
    path = _write(tmp_path / "log.csv", "user,brand,date", ["u1,b1,{iso}", "u2,b2,{iso}"])
    expected = guess_config(path).cuts
    path.write_text(path.read_text() + "u1,b1,2091-01-01\n")
    guess = guess_config(path)
    assert guess.cuts == expected
    assert any("1 rows lie in the future" in sentence for sentence in guess.sentences)


def test_canonical_json_needs_no_explanation(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "log.jsonl.gz", to_json_lines(make_rows(400)))
    guess = guess_config(path)
    assert all(name == source for name, source in guess.source["columns"].items())
    assert {"event_id", "arrived_at", "value"} <= set(guess.source["columns"])
    _runs(guess, tmp_path / "events", 400)


def test_items_without_any_advertiser_and_a_nameless_time(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "log.csv", "user,product,bought on,price", ["u1,p1,{iso},3", "u2,p2,{iso},4"], num_days=20
    )
    guess = guess_config(path)
    assert guess.source["columns"]["occurred_at"] == "bought on"
    assert guess.source["constants"]["advertiser_id"] == "all"
    assert guess.source["columns"]["value"] == "price"
    assert guess.label["window_days"] == 5 and len(guess.cuts["test"]) == 1
    assert any("next product" in sentence for sentence in guess.sentences)
    _runs(guess, tmp_path / "events", 20)


def test_views_only_are_what_is_predicted(tmp_path: Path) -> None:
    path = _write(tmp_path / "log.csv", "user_id,brand,action,date", ["u1,b,pv,{iso}"])
    assert guess_config(path).label["positives"] == {"view": 1.0}


@pytest.mark.parametrize(
    ("header", "row", "days", "message"),
    [
        ("x,date,brand", "1,{iso},b", 9, "who acted .* columns x, date, brand"),
        ("user,y,brand", "1,2,b", 9, "when .such as timestamp"),
        ("user,date,z", "1,{iso},b", 9, "on what"),
        ("user,date,brand", "1,{iso},b", 2, "span 4 days"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, header: str, row: str, days: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        guess_config(_write(tmp_path / "log.csv", header, [row], num_days=days))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds none that can be read"):
        guess_config(write_lines(tmp_path / "log.csv", [b"user_id,date"]))


@pytest.mark.parametrize(
    ("values", "is_found"), [(["DE", "fr", None], True), (["Germany", "France", "DE"], False)]
)
def test_a_column_of_countries_is_one_where_it_holds_two_letters(tmp_path, values, is_found):
    path = tmp_path / "log.csv"
    rows = [f"u{n},a{n % 3},2025-01-{1 + n % 28:02d},{values[n % 3] or ''}" for n in range(90)]
    path.write_text("\n".join(["user_id,advertiser_id,timestamp,country_code", *rows]))
    assert (guess_columns(read_sample(path)).get("country") == "country_code") == is_found
