"""I4: quotas, caps and distinctness hold for every list, and the answer is the same in every process."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ads.small_inventory import ADVERTISERS, ITEMS

from forecart.ads.blending import BlendRules, Quota, blend
from forecart.ads.expansion import CandidateAds
from forecart.ads.inventory import Inventory
from forecart.errors import ConfigError

ROOT = Path(__file__).parents[2]
NUM_ADS = 24


def make_snapshot():
    """Ad k is of advertiser k % 5 and shows product k % 7, every fourth none."""
    inventory = Inventory(ADVERTISERS, ITEMS)
    updates = [{"campaign": f"c{n}", "add": {"advertiser_id": f"adv{n}"}} for n in range(5)]
    updates += [{"ad_group": f"g{n}", "add": {"campaign_id": f"c{n}"}} for n in range(5)]
    for n in range(NUM_ADS):
        item = {} if n % 4 == 0 else {"item_id": f"item{n % 7}"}
        updates.append({"ad": f"ad{n:02d}", "add": {"ad_group_id": f"g{n % 5}", "bid_usd": 1.0, **item}})
    inventory.update(updates)
    return inventory.snapshot


SNAPSHOT = make_snapshot()
SOURCES = ("advertisers", "products", "fallback_global")


def candidates(source, numbers, values):
    place = np.array([SNAPSHOT.place_of[f"ad{number:02d}"] for number in numbers], np.int64)
    ads = CandidateAds(source, place, np.array(values, np.float32), np.arange(1, len(numbers) + 1))
    return ads, np.array(values, np.float64)


@st.composite
def problems(draw):
    sources = []
    for source in SOURCES:
        numbers = draw(st.lists(st.integers(0, NUM_ADS - 1), unique=True, max_size=NUM_ADS))
        values = draw(
            st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.9]), min_size=len(numbers), max_size=len(numbers))
        )
        sources.append((source, numbers, values))
    quotas = {}
    for source in draw(st.lists(st.sampled_from(SOURCES), unique=True)):
        least = draw(st.integers(0, 4))
        quotas[source] = Quota(least, draw(st.integers(least, 8)))
    rules = BlendRules(quotas, ads_per_advertiser=draw(st.integers(1, 4)))
    return sources, rules, draw(st.integers(0, 14))


def advertiser_of(number):
    return number % 5


def item_of(number):
    return None if number % 4 == 0 else number % 7


def numbers_of(blended):
    return [int(SNAPSHOT.ad_ids[one.place][2:]) for one in blended]


def could_be_added(number, source, taken, rules, num_ads):
    """Whether the rules would have let one more in."""
    numbers = [one for one, _ in taken]
    quota = rules.quotas.get(source, Quota())
    return (
        len(taken) < num_ads
        and number not in numbers
        and (item_of(number) is None or item_of(number) not in [item_of(one) for one in numbers])
        and sum(advertiser_of(one) == advertiser_of(number) for one in numbers) < rules.ads_per_advertiser
        and sum(from_ == source for _, from_ in taken) < quota.most
    )


@settings(max_examples=300)
@given(problems())
def test_every_list_keeps_to_the_rules_and_is_full(problem):
    sources, rules, num_ads = problem
    blended = blend(SNAPSHOT, [candidates(*one) for one in sources], num_ads=num_ads, rules=rules)
    numbers = numbers_of(blended)
    assert len(numbers) == len(set(numbers)) <= num_ads
    items = [item_of(number) for number in numbers if item_of(number) is not None]
    assert len(items) == len(set(items))
    by_advertiser = Counter(advertiser_of(number) for number in numbers)
    assert max(by_advertiser.values(), default=0) <= rules.ads_per_advertiser
    by_source = Counter(one.source for one in blended)
    assert all(by_source[source] <= quota.most for source, quota in rules.quotas.items())
    taken = [(number, one.source) for number, one in zip(numbers, blended, strict=True)]
    listed = [(number, source) for source, found, _ in sources for number in found]
    assert not [one for one in listed if could_be_added(*one, taken, rules, num_ads)]
    values = [(-one.value, one.rank, SNAPSHOT.ad_ids[one.place]) for one in blended]
    assert values == sorted(values)
    wanted = {
        (number, source): value
        for source, found, values in sources
        for number, value in zip(found, values, strict=True)
    }
    assert all(one.value == wanted[number, one.source] for number, one in zip(numbers, blended, strict=True))


@settings(max_examples=100)
@given(problems())
def test_the_first_source_gets_its_least_share(problem):
    sources, rules, num_ads = problem
    alone = blend(SNAPSHOT, [candidates(*sources[0])], num_ads=num_ads, rules=rules)
    blended = blend(SNAPSHOT, [candidates(*one) for one in sources], num_ads=num_ads, rules=rules)
    least = rules.quotas.get(SOURCES[0], Quota()).least
    assert sum(one.source == SOURCES[0] for one in blended) >= min(least, len(alone))


def test_without_rules_that_bind_the_best_come_first():
    sources = [("advertisers", [0, 1, 2], [0.9, 0.1, 0.5]), ("products", [3, 1, 4], [0.7, 0.8, 0.5])]
    blended = blend(SNAPSHOT, [candidates(*one) for one in sources], num_ads=4, rules=BlendRules())
    assert numbers_of(blended) == [0, 1, 3, 2]
    assert [one.source for one in blended] == ["advertisers", "products", "products", "advertisers"]
    assert [one.rank for one in blended] == [1, 2, 1, 3]


def test_a_share_that_must_be_pushes_better_ones_out():
    sources = [("advertisers", [0, 1, 2], [0.9, 0.8, 0.7]), ("products", [3, 4, 8], [0.3, 0.2, 0.1])]
    rules = BlendRules({"products": Quota(2, 2)})
    blended = blend(SNAPSHOT, [candidates(*one) for one in sources], num_ads=3, rules=rules)
    assert numbers_of(blended) == [0, 3, 4]


def test_a_quota_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="a quota is from"):
        Quota(3, 2)


def test_every_process_gives_the_same_list():
    code = """
import random
from tests.ads.test_blending import SNAPSHOT, SOURCES, BlendRules, Quota, blend, candidates, numbers_of
generator = random.Random(3)
for _ in range(50):
    values = [generator.choice([.1, .2]) for _ in range(15)]
    sources = [(source, generator.sample(range(24), 15), values) for source in SOURCES]
    rules = BlendRules({"products": Quota(1, 3), "advertisers": Quota(2, 5)})
    print(numbers_of(blend(SNAPSHOT, [candidates(*one) for one in sources], num_ads=9, rules=rules)))
"""
    outputs = set()
    for seed in ("0", "1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1 and outputs.pop().count("\n") == 50
