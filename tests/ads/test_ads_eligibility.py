"""I3: eligibility is what the rules say of each ad alone, for every combination and for random requests."""

import itertools
import random
from itertools import product

import numpy as np
import pytest
from tests.ads.small_inventory import ADVERTISERS, DAY_US, ITEMS, NOW_US, may_be_shown, read_inventory

from forecart.ads.eligibility import MAX_AUDIENCES, Eligibility
from forecart.ads.expansion import expand_advertisers, expand_items
from forecart.ads.request import AdRequest

# adv5 is listed nowhere.
OWNERS_OF = {
    "active": ("adv0", "adv1"),
    "paused": ("adv2", "adv3"),
    "ended": ("adv4", "adv4"),
    None: ("adv5", "adv5"),
}
OWNERS = [
    {"advertiser_id": owner, "status": status}
    for status, owners in OWNERS_OF.items()
    for owner in sorted(set(owners))
    if status is not None
]
STATUSES = ["active", "paused", None]
LEVELS = ["advertiser", "campaign", "ad_group", "ad"]
# Everything active, or one level something else.
ONE_STATUS = [{}, *({level: status} for level in LEVELS for status in ("paused", "ended", None))]
SCHEDULES = [
    {},
    {"starts_at": "2025-06-16"},
    {"ends_at": "2025-06-15T12:00:00Z"},
    {"starts_at": "2025-06-15T12:00:00", "ends_at": "2025-06-15T13:00:00"},
]
BUDGETS = [
    {},
    {"budget_usd": 10.0, "spend_usd": 10.0},
    {"budget_usd": 10.0, "spend_usd": 9.5},
    {"budget_usd": 10.0},
    {"daily_budget_usd": 5.0, "daily_spend_usd": 6.0, "daily_spend_on": "2025-06-15"},
    {"daily_budget_usd": 5.0, "daily_spend_usd": 6.0, "daily_spend_on": "2025-06-14"},
    {"daily_budget_usd": 5.0, "daily_spend_usd": 1.0},
    {"daily_budget_usd": 5.0, "daily_spend_usd": 1.0, "daily_spend_on": "2025-06-16"},
]
CAPS = [{}, {"ad_group": 0}, {"ad_group": 2}, {"campaign": 2}, {"campaign": 3, "ad_group": 4}]
TARGETINGS = [
    {},
    {"countries": ["DE", "FR"]},
    {"devices": ["phone"], "age_bands": ["25-34"]},
    {"interests": ["dogs", "cats"]},
    {"countries": []},
]
CATEGORIES = [None, "FOOD > CANDY > GUM", "food>Candy", "FOOD > CANDYFLOSS", "food", "TOYS"]
REQUESTS = [
    AdRequest(now_us=NOW_US),
    AdRequest(
        now_us=NOW_US, country="DE", device="phone", age_band="25-34", interests=frozenset({"cats"}), shown={}
    ),
    AdRequest(now_us=NOW_US, country="US", shown=dict.fromkeys([f"ad{n}" for n in range(0, 40_000, 9)], 2)),
    AdRequest(now_us=NOW_US, country="DE", shown={}, blocked_categories=("FOOD > CANDY",)),
    AdRequest(
        now_us=NOW_US,
        country="FR",
        shown={},
        blocked_categories=("food", "x"),
        blocked_advertisers=("adv1", "y"),
    ),
    AdRequest(now_us=NOW_US, country="DE", shown={}, blocked_categories=(" > ",)),
]


def matrix():
    """Every status x schedule x budget x cap x targeting, with an ad of every category: a campaign each."""
    numbers = itertools.count()
    for number, cell in enumerate(product(ONE_STATUS, SCHEDULES, BUDGETS, CAPS, TARGETINGS)):
        status, schedule, budget, cap, targeting = cell
        owner = OWNERS_OF[status.get("advertiser", "active")][number % 2]
        stands = {level: status.get(level, "active") for level in LEVELS}
        yield {
            "campaigns": [
                {
                    "campaign_id": f"c{number}",
                    "advertiser_id": owner,
                    "status": stands["campaign"],
                    "frequency_cap": cap.get("campaign"),
                    **schedule,
                    **budget,
                }
            ],
            "ad_groups": [
                {
                    "ad_group_id": f"g{number}",
                    "campaign_id": f"c{number}",
                    "status": stands["ad_group"],
                    "frequency_cap": cap.get("ad_group"),
                    **targeting,
                }
            ],
            "ads": [
                {
                    "ad_id": f"ad{next(numbers)}",
                    "ad_group_id": f"g{number}",
                    "status": stands["ad"],
                    "bid_usd": 1.0,
                    "category": category,
                }
                for category in CATEGORIES
            ],
            "advertisers": OWNERS,
        }


def decide(inventory, request):
    mask = Eligibility(inventory.snapshot).ads(request)
    return {inventory.snapshot.ad_ids[place] for place in np.flatnonzero(mask)}


@pytest.fixture(scope="module")
def cells():
    return list(matrix())


@pytest.fixture(scope="module")
def whole(cells, tmp_path_factory):
    rows = {name: [one for cell in cells for one in cell[name]] for name in ("campaigns", "ad_groups", "ads")}
    return read_inventory(tmp_path_factory.mktemp("matrix"), rows | {"advertisers": OWNERS})


@pytest.mark.parametrize("request_", REQUESTS, ids=range(len(REQUESTS)))
def test_every_combination_is_as_the_rules_say(cells, whole, request_):
    assert whole.num_rejected == 0
    # A cell is a whole campaign, so that the oracle need not read the rows of all the others.
    owner = {ad["ad_id"]: cell["campaigns"][0]["advertiser_id"] for cell in cells for ad in cell["ads"]}
    wanted = {ad["ad_id"] for cell in cells for ad in cell["ads"] if may_be_shown(ad, cell, request_)}
    assert decide(whole, request_) == wanted
    has_ad = Eligibility(whole.snapshot).advertisers(request_)
    assert {ADVERTISERS.ids([index])[0] for index in np.flatnonzero(has_ad)} == {owner[one] for one in wanted}


def test_the_matrix_has_every_combination_and_ads_of_each_verdict(cells):
    assert len(cells) == len(ONE_STATUS) * len(SCHEDULES) * len(BUDGETS) * len(CAPS) * len(TARGETINGS)
    shown = [any(may_be_shown(ad, cell, REQUESTS[1]) for ad in cell["ads"]) for cell in cells]
    assert 20 <= sum(shown) < len(cells) / 2


def random_rows(generator):
    def some(name, values):
        return {name: generator.sample(values, generator.randint(0, 2))} if generator.random() < 0.3 else {}

    rows = {"campaigns": [], "ad_groups": [], "ads": []}
    if generator.random() < 0.5:
        rows["advertisers"] = [
            {"advertiser_id": f"adv{number}", "status": generator.choices(STATUSES, [8, 1, 1])[0]}
            for number in range(7)
        ]
    for number in range(12):
        status = generator.choices(STATUSES, [8, 1, 1])[0]
        rows["campaigns"].append(
            {
                "campaign_id": f"c{number}",
                "advertiser_id": f"adv{generator.randrange(8)}",
                "status": status,
                **generator.choices(SCHEDULES, [5, 1, 1, 1])[0],
                **generator.choices(BUDGETS, [6, 1, 2, 1, 1, 2, 1, 1])[0],
                "frequency_cap": generator.choices([None, 1, 4], [8, 1, 1])[0],
            }
        )
    for number in range(20):
        rows["ad_groups"].append(
            {
                "ad_group_id": f"g{number}",
                "campaign_id": f"c{generator.randrange(14)}",
                "status": generator.choices(STATUSES, [8, 1, 1])[0],
                "frequency_cap": generator.choices([None, 0, 1, 3], [6, 1, 1, 2])[0],
                **some("countries", ["DE", "FR", "US"]),
                **some("devices", ["phone", "tv"]),
                **some("interests", ["dogs", "cats", "cars"]),
            }
        )
    for number in range(60):
        rows["ads"].append(
            {
                "ad_id": f"ad{number}",
                "ad_group_id": f"g{generator.randrange(22)}",
                "status": generator.choices(STATUSES, [8, 1, 1])[0],
                "bid_usd": generator.choice([0.5, 1.0, 2.5]),
                "category": generator.choice(CATEGORIES),
                "item_id": generator.choice([None, "item1", "item5", "elsewhere"]),
            }
        )
    return rows


def random_request(generator):
    return AdRequest(
        now_us=NOW_US + generator.choice([0, -DAY_US, DAY_US // 2, DAY_US, 3_600_000_000, -1]),
        country=generator.choice([None, "DE", "FR", "US"]),
        device=generator.choice([None, "phone", "tv"]),
        interests=frozenset(generator.sample(["dogs", "cats", "cars"], generator.randint(0, 2))),
        blocked_categories=tuple(
            generator.sample(
                ["FOOD", "FOOD > CANDY", "food >candy", "TOYS", "x"], generator.choice([0, 0, 1, 2])
            )
        ),
        blocked_advertisers=tuple(
            generator.sample([f"adv{n}" for n in range(7)], generator.choice([0, 0, 1, 3]))
        ),
        shown=generator.choice(
            [None, {}, {f"ad{generator.randrange(60)}": generator.randint(1, 3) for _ in range(4)}]
        ),
    )


def test_a_thousand_random_requests_are_as_the_rules_say(tmp_path):
    generator, differences = random.Random(0), 0
    for _ in range(20):
        rows = random_rows(generator)
        eligibility = Eligibility(read_inventory(tmp_path, rows).snapshot)
        for _ in range(50):
            request = random_request(generator)
            found = {eligibility.snapshot.ad_ids[place] for place in np.flatnonzero(eligibility.ads(request))}
            wanted = {ad["ad_id"] for ad in rows["ads"] if may_be_shown(ad, rows, request)}
            differences += found != wanted
            has_ad = set(np.flatnonzero(eligibility.advertisers(request)).tolist())
            assert has_ad == {
                int(eligibility.snapshot.advertiser_A[eligibility.snapshot.place_of[one]]) for one in wanted
            }
    assert differences == 0


def simple(num_ads=12, **campaign):
    """One campaign of each of three advertisers, with ads of a group each."""
    return {
        "campaigns": [
            {"campaign_id": f"c{number}", "advertiser_id": f"adv{number}", "status": "active", **campaign}
            for number in range(3)
        ],
        "ad_groups": [
            {"ad_group_id": f"g{number}", "campaign_id": f"c{number}", "status": "active"}
            for number in range(3)
        ],
        "ads": [
            {
                "ad_id": f"ad{number:02d}",
                "ad_group_id": f"g{number % 3}",
                "status": "active",
                "bid_usd": 1.0 + number,
                "item_id": f"item{number % 8}",
            }
            for number in range(num_ads)
        ],
    }


def test_a_mask_ends_where_a_schedule_turns_or_a_day_begins(tmp_path):
    rows = simple(
        starts_at="2025-06-15T12:00:00",
        ends_at="2025-06-15T12:00:10",
        daily_budget_usd=5.0,
        daily_spend_usd=6.0,
        daily_spend_on="2025-06-14",
    )
    eligibility = Eligibility(read_inventory(tmp_path, rows).snapshot)
    for offset, is_open in (
        (-1, False),
        (0, True),
        (9_999_999, True),
        (10_000_000, False),
        (0, True),
        (-1, False),
    ):
        assert eligibility.ads(AdRequest(now_us=NOW_US + offset)).any() == is_open
    rows = simple(daily_budget_usd=5.0, daily_spend_usd=6.0, daily_spend_on="2025-06-15")
    eligibility = Eligibility(read_inventory(tmp_path, rows).snapshot)
    midnight_us = NOW_US + DAY_US // 2
    assert not eligibility.ads(AdRequest(now_us=midnight_us - 1)).any()
    assert eligibility.ads(AdRequest(now_us=midnight_us)).all()


def test_a_pause_holds_at_the_next_request_and_not_in_one_that_is_under_way(tmp_path):
    inventory = read_inventory(tmp_path, simple())
    under_way, request = Eligibility(inventory.snapshot), AdRequest(now_us=NOW_US)
    assert under_way.ads(request).sum() == 12
    assert inventory.update([{"campaign": "c1", "set": {"status": "paused"}}]) == 1
    assert under_way.ads(request).sum() == 12
    assert Eligibility(inventory.snapshot).ads(request).sum() == 8
    assert inventory.snapshot.version == 2


def test_masks_are_kept_for_as_many_audiences_as_there_is_room(tmp_path):
    eligibility = Eligibility(read_inventory(tmp_path, simple()).snapshot)
    for number in range(MAX_AUDIENCES + 50):
        assert eligibility.ads(AdRequest(now_us=NOW_US, country=str(number))).all()
    assert len(eligibility._by_audience) == MAX_AUDIENCES


def test_each_advertiser_s_best_bids_come_in_the_order_of_the_list(tmp_path):
    snapshot = read_inventory(tmp_path, simple()).snapshot
    request = AdRequest(now_us=NOW_US)
    index = ADVERTISERS.index(["adv2", "adv5", "adv0"])
    found = expand_advertisers(
        snapshot,
        Eligibility(snapshot).ads(request),
        index,
        np.array([0.9, 0.8, 0.7], np.float32),
        source="s",
        ads_per_advertiser=2,
    )
    assert [snapshot.ad_ids[place] for place in found.place] == ["ad11", "ad08", "ad09", "ad06"]
    assert found.rank.tolist() == [1, 1, 3, 3] and found.source == "s"
    assert np.allclose(found.score, [0.9, 0.9, 0.7, 0.7])


def test_what_is_not_eligible_takes_nobody_s_place(tmp_path):
    inventory = read_inventory(tmp_path, simple(30))
    inventory.update([{"ad": f"ad{number:02d}", "set": {"status": "paused"}} for number in (29, 26, 20)])
    snapshot = inventory.snapshot
    mask = Eligibility(snapshot).ads(AdRequest(now_us=NOW_US))
    found = expand_advertisers(
        snapshot, mask, ADVERTISERS.index(["adv2"]), np.ones(1, np.float32), source="s", ads_per_advertiser=4
    )
    assert [snapshot.ad_ids[place] for place in found.place] == ["ad23", "ad17", "ad14", "ad11"]


def test_a_product_brings_the_best_bid_of_its_own_ads(tmp_path):
    snapshot = read_inventory(tmp_path, simple()).snapshot
    mask = Eligibility(snapshot).ads(AdRequest(now_us=NOW_US))
    index = ITEMS.index(["item2", "item7", "item3"])
    found = expand_items(snapshot, mask, index, np.array([3, 2, 1], np.float32), source="p")
    assert [snapshot.ad_ids[place] for place in found.place] == ["ad10", "ad07", "ad11"]
    blocked = AdRequest(now_us=NOW_US, blocked_advertisers=("adv1",))
    found = expand_items(
        snapshot, Eligibility(snapshot).ads(blocked), index, np.array([3, 2, 1], np.float32), source="p"
    )
    assert [snapshot.ad_ids[place] for place in found.place] == ["ad02", "ad11"]


def test_an_empty_inventory_has_nothing_to_show(tmp_path):
    inventory = read_inventory(tmp_path, {"campaigns": [], "ad_groups": [], "ads": []})
    eligibility = Eligibility(inventory.snapshot)
    request = AdRequest(now_us=NOW_US, shown={"x": 1}, blocked_categories=("y",))
    assert eligibility.ads(request).size == 0 and not eligibility.advertisers(request).any()
    found = expand_advertisers(
        inventory.snapshot,
        eligibility.ads(request),
        ADVERTISERS.index(["adv1"]),
        np.ones(1, np.float32),
        source="s",
    )
    assert found.place.size == 0
