"""Reading and changing an inventory: what breaks a rule is kept out, counted and told."""

import json

import polars as pl
import pytest
from tests.ads.small_inventory import ADVERTISERS, ITEMS, NOW_US, read_inventory
from tests.ads.test_ads_eligibility import simple

from forecart.ads.eligibility import Eligibility
from forecart.ads.inventory import Inventory, UpdateFollower
from forecart.ads.journey import ADS_PER_COUPON, write_journey_inventory
from forecart.ads.request import AdRequest
from forecart.errors import DataError
from forecart.events.adapters.complete_journey import find_data_folder
from forecart.sequences.vocabulary import Vocabulary

BAD_ADS = [
    ("not json", "a line is a JSON object"),
    ("[1]", "a line is a JSON object"),
    ('{"ad_id": "x", "ad_group_id": "g0"}', "needs bid_usd"),
    ('{"ad_id": "", "ad_group_id": "g0", "bid_usd": 1}', "ad_id is a text"),
    ('{"ad_id": "x", "ad_group_id": "g0", "bid_usd": NaN}', "bid_usd is a number"),
    ('{"ad_id": "x", "ad_group_id": "g0", "bid_usd": -1}', "bid_usd is a number"),
    ('{"ad_id": "x", "ad_group_id": "g0", "bid_usd": true}', "bid_usd is a number"),
    ('{"ad_id": "x", "ad_group_id": "g0", "bid_usd": 1, "status": "on"}', "status is one of"),
    ('{"ad_id": "x", "ad_group_id": "g0", "bid_usd": 1, "statsu": "active"}', "'statsu' arrived"),
    ('{"ad_id": "ad00", "ad_group_id": "g0", "bid_usd": 1}', "unique"),
]


def test_bad_rows_are_kept_out_counted_and_told(tmp_path):
    read_inventory(tmp_path, simple())
    path = tmp_path / "ads.jsonl"
    path.write_text(path.read_text() + "".join(f"{line}\n" for line, _ in BAD_ADS))
    inventory = Inventory.read(tmp_path, advertisers=ADVERTISERS, items=ITEMS)
    assert inventory.snapshot.num_ads == 12
    assert inventory.num_rejected == len(BAD_ADS)
    for number, (rejected, (_, message)) in enumerate(zip(inventory.rejected, BAD_ADS, strict=True)):
        assert (rejected.source, rejected.offset) == ("ads.jsonl", 12 + number)
        assert message in rejected.reason


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        (
            "campaigns",
            {"campaign_id": "x", "advertiser_id": "adv0", "starts_at": "soon"},
            "starts_us is a time",
        ),
        ("campaigns", {"campaign_id": "x", "advertiser_id": "adv0", "ends_at": 1e30}, "ends_us is a time"),
        (
            "campaigns",
            {"campaign_id": "x", "advertiser_id": "adv0", "budget_usd": "9"},
            "budget_usd is a number",
        ),
        ("ad_groups", {"ad_group_id": "x", "campaign_id": "c0", "countries": "DE"}, "countries is a list"),
        (
            "ad_groups",
            {"ad_group_id": "x", "campaign_id": "c0", "frequency_cap": 1.5},
            "frequency_cap is a whole",
        ),
    ],
)
def test_a_field_that_cannot_be_read_is_no_row(tmp_path, kind, row, message):
    rows = simple()
    rows[kind].append(row)
    inventory = read_inventory(tmp_path, rows)
    assert [message in one.reason for one in inventory.rejected] == [True]


def test_ads_that_can_never_be_shown_are_counted(tmp_path):
    rows = simple()
    rows["campaigns"].append({"campaign_id": "lost", "advertiser_id": "nobody"})
    rows["ad_groups"] += [
        {"ad_group_id": "of nobody", "campaign_id": "lost"},
        {"ad_group_id": "of nothing", "campaign_id": "gone"},
    ]
    rows["ads"] += [
        {"ad_id": f"x{number}", "ad_group_id": group, "bid_usd": 1}
        for number, group in enumerate(["of nobody", "of nothing", "missing", "missing"])
    ]
    left_out = read_inventory(tmp_path, rows).snapshot.left_out
    assert left_out == {"unknown advertiser": 1, "no campaign": 1, "no ad group": 2}


def test_parquet_is_read_like_json_lines(tmp_path):
    wanted = read_inventory(tmp_path, simple()).snapshot
    for name, rows in simple().items():
        pl.DataFrame(rows).write_parquet(tmp_path / f"{name}.parquet")
        (tmp_path / f"{name}.jsonl").unlink()
    found = Inventory.read(tmp_path, advertisers=ADVERTISERS, items=ITEMS).snapshot
    assert found.ad_ids == wanted.ad_ids and found.bid_usd_A.tolist() == wanted.bid_usd_A.tolist()
    (tmp_path / "ads.parquet").write_bytes(b"garbage")
    with pytest.raises(DataError, match="must be a Parquet file"):
        Inventory.read(tmp_path, advertisers=ADVERTISERS, items=ITEMS)


def test_a_file_that_is_missing_is_named(tmp_path):
    read_inventory(tmp_path, simple())
    (tmp_path / "ad_groups.jsonl").unlink()
    with pytest.raises(DataError, match=r"has ad_groups\.parquet or ad_groups\.jsonl"):
        Inventory.read(tmp_path, advertisers=ADVERTISERS, items=ITEMS)


def test_updates_add_change_and_remove(tmp_path):
    inventory = read_inventory(tmp_path, simple())
    updates = [
        {"ad": "ad00", "set": {"bid_usd": 99.0}},
        {"ad": "ad03", "remove": True},
        {"ad": "new", "add": {"ad_group_id": "g0", "bid_usd": 50, "status": "active", "item_id": "item1"}},
        {"campaign": "c0", "set": {"budget_usd": 10, "spend_usd": 3, "starts_at": "2025-01-01"}},
        {"campaign": "c0", "set": {"starts_at": None}},
        {"ad_group": "g0", "set": {"countries": ["DE"], "frequency_cap": 2}},
    ]
    assert inventory.update(updates) == 6
    snapshot = inventory.snapshot
    assert [snapshot.ad_ids[place] for place in range(snapshot.start_N[2], snapshot.start_N[3])] == [
        "ad00",
        "new",
        "ad09",
        "ad06",
    ]
    assert snapshot.campaigns.spend_usd[0] == 3 and snapshot.campaigns.starts_us[0] < 0
    assert snapshot.targetings[snapshot.groups.targeting[0]][0] == ("DE",)
    assert inventory.num_rejected == 0


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"ad": "nowhere", "set": {"bid_usd": 1}}, "there is no ad 'nowhere'"),
        ({"ad": "ad00", "set": {"bid_usd": "much"}}, "bid_usd is a number"),
        ({"ad": "ad00", "set": {"ad_group_id": "g1"}}, "ids do not change"),
        ({"ad": "ad00", "set": {}, "remove": True}, "an update names one"),
        ({"ad": "ad00", "remove": "yes"}, "remove is true"),
        ({"ad": 7, "remove": True}, "an id is a text"),
        ({"advert": "ad00", "remove": True}, "an update names one"),
        ("pause everything", "an update names one"),
        ({"ad": "ad00", "add": {"ad_group_id": "g0", "bid_usd": 1}}, "unique"),
    ],
)
def test_an_update_that_breaks_a_rule_changes_nothing(tmp_path, update, message):
    inventory = read_inventory(tmp_path, simple())
    before = inventory.snapshot
    assert inventory.update([update]) == 0
    assert inventory.snapshot is before
    assert message in inventory.rejected[0].reason


def test_a_follower_reads_whole_lines_once_and_survives_truncation(tmp_path):
    inventory, path = read_inventory(tmp_path, simple()), tmp_path / "updates.jsonl"
    follower = UpdateFollower(path, inventory)
    assert follower.poll() == 0
    pause = json.dumps({"campaign": "c1", "set": {"status": "paused"}})
    path.write_text(pause + "\nnonsense\n" + pause[:20])
    assert follower.poll() == 1 and follower.poll() == 0
    assert not inventory.snapshot.campaigns.is_active[1]
    assert inventory.num_rejected == 1
    with path.open("a") as handle:
        handle.write(pause[20:] + "\n")
    assert follower.poll() == 1
    path.write_text(pause.replace("c1", "c2") + "\n")
    assert follower.poll() == 1
    assert not inventory.snapshot.campaigns.is_active[2]


def pause(campaign):
    return json.dumps({"campaign": campaign, "set": {"status": "paused"}}) + "\n"


@pytest.mark.parametrize("text", [pause("c2"), pause("c2") + pause("c0"), pause("c2") + "\n" * 500])
@pytest.mark.parametrize("is_in_place", [True, False])
def test_a_followed_file_that_was_replaced_is_read_from_its_beginning(tmp_path, text, is_in_place):
    inventory, path = read_inventory(tmp_path, simple()), tmp_path / "updates.jsonl"
    follower = UpdateFollower(path, inventory)
    path.write_text(pause("c1"))
    assert follower.poll() == 1
    written = path if is_in_place else tmp_path / "written"
    written.write_text(text)
    written.replace(path)
    assert follower.poll() == text.count("paused") and follower.poll() == 0
    assert inventory.snapshot.campaigns.is_active.tolist() == ["c0" not in text, False, False]


def test_a_rejected_update_is_told_by_its_line_in_the_file(tmp_path):
    inventory, path = read_inventory(tmp_path, simple()), tmp_path / "updates.jsonl"
    follower = UpdateFollower(path, inventory)
    path.write_text(pause("c1") + "\n" + pause("c2") + "nonsense\n")
    follower.poll()
    with path.open("a") as handle:
        handle.write("\n" + pause("nowhere"))
    follower.poll()
    assert [(one.source, one.offset) for one in inventory.rejected] == [
        ("updates.jsonl", 3),
        ("updates.jsonl", 5),
    ]


POISON = [
    '{"ad": "ad00", "set": {"bid_usd": 1' + "0" * 400 + "}}",
    '{"ad_group": "g0", "set": {"frequency_cap": 9223372036854775808}}',
    '{"ad_group": "g0", "set": {"countries": ["\\ud800"]}}',
    '{"ad": "ad\\ud800", "add": {"ad_group_id": "g0", "bid_usd": 1}}',
    '{"ad": "new", "add": {"ad_group_id": "g0", "bid_usd": 1, "item_id": "\\ud800"}}',
    '{"campaign": "new", "add": {"advertiser_id": "\\ud800"}}',
    '{"campaign": "c0", "set": {"budget_usd": 1e999}}',
    '{"campaign": "c0", "set": {"status": ["paused"]}}',
    "[" * 200_000,
]


@pytest.mark.parametrize("line", POISON, ids=range(len(POISON)))
def test_no_update_keeps_a_pause_from_taking_effect(tmp_path, line):
    inventory, path = read_inventory(tmp_path, simple()), tmp_path / "updates.jsonl"
    path.write_text(line + "\n" + pause("c0"))
    assert UpdateFollower(path, inventory).poll() == 1
    assert inventory.num_rejected == 1
    inventory.update([json.loads(pause("c1"))])
    assert inventory.snapshot.campaigns.is_active.tolist() == [False, False, True]


def shows(inventory, shown):
    snapshot = inventory.snapshot
    mask = Eligibility(snapshot).ads(AdRequest(now_us=NOW_US, shown=shown))
    return {ad_id for ad_id, is_shown in zip(snapshot.ad_ids, mask, strict=True) if is_shown}


SPENT = [
    ({"daily_spend_usd": 1.0}, False),  # of which day?
    ({"daily_spend_usd": 50.0}, False),
    ({"daily_spend_usd": 1.0, "daily_spend_on": "2025-06-15"}, True),
    ({"daily_spend_usd": 50.0, "daily_spend_on": "2025-06-15"}, False),
    ({"daily_spend_on": "2025-06-15"}, True),
    ({"budget_usd": 9.0, "spend_usd": 8.0}, True),
]


@pytest.mark.parametrize(("change", "is_shown"), SPENT)
def test_what_is_spent_is_of_a_day_or_unknown(tmp_path, change, is_shown):
    """Yesterday 9 of 10 dollars were spent; it is noon of 2025-06-15."""
    budget = {"daily_budget_usd": 10.0, "daily_spend_usd": 9.0, "daily_spend_on": "2025-06-14"}
    inventory = read_inventory(tmp_path, simple(**budget))
    assert inventory.update([{"campaign": "c0", "set": change}]) == 1
    assert ("ad00" in shows(inventory, None)) == is_shown


@pytest.mark.parametrize("removed", [{"ad": "x"}, {"ad_group": "of x"}, {"ad": "x", "ad_group": "of x"}])
def test_what_was_shown_of_what_is_removed_counts_towards_caps(tmp_path, removed):
    """Of the campaign's three times x was shown all."""
    rows = simple(3, frequency_cap=3)
    rows["ad_groups"].append({"ad_group_id": "of x", "campaign_id": "c0", "status": "active"})
    rows["ads"].append({"ad_id": "x", "ad_group_id": "of x", "status": "active", "bid_usd": 1.0})
    inventory = read_inventory(tmp_path, rows)
    assert shows(inventory, {"x": 2}) == {"x", "ad00", "ad01", "ad02"}
    assert inventory.update([{kind: key, "remove": True} for kind, key in removed.items()]) == len(removed)
    assert shows(inventory, {"x": 2}) == {"ad00", "ad01", "ad02"}
    assert shows(inventory, {"x": 3}) == shows(inventory, {"x": 2, "ad00": 1}) == {"ad01", "ad02"}
    assert inventory.update([{kind: key, "remove": True} for kind, key in removed.items()]) == 0
    assert inventory.update([{kind: key, "set": {"status": "active"}} for kind, key in removed.items()]) == 0


def test_what_was_removed_may_be_added_again(tmp_path):
    inventory = read_inventory(tmp_path, simple(3, frequency_cap=3))
    new = {"ad": "ad00", "add": {"ad_group_id": "g1", "bid_usd": 2.0, "status": "active"}}
    assert inventory.update([new]) == 0
    assert inventory.update([{"ad": "ad00", "remove": True}, new]) == 2
    assert shows(inventory, {"ad00": 2}) == {"ad00", "ad01", "ad02"} and shows(inventory, {"ad00": 3}) == {
        "ad02"
    }


def test_complete_journey_has_campaigns_of_its_manufacturers(tmp_path):
    try:
        data = find_data_folder()
    except DataError as error:
        pytest.skip(str(error))
    counts = write_journey_inventory(tmp_path, data=data)
    ids = pl.col("product_id").cast(pl.String)
    products = pl.read_parquet(data / "products.parquet").with_columns(
        ids, pl.col("manufacturer_id").cast(pl.String)
    )
    coupons = pl.read_parquet(data / "coupons.parquet").with_columns(
        ids, pl.col("campaign_id", "coupon_upc").cast(pl.String)
    )
    advertisers = Vocabulary.build(products["manufacturer_id"].drop_nulls().unique().sort())
    items = Vocabulary.build(products["product_id"].unique().sort())
    inventory = Inventory.read(tmp_path, advertisers=advertisers, items=items)
    snapshot = inventory.snapshot
    assert inventory.num_rejected == 0 and not snapshot.left_out
    assert snapshot.num_ads == counts["ads"] > 1000
    owner = dict(products.select("product_id", "manufacturer_id").drop_nulls().rows())
    pairs = set(coupons.select("campaign_id", "coupon_upc", "product_id").rows())
    per_group = {}
    for ad_id, advertiser, item in zip(snapshot.ad_ids, snapshot.advertiser_A, snapshot.item_A, strict=True):
        campaign, manufacturer, coupon, product = ad_id.split("-")
        assert (campaign, coupon, product) in pairs and owner[product] == manufacturer
        assert advertisers.ids([advertiser]) == [manufacturer] and items.ids([item]) == [product]
        key = (campaign, manufacturer, coupon)
        per_group[key] = per_group.get(key, 0) + 1
    assert max(per_group.values()) == ADS_PER_COUPON
    with_dates = snapshot.campaigns.starts_us
    assert (with_dates > 0).all() and (snapshot.campaigns.ends_us > with_dates).all()
