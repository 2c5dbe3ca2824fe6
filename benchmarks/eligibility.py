"""What eligibility costs a request: `python -m benchmarks.eligibility`.

An inventory of 20,000 ads of 5,000 advertisers; microseconds of asking which advertisers have an ad that may
be shown (an audience that asked before; a new one; with blocked categories and frequency caps), and of
expanding a list of 100 advertisers to their ads and blending ten. Writes `results/eligibility.json`.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.figures import RESULTS
from forecart import artifacts
from forecart.ads.blending import BlendRules, blend
from forecart.ads.eligibility import Eligibility
from forecart.ads.expansion import expand_advertisers
from forecart.ads.inventory import Inventory
from forecart.ads.l1 import CalibratedBid
from forecart.ads.request import AdRequest
from forecart.evaluation.provenance import read_provenance
from forecart.sequences.vocabulary import FIRST_INDEX, Vocabulary

NUM_ADVERTISERS: Final = 5_000
NUM_ADS: Final = 20_000
REPEATS: Final = 2_000
NOW_US: Final = 1_750_000_000_000_000
COUNTRIES: Final = ("DE", "FR", "US", "GB", "JP")


def make_inventory() -> Inventory:
    """Makes an inventory: a third of the ad groups target countries, a fifth have a cap."""
    generator = random.Random(0)
    advertisers = Vocabulary.build([f"adv{number}" for number in range(NUM_ADVERTISERS)])
    inventory = Inventory(advertisers, Vocabulary.build([]))
    updates: list[dict[str, Any]] = []
    for number in range(NUM_ADVERTISERS):
        updates.append(
            {"campaign": f"c{number}", "add": {"advertiser_id": f"adv{number}", "status": "active"}}
        )
        group: dict[str, Any] = {"campaign_id": f"c{number}", "status": "active"}
        if number % 3 == 0:
            group["countries"] = generator.sample(COUNTRIES, 2)
        if number % 5 == 0:
            group["frequency_cap"] = 3
        updates.append({"ad_group": f"g{number}", "add": group})
    for number in range(NUM_ADS):
        ad = {
            "ad_group_id": f"g{number % NUM_ADVERTISERS}",
            "status": "active",
            "bid_usd": generator.random(),
            "category": f"A > B{number % 50} > C{number % 400}",
        }
        updates.append({"ad": f"ad{number}", "add": ad})
    inventory.update(updates)
    return inventory


def measure_us(call: Callable[[int], Any]) -> dict[str, float]:
    """Returns percentiles of microseconds of a call."""
    taken = []
    for number in range(REPEATS):
        started = time.perf_counter_ns()
        call(number)
        taken.append((time.perf_counter_ns() - started) / 1e3)
    return {f"p{cut}": float(np.percentile(taken, cut)) for cut in (50, 99)}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures are written")
    asked = parser.parse_args()
    inventory = make_inventory()
    snapshot = inventory.snapshot
    eligibility = Eligibility(snapshot)
    generator = np.random.default_rng(0)
    lists = [
        generator.choice(np.arange(FIRST_INDEX, NUM_ADVERTISERS), 100, replace=False) for _ in range(100)
    ]
    score = np.linspace(1, 0, 100, dtype=np.float32)
    known = AdRequest(now_us=NOW_US, country="DE")
    particular = AdRequest(
        now_us=NOW_US, country="DE", shown={"ad7": 2, "ad8": 1}, blocked_categories=("A > B3",)
    )
    ranker = CalibratedBid()

    def answer(number: int) -> None:
        found = expand_advertisers(
            snapshot, eligibility.ads(known), lists[number % 100], score, source="advertisers"
        )
        blend(snapshot, [(found, ranker.value(known, snapshot, found))], num_ads=10, rules=BlendRules())

    figures = {
        "advertisers_known_audience_us": measure_us(lambda _: eligibility.advertisers(known)),
        "advertisers_new_audience_us": measure_us(
            lambda number: eligibility.advertisers(AdRequest(now_us=NOW_US, country=f"x{number}"))
        ),
        "advertisers_blocked_and_caps_us": measure_us(lambda _: eligibility.advertisers(particular)),
        "ten_ads_of_100_advertisers_us": measure_us(answer),
        "compile_after_an_update_ms": 1e-3
        * min(
            measure_once(lambda: inventory.update([{"ad": "ad1", "set": {"status": "paused"}}]))
            for _ in range(5)
        ),
    }
    result = {
        "provenance": read_provenance(),
        "num_ads": NUM_ADS,
        "num_advertisers": NUM_ADVERTISERS,
        **figures,
    }
    artifacts.write_json(asked.results / "eligibility.json", result)
    print(json.dumps(result, indent=2))


def measure_once(call: Callable[[], Any]) -> float:
    """Returns microseconds of one call."""
    started = time.perf_counter()
    call()
    return 1e6 * (time.perf_counter() - started)


if __name__ == "__main__":
    main()
