"""Inventories of plain rows, and an oracle that decides about each ad by reading those rows one by one."""

import json
import re
from datetime import UTC, datetime

from forecart.ads.inventory import Inventory
from forecart.sequences.vocabulary import Vocabulary

ADVERTISERS = Vocabulary.build([f"adv{number}" for number in range(6)])
ITEMS = Vocabulary.build([f"item{number}" for number in range(8)])
NOW = datetime(2025, 6, 15, 12, tzinfo=UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000
DAY_US = 86_400_000_000


def read_inventory(folder, rows):
    """The inventory of `campaigns`, `ad_groups`, `ads` and perhaps `advertisers`, lists of plain rows."""
    (folder / "advertisers.jsonl").unlink(missing_ok=True)
    for name in rows:
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[name]))
    return Inventory.read(folder, advertisers=ADVERTISERS, items=ITEMS)


def moment(text):
    when = datetime.fromisoformat(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1_000_000


def has_budget_left(campaign):
    budget, spent = campaign.get("budget_usd"), campaign.get("spend_usd")
    return budget is None or (spent is not None and spent < budget)


KNOWN = tuple(f"adv{number}" for number in range(6))


def may_be_shown(ad, rows, request, known=KNOWN):  # noqa: C901  (one rule after another, as written down)
    """The rules in words, for one ad; `known` are the advertisers of the release."""
    group = next((one for one in rows["ad_groups"] if one["ad_group_id"] == ad["ad_group_id"]), None)
    if group is None:
        return False
    campaign = next((one for one in rows["campaigns"] if one["campaign_id"] == group["campaign_id"]), None)
    if campaign is None or campaign["advertiser_id"] not in known:
        return False
    owner = {"status": "active"}
    if "advertisers" in rows:
        listed = [one for one in rows["advertisers"] if one["advertiser_id"] == campaign["advertiser_id"]]
        owner = listed[0] if listed else {}
    if any(one.get("status") != "active" for one in (ad, group, campaign, owner)):
        return False
    if campaign.get("starts_at") is not None and request.now_us < moment(campaign["starts_at"]):
        return False
    if campaign.get("ends_at") is not None and request.now_us >= moment(campaign["ends_at"]):
        return False
    if not has_budget_left(campaign):
        return False
    if campaign.get("daily_budget_usd") is not None:
        spent, on = campaign.get("daily_spend_usd"), campaign.get("daily_spend_on")
        if spent is None or on is None:
            return False
        today = datetime.fromtimestamp(request.now_us / 1_000_000, UTC).date().isoformat()
        if (
            on > today
            or (on == today and spent >= campaign["daily_budget_usd"])
            or not campaign["daily_budget_usd"]
        ):
            return False
    asked = (("countries", request.country), ("devices", request.device), ("age_bands", request.age_band))
    for name, value in asked:
        if group.get(name) is not None and value not in group[name]:
            return False
    if group.get("interests") is not None and not set(group["interests"]) & set(request.interests):
        return False
    of_campaign = [
        one["ad_group_id"] for one in rows["ad_groups"] if one["campaign_id"] == campaign["campaign_id"]
    ]
    for capped, groups in ((group, [group["ad_group_id"]]), (campaign, of_campaign)):
        if capped.get("frequency_cap") is None:
            continue
        if request.shown is None:
            return False
        siblings = [one["ad_id"] for one in rows["ads"] if one["ad_group_id"] in groups]
        if sum(request.shown.get(one, 0) for one in siblings) >= capped["frequency_cap"]:
            return False
    if campaign["advertiser_id"] in request.blocked_advertisers:
        return False
    for blocked in request.blocked_categories:
        category = ad.get("category")
        if category is None:
            return False
        # Every step of the blocked path, in any spelling, begins the ad's.
        spelled, wanted = (
            re.sub(r"(\s*>\s*)+", ">", one.lower()).strip(" >") + ">" for one in (category, blocked)
        )
        if spelled.startswith(wanted) or wanted == ">":
            return False
    return True
