"""An inventory of what Complete Journey knows of ads: its campaigns with their dates, and its coupons.

A campaign of a manufacturer is a campaign, a coupon of it an ad group, and a product of the coupon an ad.
The data says nothing of bids, budgets and audiences: every ad bids the same, and there are no limits.
"""

import json
from pathlib import Path
from typing import Any, Final

import polars as pl

from forecart import artifacts
from forecart.events.adapters.complete_journey import find_data_folder

BID_USD: Final = 1.0
ADS_PER_COUPON: Final = 5
"""A coupon may hold for thousands of products: of each manufacturer the first by id are advertised."""


def write_journey_inventory(folder: Path, *, data: Path | None = None) -> dict[str, int]:
    """Writes campaigns.jsonl, ad_groups.jsonl and ads.jsonl; returns how many rows each has.

    Args:
        folder: of the inventory.
        data: of the data set; that of the installed package without.

    Raises:
        DataError: the package is not installed.
    """
    data = data or find_data_folder()
    tables = {
        name: pl.read_parquet(data / f"{name}.parquet")
        for name in ("coupons", "campaign_descriptions", "products")
    }
    goods = tables["products"].filter(pl.col("manufacturer_id").is_not_null())
    listed = (
        tables["coupons"]
        .join(goods, on="product_id")
        .join(tables["campaign_descriptions"], on="campaign_id")
        .select(
            "campaign_id", "coupon_upc", "product_id", "manufacturer_id", "start_date", "end_date", *_CATEGORY
        )
        .unique(["campaign_id", "coupon_upc", "product_id"])
        .with_columns(
            pl.col("campaign_id", "coupon_upc", "product_id", "manufacturer_id").cast(pl.String),
            pl.col("start_date", "end_date").dt.strftime("%Y-%m-%d"),
        )
        .sort("campaign_id", "manufacturer_id", "coupon_upc", "product_id")
        .with_columns(
            pl.concat_str(_CATEGORY, separator=" > ", ignore_nulls=True).alias("category"),
            pl.format("{}-{}", "campaign_id", "manufacturer_id").alias("campaign"),
        )
        .with_columns(pl.format("{}-{}", "campaign", "coupon_upc").alias("group"))
    )
    ads = listed.group_by("group", maintain_order=True).head(ADS_PER_COUPON)
    rows = {
        "campaigns": [_campaign(row) for row in ads.unique("campaign", maintain_order=True).to_dicts()],
        "ad_groups": [
            {"ad_group_id": row["group"], "campaign_id": row["campaign"], "status": "active"}
            for row in ads.unique("group", maintain_order=True).to_dicts()
        ],
        "ads": [_ad(row) for row in ads.to_dicts()],
    }
    for name, found in rows.items():
        artifacts.write_text(folder / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in found))
    return {name: len(found) for name, found in rows.items()}


_CATEGORY: Final = ("department", "product_category", "product_type")


def _campaign(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "campaign_id": row["campaign"],
        "advertiser_id": row["manufacturer_id"],
        "status": "active",
        "starts_at": row["start_date"],
        # The last day is a day of the campaign.
        "ends_at": f"{row['end_date']}T23:59:59.999999",
    }


def _ad(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "ad_id": f"{row['group']}-{row['product_id']}",
        "ad_group_id": row["group"],
        "status": "active",
        "item_id": row["product_id"],
        "category": row["category"],
        "bid_usd": BID_USD,
    }
