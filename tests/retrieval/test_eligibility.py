"""Eligibility against the rules read aloud for each item and advertiser of random catalogues."""

import itertools
import random
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from forecart.retrieval.eligibility import EligibilityRules, read_eligibility
from forecart.sequences import histories as histories_module
from forecart.sequences.build import Sequences
from forecart.sequences.histories import Histories
from forecart.sequences.pair_log import PairLog
from forecart.sequences.vocabulary import Vocabulary

SCHEMA = {
    "item_id": pl.String,
    "advertiser_id": pl.String,
    "category": pl.String,
    "availability": pl.String,
}
AS_OF = 1000


@pytest.fixture(params=[histories_module.BLOCK_EVENTS, 3], autouse=True, scope="module")
def block_events(request):
    """A log is read in blocks of users; the answers are the same in one block and in many."""
    with patch.object(histories_module, "BLOCK_EVENTS", request.param):
        yield


class World:
    """Items with what the catalogue says of them, advertisers, and who had an event with whom and when."""

    def __init__(self, items: dict[str, tuple], advertisers: list[str], events: list[tuple] = ()) -> None:
        self.items, self.advertisers, self.events = items, advertisers, sorted(events)
        listed = {name: row for name, row in items.items() if row[1] != "unlisted"}
        self.catalogue = pl.DataFrame([(name, *row) for name, row in listed.items()], SCHEMA, orient="row")
        self.spaces = {"items": Vocabulary.build(list(items)), "advertisers": Vocabulary.build(advertisers)}

    def sequences(self) -> Sequences:
        owners = pl.Series([row[0] for row in self.items.values()], dtype=pl.String)
        owner = self.spaces["advertisers"].index(owners)
        return Sequences(
            histories=self.histories(),
            users=Vocabulary.build(["u2", "u3", "u4", "u5"]),
            categories=Vocabulary.build([]),
            item_advertiser=np.concatenate([[0, 1], np.maximum(owner, 1)]).astype(np.int32),
            item_category=np.ones((len(self.items) + 2, 2), np.int32),
            item_price=np.full(len(self.items) + 2, np.nan, np.float32),
            user_country=np.zeros(6, np.uint16),
            manifest={},
            **self.spaces,
        )

    def histories(self) -> Histories:
        length = np.bincount([user for user, *_ in self.events] or np.zeros(0, int), minlength=6)
        arrived = np.array([at for _, at, _ in self.events], np.int64)
        return Histories(
            start=np.cumsum(length) - length,
            length=length,
            event_type=np.full(len(arrived), 3, np.uint8),
            advertiser=self.spaces["advertisers"].index([name for *_, name in self.events]),
            item=np.zeros(len(arrived), np.int32),
            occurred_us=arrived,
            arrived_us=arrived,
            price=np.full(len(arrived), np.nan, np.float32),
        )

    def eligible(self, level: str, **rules) -> set[str]:
        sequences = self.sequences()
        num_advertisers = len(self.spaces["advertisers"])
        log = PairLog.build(
            sequences.histories,
            level="advertiser",
            num_candidates=num_advertisers,
            conversion_codes=frozenset({6}),
        )
        mask = read_eligibility(
            EligibilityRules(**rules),
            sequences=sequences,
            catalogue=self.catalogue,
            advertiser_log=log,
            level=level,
            as_of_us=AS_OF,
        )
        vocabulary = self.spaces[f"{level}s"]
        assert mask.shape == (len(vocabulary),) and mask.dtype == bool and not mask[:2].any()
        return set(vocabulary.ids(np.flatnonzero(mask)))


def naive_eligible(world: World, rules: EligibilityRules) -> tuple[set[str], set[str]]:
    """The rules read aloud: the eligible items and the eligible advertisers."""

    def is_allowed(advertiser: str) -> bool:
        users = {user for user, at, name in world.events if name == advertiser and at < AS_OF}
        return advertiser not in rules.denied_advertisers and len(users) >= rules.min_advertiser_users

    def is_kept(advertiser: str | None, category: str | None, availability: str | None) -> bool:
        if advertiser is None or not is_allowed(advertiser):
            return False
        if category == "unlisted":
            return not rules.denied_categories
        if availability and availability.strip().lower() not in rules.available:
            return False
        steps = (category or "").lower().split(" > ")
        above = {" > ".join(steps[: depth + 1]) for depth in range(len(steps))}
        denied = {path.lower() for path in rules.denied_categories}
        return not denied or (bool(category) and not above & denied)

    items = {name for name, row in world.items.items() if is_kept(*row)}
    advertisers = set()
    for name in filter(is_allowed, world.advertisers):
        mine = {item for item, row in world.items.items() if row[0] == name}
        if not mine or mine & items:
            advertisers.add(name)
    return items, advertisers


@pytest.mark.parametrize("seed", range(20))
def test_masks_are_those_of_the_rules_read_aloud(seed):
    rng = random.Random(seed)
    advertisers = [f"a{at}" for at in range(6)]
    categories = [
        "Food",
        "Food > Fruit",
        "Food > Fruit > Apple",
        "Foodstuff",
        "Tools > Saws",
        None,
        "",
        "unlisted",
    ]
    availabilities = ["in_stock", "In Stock", " preorder ", "out_of_stock", "discontinued", "???", "", None]
    items = {
        f"i{at}": (
            rng.choice([*advertisers[:5], None] if at % 7 == 0 else advertisers[:5]),
            rng.choice(categories),
            rng.choice(availabilities),
        )
        for at in range(30)
    }
    events = [(rng.randrange(2, 6), rng.randrange(0, 1500), rng.choice(advertisers)) for _ in range(25)]
    world = World(items, advertisers, events)
    choices = itertools.product(
        [[], ["food > fruit"], ["Food", "Tools > Saws"]], [[], ["a1", "nobody"]], [0, 2], [None, ["in_stock"]]
    )
    for denied_categories, denied_advertisers, min_users, available in choices:
        given = {
            "denied_categories": denied_categories,
            "denied_advertisers": denied_advertisers,
            "min_advertiser_users": min_users,
        } | ({"available": available} if available else {})
        expected_items, expected_advertisers = naive_eligible(world, EligibilityRules(**given))
        assert world.eligible("item", **given) == expected_items
        assert world.eligible("advertiser", **given) == expected_advertisers


@pytest.mark.parametrize("availability", ["out_of_stock", "sold out", "???"])
def test_an_availability_that_is_not_known_as_one_is_not_eligible(availability):
    world = World({"i": ("a", "Food", availability), "j": ("a", "Food", None)}, ["a"])
    assert world.eligible("item") == {"j"}


def test_an_item_of_an_unknown_advertiser_is_not_eligible():
    assert World({"i": (None, "Food", None)}, ["a"]).eligible("item") == set()


@pytest.mark.parametrize("category", [None, "", "unlisted"])
def test_an_item_without_a_category_is_not_eligible_while_one_is_denied(category):
    world = World({"i": ("a", category, None), "j": ("b", "Tools", None)}, ["a", "b"])
    assert world.eligible("item") == {"i", "j"}
    assert world.eligible("item", denied_categories=["Food"]) == {"j"}
    assert world.eligible("advertiser", denied_categories=["Food"]) == {"b"}


def test_events_at_or_after_the_moment_do_not_make_an_advertiser_eligible():
    late = [(2, AS_OF - 1, "a"), (3, AS_OF, "a"), (4, AS_OF + 1, "a")]
    assert World({}, ["a"], late).eligible("advertiser", min_advertiser_users=2) == set()
    early = [(2, AS_OF - 2, "a"), (3, AS_OF - 1, "a")]
    assert World({}, ["a"], early).eligible("advertiser", min_advertiser_users=2) == {"a"}
    assert World({}, ["a"], [early[0], *early]).eligible("advertiser", min_advertiser_users=3) == set()


def test_unknown_rules_are_refused():
    with pytest.raises(ValidationError):
        EligibilityRules(denied_category=["Food"])
