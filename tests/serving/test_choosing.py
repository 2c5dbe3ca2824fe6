"""An adversarial day: random requests on random inventories against rules read one by one from plain rows."""

import json
import os
import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from tests.ads.small_inventory import may_be_shown
from tests.publish.small_release import (
    AS_OF_US,
    DAY_US,
    LAYOUT,
    NUM_ADVERTISERS,
    NUM_ITEMS,
    advertisers_of,
    build,
    items_of,
    make_parts,
    user_ids,
)
from tests.serving.test_ladder import POINTER, FakeStore

from forecart.ads.blending import BlendRules, Quota
from forecart.ads.l1 import CalibratedBid
from forecart.ads.outcomes import OutcomeLog, read_outcomes
from forecart.errors import DataError
from forecart.metrics.calibration import Calibration
from forecart.publish.release import Release, build_release
from forecart.sequences.vocabulary import FIRST_INDEX, Vocabulary
from forecart.serving.answers import AdvertiserAsk, CandidateAsk
from forecart.serving.breaker import Breaker
from forecart.serving.choosing import FALLBACK_CALIBRATIONS, AdChooser, rank_by_release
from forecart.serving.current import OpenRelease, Served
from forecart.serving.guard import GuardedStore
from forecart.serving.openrtb import make_bids, read_bid_request
from forecart.serving.outcome_writer import OutcomeWriter
from forecart.serving.service import CandidateService
from forecart.serving.stock import Stock

NUM_USERS = 50
NUM_WORLDS, REQUESTS_A_WORLD = 20, 50
NOW_US = AS_OF_US + 2 * DAY_US + 5 * 3_600_000_000
NOW = datetime.fromtimestamp(NOW_US / 1e6, UTC)
OK = {"opt_out": False}
OWN = ("advertisers", "products")
PERSONAL = (*OWN, "retrieved")
ADVERTISERS = [f"advertiser-{number}" for number in range(NUM_ADVERTISERS)]
CATEGORIES = [None, "FOOD", "FOOD > CANDY", "FOOD > CANDYFLOSS", "TOYS"]
POPULAR_ADVERTISERS = {"*": ADVERTISERS[:10], "DE": ADVERTISERS[:10][::-1]}
POPULAR_ITEMS = {"*": [f"item-{number}" for number in range(10)]}
POPULAR_SCORE = {"*": [1 - 0.01 * place for place in range(10)]}
POPULAR_SCORE["DE"] = POPULAR_SCORE["*"][::-1]


def random_rows(generator):
    """An inventory with a little of everything, of which about half may be shown to somebody."""

    def maybe(value, share=0.25):
        return value if generator.random() < share else None

    def status():
        return generator.choices(["active", "paused", "ended", None], [12, 1, 1, 1])[0]

    def day(shift):
        return (NOW + timedelta(days=shift)).isoformat()

    rows = {"campaigns": [], "ad_groups": [], "ads": []}
    for number in range(30):
        budget = maybe(
            generator.choice([{"budget_usd": 9.0, "spend_usd": spend} for spend in (1, 9, None)]), 0.3
        )
        campaign = {
            "campaign_id": f"c{number}",
            "advertiser_id": generator.choice([*ADVERTISERS, "somebody-else"]),
            "status": status(),
            "starts_at": maybe(day(generator.choice([-2, -1, 1]))),
            "ends_at": maybe(day(generator.choice([-1, 1, 1, 2]))),
            **(budget or {}),
        }
        rows["campaigns"].append(campaign)
    for number in range(60):
        rows["ad_groups"].append(
            {
                "ad_group_id": f"g{number}",
                "campaign_id": f"c{generator.randrange(31)}",
                "status": status(),
                "countries": maybe(generator.sample(["DE", "FR", "US"], 2)),
                "devices": maybe(["phone"]),
                "age_bands": maybe(["25-34"], 0.1),
                "interests": maybe(["dogs", "cats"], 0.1),
                "frequency_cap": maybe(generator.randrange(3)),
            }
        )
    for number in range(generator.choice([40, 150, 300])):
        rows["ads"].append(
            {
                "ad_id": f"ad{number}",
                "ad_group_id": f"g{generator.randrange(60)}",
                "status": status(),
                "item_id": maybe(f"item-{generator.randrange(NUM_ITEMS + 3)}", 0.7),
                "category": generator.choice(CATEGORIES),
                "bid_usd": generator.choice([0.5, 1.0, 2.0]),
            }
        )
    return rows


def random_ask(generator):
    def maybe(make, share=0.3):
        return make() if generator.random() < share else None

    return CandidateAsk(
        user_id=generator.choice([*user_ids(NUM_USERS), "stranger", None]),
        consent=generator.choice([OK, OK, OK, OK, {}, {"gpc": True}]),
        country=generator.choice(["DE", "FR", None]),
        device=generator.choice(["phone", "desktop", None]),
        age_band=maybe(lambda: "25-34"),
        interests=generator.sample(["dogs", "cats", "tea"], generator.randrange(3)),
        limit=generator.choice([1, 3, 10, 30]),
        blocked_advertisers=maybe(lambda: generator.sample(ADVERTISERS, 5)) or [],
        blocked_categories=maybe(lambda: generator.sample(["food > candy", "toys", "x"], 2)) or [],
        shown=maybe(
            lambda: {f"ad{generator.randrange(150)}": generator.randrange(3) for _ in range(20)}, 0.7
        ),
    )


class World:
    """A service over one release and one inventory, and the same as plain rows."""

    def __init__(self, release, folder, rows, *, rules, ranker=None, outcomes=None):
        self.rows, self.rules = rows, rules
        folder.mkdir(exist_ok=True)
        for name, found in rows.items():
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
        self.stock = Stock(folder)
        self.served = Served(OpenRelease(release), None, POINTER)
        self.stock.follow(self.served)
        self.store = FakeStore(release)
        generation = make_parts(1, num_users=NUM_USERS)
        vector_ND, prior_N = generation.item_vectors
        # Every user's vector is 1 in one place.
        self.item_score = {
            f"item-{n}": float(vector_ND[n + FIRST_INDEX, 1 % LAYOUT.width] + prior_N[n + FIRST_INDEX])
            for n in range(NUM_ITEMS)
        }
        self.service = CandidateService(
            GuardedStore(self.store, Breaker()),
            lambda: self.served,
            max_staleness_s=10 * 86_400,
            ads=AdChooser(rank_by_release({}) if ranker is None else lambda _: ranker, rules),
            outcomes=outcomes,
            clock=lambda: NOW_US,
        )
        groups = {row["ad_group_id"]: row for row in rows["ad_groups"]}
        campaigns = {row["campaign_id"]: row for row in rows["campaigns"]}
        self.ads = {}
        for ad in rows["ads"]:
            campaign = campaigns.get(groups.get(ad["ad_group_id"], {}).get("campaign_id"))
            self.ads[ad["ad_id"]] = ad | {"advertiser_id": campaign and campaign["advertiser_id"]}

    def may_be_shown(self, ad_id, ask):
        return may_be_shown(self.ads[ad_id], self.rows, self.service._describe(ask), ADVERTISERS)

    def is_personal(self, ask):
        return ask.consent == OK and ask.user_id in user_ids(NUM_USERS)

    def lists(self, ask):
        """source -> (advertiser or item -> (rank, score)), from the top down, advertisers before products."""
        found = []
        if self.is_personal(ask):
            number = user_ids(NUM_USERS).index(ask.user_id)
            for source, index, kind in (
                ("advertisers", advertisers_of(number, 1), "advertiser"),
                ("products", items_of(number, 1), "item"),
            ):
                names = [f"{kind}-{one - FIRST_INDEX}" for one in index]
                found.append((source, {name: (at + 1, 1 - 0.1 * at) for at, name in enumerate(names)}))
            shown = [ad for ad_id, ad in self.ads.items() if self.may_be_shown(ad_id, ask)]
            near = {ad["item_id"] for ad in shown} & set(self.item_score)
            near = sorted(near, key=lambda item: (-self.item_score[item], int(item[5:])))[:100]
            places = {item: (at + 1, self.item_score[item]) for at, item in enumerate(near)}
            found.append(("retrieved", places))
        for country, source in (("DE", "fallback_country"), ("*", "fallback_global")):
            if country in (ask.country, "*"):
                for lists in (POPULAR_ADVERTISERS, POPULAR_ITEMS):
                    names = lists.get(country, [])
                    scores = POPULAR_SCORE[country]
                    found.append((source, {name: (at + 1, scores[at]) for at, name in enumerate(names)}))
        return found

    def candidates(self, ask):
        """Every (source, ad) that may be shown; of a product the best bid, of an advertiser all."""
        found = []
        good = [ad_id for ad_id in self.ads if self.may_be_shown(ad_id, ask)]
        for source, listed in self.lists(ask):
            for ad_id in good:
                ad = self.ads[ad_id]
                if ad["advertiser_id"] in listed:
                    found.append((source, ad_id))
                if ad["item_id"] in listed:
                    same = [one for one in good if self.ads[one]["item_id"] == ad["item_id"]]
                    if ad_id == min(same, key=lambda one: (-self.ads[one]["bid_usd"], one)):
                        found.append((source, ad_id))
        return found

    def could_be_added(self, source, ad_id, taken, limit):
        """Whether the rules allow one more; `taken` is (source, ad) of those there are."""
        ad = self.ads[ad_id]
        product = ad["item_id"]
        others = [self.ads[one] for _, one in taken]
        quota = self.rules.quotas.get(source, Quota())
        return (
            len(taken) < limit
            and ad_id not in [one for _, one in taken]
            and (product is None or product not in [one["item_id"] for one in others])
            and sum(one["advertiser_id"] == ad["advertiser_id"] for one in others)
            < self.rules.ads_per_advertiser
            and sum(one == source for one, _ in taken) < quota.most
        )


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return build(tmp_path_factory.mktemp("release") / "one", 1, num_users=NUM_USERS)


def random_rules(generator):
    quotas = {}
    for source in generator.sample(["advertisers", "products", "fallback_global"], generator.randrange(3)):
        least = generator.randrange(3)
        quotas[source] = Quota(least, generator.randrange(max(least, 1), 8))
    return BlendRules(quotas, generator.randrange(1, 4))


def differences(world, ask):
    """What is wrong with an answer, in words; empty where nothing is."""
    answer = world.service.candidates(ask)
    taken = [(ad.source, ad.ad_id) for ad in answer.ads]
    values = [ad.value for ad in answer.ads]
    checks = {
        "an ad may not be shown": all(world.may_be_shown(one, ask) for _, one in taken),
        "an ad breaks a rule of the list": all(
            world.could_be_added(*one, taken[:at], ask.limit) for at, one in enumerate(taken)
        ),
        "the order is not that of value": values == sorted(values, reverse=True),
        "no ads without a reason": bool(answer.ads) != ("inventory_empty" in answer.degraded),
        "an ad came otherwise than it says": all(came_as_it_says(world, ask, ad) for ad in answer.ads),
    }
    return [what for what, is_so in checks.items() if not is_so] + misses(world, ask, taken)


def misses(world, ask, taken):
    """Which candidates should have had a place."""
    candidates = world.candidates(ask)
    if set(taken) - set(candidates):
        return ["an ad is of no list"]
    if any(world.could_be_added(*one, taken, ask.limit) for one in candidates):
        return ["the list is not full"]
    for better in (OWN, PERSONAL):
        own = [one for one in taken if one[0] in better]
        spare = [one for one in candidates if one[0] in better]
        if len(own) < len(taken) and any(world.could_be_added(*one, own, ask.limit) for one in spare):
            return [f"another list was used before {better} were"]
    return ["it is personal"] if own and not world.is_personal(ask) else []


def came_as_it_says(world, ask, ad):
    lists = [listed for source, listed in world.lists(ask) if source == ad.source]
    facts = [listed[name] for listed in lists for name in {ad.advertiser_id, ad.item_id} & set(listed)]
    return any(ad.rank == rank and ad.score == pytest.approx(score, abs=1e-5) for rank, score in facts)


@pytest.mark.parametrize("seed", range(NUM_WORLDS))
def test_an_adversarial_day_has_no_differences(release, tmp_path, seed):
    generator = random.Random(seed)
    world = World(release, tmp_path / "ads", random_rows(generator), rules=random_rules(generator))
    num_ads = 0
    for _ in range(REQUESTS_A_WORLD):
        ask = random_ask(generator)
        assert differences(world, ask) == [], ask
        num_ads += len(world.service.candidates(ask).ads)
    assert num_ads > 20


ROWS = {
    "campaigns": [
        {"campaign_id": f"c{n}", "advertiser_id": ADVERTISERS[n], "status": "active"} for n in range(40)
    ],
    "ad_groups": [{"ad_group_id": f"g{n}", "campaign_id": f"c{n}", "status": "active"} for n in range(40)],
    "ads": [
        {
            "ad_id": f"ad{n}",
            "ad_group_id": f"g{n % 40}",
            "status": "active",
            "bid_usd": 1.0 + n % 3,
            "item_id": f"item-{n % 60}",
        }
        for n in range(120)
    ],
}


@pytest.mark.parametrize("seed", [None, *range(7)])
def test_advertisers_are_those_with_an_ad_for_this_request(release, tmp_path, seed):
    generator = random.Random(seed or 0)
    rows = ROWS if seed is None else random_rows(generator)
    world = World(release, tmp_path / "ads", rows, rules=BlendRules())
    for _ in range(60):
        ask = random_ask(generator)
        asked = AdvertiserAsk(**{name: getattr(ask, name) for name in AdvertiserAsk.__struct_fields__})
        answer = world.service.advertisers(asked)
        can = {world.ads[ad_id]["advertiser_id"] for ad_id in world.ads if world.may_be_shown(ad_id, ask)}
        lists = [listed for source, listed in world.lists(ask) if "advertiser" in next(iter(listed), "")]
        expected = list(dict.fromkeys(name for listed in lists for name in listed if name in can))
        assert [one for part in answer.advertisers for one in part.ids] == expected[: ask.limit]


ASK = CandidateAsk(user_id="user-7", consent=OK, limit=6)
BID_REQUEST = read_bid_request(b'{"id": "auction", "imp": [{"id": "1"}]}')


def test_an_update_holds_from_the_next_request_on(release, tmp_path):
    world = World(release, tmp_path / "ads", ROWS, rules=BlendRules())
    first = world.service.candidates(ASK).ads[0].ad_id
    version = world.service.candidates(ASK).inventory
    assert world.stock.change([{"ad": first, "set": {"status": "paused"}}], world.served) == (1, 0)
    answer = world.service.candidates(ASK)
    assert first not in [ad.ad_id for ad in answer.ads] and len(answer.ads) == 6
    assert answer.inventory > version
    assert world.stock.change([{"ad": "nobody", "set": {"status": "paused"}}, {"x": 1}], world.served) == (
        0,
        2,
    )
    # Another process that reads the folder later knows of it too.
    other = Stock(tmp_path / "ads")
    other.follow(world.served)
    eligibility = world.served.current.ads
    mask = eligibility.ads(world.service._describe(ASK))
    assert not mask[eligibility.snapshot.place_of[first]] and mask.sum() == len(ROWS["ads"]) - 1


def test_two_releases_that_number_differently_each_have_their_inventory(release, tmp_path):
    world = World(release, tmp_path / "ads", ROWS, rules=BlendRules())
    same, first = OpenRelease(release), world.served.current
    world.stock.follow(Served(same, first, POINTER))
    assert same.ads is first.ads is not None

    class Renumbered(OpenRelease):
        numbering = ("other", "other")

    other = Renumbered(release)
    world.stock.follow(Served(other, first, POINTER))
    assert other.ads is not None and other.ads is not first.ads
    world.stock.follow(Served(other, None, POINTER))
    assert first.ads is not None, "a request that is under way goes on with it"


def test_a_line_that_was_cut_swallows_no_pause(release, tmp_path):
    world = World(release, tmp_path / "ads", ROWS, rules=BlendRules())
    first = world.service.candidates(ASK).ads[0].ad_id
    (tmp_path / "ads" / "updates.jsonl").write_bytes(b'{"ad": "ad1", "set": {"bid_u')
    # The line that was cut is told as one that breaks a rule.
    assert world.stock.change([{"ad": first, "set": {"status": "paused"}}], world.served) == (1, 1)
    assert first not in [ad.ad_id for ad in world.service.candidates(ASK).ads]


def test_a_pause_that_the_disk_took_half_of_is_no_success(release, tmp_path, monkeypatch):
    world = World(release, tmp_path / "ads", ROWS, rules=BlendRules())
    first = world.service.candidates(ASK).ads[0].ad_id
    write, update = os.write, [{"ad": first, "set": {"status": "paused"}}]
    monkeypatch.setattr(os, "write", lambda descriptor, block: write(descriptor, block[: len(block) // 2]))
    with pytest.raises(OSError, match="bytes could be written"):
        world.stock.change(update, world.served)
    monkeypatch.undo()
    assert world.stock.change(update, world.served)[0] == 1
    assert first not in [ad.ad_id for ad in world.service.candidates(ASK).ads]


def unread_release(folder):
    """A release that numbers advertisers as none did before it."""
    more = Vocabulary.build([*ADVERTISERS, "one-more"])
    build_release(replace(make_parts(2, num_users=NUM_USERS), advertisers=more), folder)
    return OpenRelease(Release.open(folder))


@pytest.mark.parametrize("missing", ["ads.jsonl", "updates.jsonl"])
def test_nothing_is_shown_of_an_inventory_that_cannot_be_read(release, tmp_path, missing):
    world = World(release, tmp_path / "ads", ROWS, rules=BlendRules())
    before, after = world.served.current, unread_release(tmp_path / "next")
    world.store.releases[after.release.release_id] = after.release
    path, aside = tmp_path / "ads" / missing, tmp_path / "aside"
    first = world.service.candidates(ASK).ads[0].ad_id
    world.stock.change([{"ad": first, "set": {"status": "paused"}}], world.served)
    path.replace(aside)
    path.mkdir()
    served = Served(after, before, POINTER)
    with pytest.raises((DataError, OSError)):
        world.stock.follow(served)
    world.served = served
    answer = world.service.candidates(ASK)
    assert answer.release == after.release.release_id and answer.degraded == ["inventory_unreadable"]
    assert answer.ads == answer.advertisers == answer.products == [] and answer.inventory is None
    answer = world.service.advertisers(AdvertiserAsk(user_id="user-7", consent=OK))
    assert (answer.advertisers, answer.degraded) == ([], ["inventory_unreadable"])
    # What is open follows its updates meanwhile.
    mine = world.service._describe(ASK)
    assert not before.ads.ads(mine)[before.ads.snapshot.place_of[first]]
    if missing == "ads.jsonl":
        second = before.ads.snapshot.ad_ids[0]
        assert world.stock.change([{"ad": second, "set": {"status": "paused"}}], served) == (1, 0)
        assert not before.ads.ads(mine)[0]
    path.rmdir()
    aside.replace(path)
    world.stock.follow(served)
    answer = world.service.candidates(ASK)
    assert "inventory_unreadable" not in answer.degraded and len(answer.ads) == 6
    assert first not in [ad.ad_id for ad in answer.ads]


class FailingRanker:
    def __init__(self, outcome):
        self.outcome = outcome

    def value(self, request, snapshot, ads):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome(len(ads.place))


@pytest.mark.parametrize(
    "outcome",
    [
        ValueError("model"),
        KeyError("x"),
        lambda n: np.full(n, np.nan),
        lambda n: np.zeros(n + 1),
        lambda n: None,
    ],
)
def test_a_ranker_that_fails_costs_the_order_and_not_the_answer(release, tmp_path, outcome):
    world = World(release, tmp_path / "ads", ROWS, rules=BlendRules(), ranker=FailingRanker(outcome))
    answer = world.service.candidates(ASK)
    assert answer.degraded == ["l1_failed"] and len(answer.ads) == 6
    assert make_bids(BID_REQUEST, answer) is None, "a place in a list is no price"
    assert [ad.rank for ad in answer.ads] == sorted(ad.rank for ad in answer.ads)


def test_a_quota_is_of_the_sources_that_are_asked_by_their_names(release, tmp_path):
    """What `Quota` says of lower tiers and of the release before."""
    rules = BlendRules({"fallback_global": Quota(2, 5), "products": Quota(0, 0)}, ads_per_advertiser=9)
    world = World(release, tmp_path / "ads", ROWS, rules=rules)
    ask = CandidateAsk(user_id="user-7", consent=OK, limit=2)
    assert {ad.source for ad in world.service.candidates(ask).ads} == {"advertisers"}
    empty = build(tmp_path / "latest", 1, num_users=3)
    world.store.releases[empty.release_id] = empty
    world.served = Served(OpenRelease(empty), world.served.current, POINTER)
    world.stock.follow(world.served)
    ads = world.service.candidates(CandidateAsk(user_id="user-7", consent=OK, limit=100)).ads
    before = [ad for ad in ads if ad.source == "previous_release"]
    items = [f"item-{one - FIRST_INDEX}" for one in items_of(7, 1)]
    own = [f"advertiser-{one - FIRST_INDEX}" for one in advertisers_of(7, 1)]
    assert any(ad.item_id in items and ad.advertiser_id not in own for ad in before)


def test_values_are_probability_times_bid_on_one_scale(release, tmp_path):
    half = Calibration((0.0, 1.0), (0.0, 0.5))
    ranker = CalibratedBid(FALLBACK_CALIBRATIONS | {"advertisers": half, "products": half})
    world = World(release, tmp_path / "ads", ROWS, rules=BlendRules(), ranker=ranker)
    ads = world.service.candidates(CandidateAsk(user_id="user-7", consent=OK, limit=30)).ads
    assert set(PERSONAL) <= {ad.source for ad in ads}
    for ad in ads:
        # A curve goes on beyond its ends as it is there.
        probability = min(max(ad.score, 0), 1) * (0.5 if ad.source in PERSONAL else 1)
        assert ad.value == pytest.approx(probability * world.ads[ad.ad_id]["bid_usd"], abs=1e-5)


def test_an_order_without_a_scale_is_said_and_not_bid(release, tmp_path):
    """A probability of a half is bid at half the bid; what no curve says is not bid at all."""
    half = Calibration((0.0, 1.0), (0.5, 0.5))
    world = World(release, tmp_path / "ads", ROWS, rules=BlendRules())
    answer = world.service.candidates(ASK)
    assert {ad.source for ad in answer.ads} & set(OWN) and answer.degraded == ["uncalibrated"]
    assert make_bids(BID_REQUEST, answer) is None
    # Popularity is a share of users: it needs no curve.
    popular = world.service.candidates(CandidateAsk(user_id="stranger", consent=OK, limit=1))
    assert popular.degraded == ["unknown_user"] and make_bids(BID_REQUEST, popular) is not None
    # Where one list of an answer has no scale, the order of all of them is in doubt.
    world = World(release, tmp_path / "some", ROWS, rules=BlendRules(quotas={"products": Quota(1, 3)}))
    world.service._ads = replace(world.service._ads, ranker_of=rank_by_release({"advertisers": half}))
    answer = world.service.candidates(ASK)
    assert answer.degraded == ["uncalibrated"] and make_bids(BID_REQUEST, answer) is None
    world.service._ads = replace(
        world.service._ads, ranker_of=rank_by_release({"advertisers": half, "products": half})
    )
    answer = world.service.candidates(ASK)
    (bid,) = make_bids(BID_REQUEST, answer).seatbid[0].bid
    assert answer.degraded == []
    assert bid.price == pytest.approx(1000 * 0.5 * world.ads[bid.adid]["bid_usd"])


def test_values_are_by_the_calibration_of_the_release_and_else_by_the_operator_s(release, tmp_path):
    half, tenth = Calibration((0.0, 1.0), (0.0, 0.5)), Calibration((0.0, 1.0), (0.0, 0.1))
    calibrated = replace(release, calibrations={"advertisers": half, "products": half})
    ask = CandidateAsk(user_id="user-7", consent=OK, limit=30)

    def shares(world):
        return {
            (ad.source, round(ad.value / (ad.score * world.ads[ad.ad_id]["bid_usd"]), 2))
            for ad in world.service.candidates(ask).ads
            if ad.source in (*OWN, "previous_release")
        }

    world = World(calibrated, tmp_path / "ads", ROWS, rules=BlendRules())
    assert shares(world) == {("advertisers", 0.5), ("products", 0.5)}
    # Who is in the release before only has scores of its model, which its own calibration is for.
    latest = replace(build(tmp_path / "latest", 1, num_users=3), calibrations={"advertisers": tenth})
    world.store.releases[latest.release_id] = latest
    world.served = Served(OpenRelease(latest), world.served.current, POINTER)
    world.stock.follow(world.served)
    assert shares(world) == {("previous_release", 0.5)}
    ranker_of = rank_by_release({"products": tenth})
    assert ranker_of(calibrated) is ranker_of(calibrated)
    world = World(calibrated, tmp_path / "more", ROWS, rules=BlendRules(), ranker=ranker_of(calibrated))
    assert shares(world) == {("advertisers", 0.5), ("products", 0.1)}


def test_what_is_answered_is_in_the_outcome_log(release, tmp_path):
    writer = OutcomeWriter(OutcomeLog(tmp_path / "log"), key="sixteen characters")
    world = World(release, tmp_path / "ads", ROWS, rules=BlendRules(), outcomes=writer)
    writer.start()
    asks = [CandidateAsk(user_id=user, consent=OK, limit=4) for user in ("user-7", "user-8", "user-7")]
    asks += [CandidateAsk(user_id="user-7", consent={}), CandidateAsk(user_id="stranger", consent=OK)]
    answers = [world.service.candidates(ask) for ask in asks]
    writer.stop()
    rows = read_outcomes(tmp_path / "log").to_dicts()
    expected = Counter(
        (answer.request_id, at, ad.ad_id, ad.advertiser_id, ad.source, ad.score, answer.release, NOW_US)
        for answer in answers
        for at, ad in enumerate(answer.ads, start=1)
    )
    names = ("request_id", "position", "ad_id", "advertiser_id", "source", "score", "release_id", "at_us")
    assert Counter(tuple(row[name] for name in names) for row in rows) == expected
    keys = {row["request_id"]: row["user_key"] for row in rows}
    first, second, again, denied, stranger = [keys[answer.request_id] for answer in answers]
    assert first == again != second and denied is stranger is None
    assert not any("user-7" in str(value) for row in rows for value in row.values())
    assert writer.num_dropped == 0
