"""Every step of the ladder and its label, on releases whose lists are known (tests/publish/small_release)."""

from dataclasses import replace

import msgspec
import pytest
from tests.publish.small_release import (
    AS_OF_US,
    DAY_US,
    LAYOUT,
    TTL_S,
    advertisers_of,
    build,
    items_of,
    make_parts,
)

from forecart.ads.blending import BlendRules
from forecart.errors import StoreError, StoreTimeoutError
from forecart.publish.pointer import Pointer
from forecart.publish.release import Release, build_release
from forecart.publish.store import StoredUser
from forecart.sequences.vocabulary import FIRST_INDEX
from forecart.serving.answers import AdvertiserAnswer, AdvertiserAsk, CandidateAsk, encode, encode_lists
from forecart.serving.breaker import Breaker
from forecart.serving.choosing import AdChooser, rank_by_release
from forecart.serving.current import OpenRelease, Served
from forecart.serving.guard import GuardedStore
from forecart.serving.service import CandidateService

OK = {"opt_out": False}
POPULAR = [f"advertiser-{number}" for number in range(10)]
IN_GERMANY = POPULAR[::-1]
NOW_US = AS_OF_US + DAY_US + 3_600_000_000
POINTER = Pointer("", None, 1, "publish", "")
MAX_STALENESS_S = 3 * 86_400
CHOOSER = AdChooser(rank_by_release({}), BlendRules())


class FakeStore:
    """Reads releases as they are; `fault` is raised or replaces what is read."""

    def __init__(self, *releases):
        self.releases = {release.release_id: release for release in releases}
        self.fault = None
        self.suppressed = set()
        self.num_reads = 0

    def read(self, release_id, user_id):
        self.num_reads += 1
        if isinstance(self.fault, Exception):
            raise self.fault
        payload = self.releases[release_id].users.read(user_id)
        if self.fault is not None:
            payload = self.fault(payload)
        return StoredUser(payload, user_id in self.suppressed)

    def distrust(self):
        pass


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ladder")
    return build(folder / "old", 0, num_users=60), build(folder / "new", 1, num_users=50)


@pytest.fixture
def world(releases):
    return World(*releases)


class World:
    def __init__(self, old, new):
        self.store = FakeStore(old, new)
        self.served = Served(OpenRelease(new), OpenRelease(old), POINTER)
        self.now_us = NOW_US
        self.breaker = Breaker(max_failures=3, reset_s=1000)
        self.service = CandidateService(
            GuardedStore(self.store, self.breaker),
            lambda: self.served,
            max_staleness_s=MAX_STALENESS_S,
            ads=CHOOSER,
            clock=lambda: self.now_us,
        )

    def ask(self, user_id="user-7", consent=OK, **fields):
        """Returns the answer as a client reads it."""
        answer = self.service.advertisers(AdvertiserAsk(user_id=user_id, consent=consent, **fields))
        return msgspec.json.decode(encode_lists(answer), type=AdvertiserAnswer)


def names(indices):
    return [f"advertiser-{index - FIRST_INDEX}" for index in indices]


def listed(answer):
    return [advertiser_id for part in answer.advertisers for advertiser_id in part.ids]


def test_a_known_user_gets_the_list_of_the_release(world):
    answer = world.ask("user-7", limit=6)
    assert listed(answer) == names(advertisers_of(7, 1))
    assert (answer.source, answer.degraded) == ("advertisers", [])
    assert answer.release == world.served.current.release.release_id
    assert answer.as_of == "2024-10-05T00:00:00+00:00"
    (part,) = answer.advertisers
    assert part.ranks == [1, 2, 3, 4, 5, 6]
    assert part.scores == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6, 0.5])
    assert part.is_repeat == [True] + [False] * 5
    assert part.source == "advertisers"


def test_both_encoders_write_the_same(world):
    for ask in (AdvertiserAsk(user_id="user-8", consent=OK), AdvertiserAsk()):
        answer = world.service.advertisers(ask)
        assert msgspec.json.decode(encode(answer)) == msgspec.json.decode(encode_lists(answer))


def test_a_short_list_is_filled_from_below_each_with_its_source(world):
    """user-8 has three advertisers of its own."""
    own = names(advertisers_of(8, 1))
    rest = [one for one in POPULAR if one not in own]
    answer = world.ask("user-8", limit=8)
    assert listed(answer) == (own + rest)[:8]
    assert [(part.source, len(part.ids)) for part in answer.advertisers] == [
        ("advertisers", 3),
        ("fallback_global", 5),
    ]
    assert all(len(part.ids) == len(part.scores) == len(part.is_repeat) for part in answer.advertisers)
    assert answer.advertisers[1].ranks == [POPULAR.index(one) + 1 for one in answer.advertisers[1].ids]
    assert answer.source == "advertisers" and answer.degraded == []


def test_blocked_advertisers_never_show_and_never_cost_a_place(world):
    blocked = [*names(advertisers_of(7, 1))[:4], "advertiser-0", "nobody-knows-it"]
    answer = world.ask("user-7", limit=6, blocked_advertisers=blocked)
    expected = [one for one in names(advertisers_of(7, 1)) + POPULAR if one not in blocked]
    assert listed(answer) == list(dict.fromkeys(expected))[:6]


@pytest.mark.parametrize(
    ("consent", "reason"),
    [
        (None, "consent_unreadable"),
        ({}, "consent_unreadable"),
        ({"gdpr": "?"}, "consent_unreadable"),
        ({"opt_out": True}, "consent_denied"),
        ({"gdpr": 1, "tcf_purposes": [1]}, "consent_denied"),
    ],
)
def test_without_consent_nothing_is_personal_and_the_store_is_not_asked(world, consent, reason):
    answer = world.ask("user-7", consent, limit=10)
    assert listed(answer) == POPULAR
    assert (answer.source, answer.degraded) == ("fallback_global", [reason])
    assert not any(answer.advertisers[0].is_repeat)
    assert world.store.num_reads == 0


def test_a_country_with_a_list_comes_before_the_world(world):
    assert listed(world.ask(None, country="DE", limit=10)) == IN_GERMANY
    assert world.ask(None, country="DE").source == "fallback_country"
    assert world.ask(None, country="DE").degraded == ["no_user"]
    assert world.ask(None, country="FR").source == "fallback_global"
    assert world.ask(None, country="**").source == "fallback_global"


def test_who_is_suppressed_gets_what_everybody_gets(world):
    world.store.suppressed.add("user-7")
    answer = world.ask("user-7", limit=10)
    assert (listed(answer), answer.degraded) == (POPULAR, ["suppressed"])
    assert world.store.num_reads == 1


def test_who_is_only_in_the_release_before_is_answered_from_it(world):
    answer = world.ask("user-55", limit=6)
    assert listed(answer) == names(advertisers_of(55, 0))
    assert (answer.source, answer.degraded) == ("previous_release", ["unknown_user"])
    assert answer.release == world.served.previous.release.release_id
    assert answer.as_of == "2024-10-04T00:00:00+00:00"


def test_who_is_in_neither_gets_what_everybody_gets(world):
    answer = world.ask("stranger", limit=10)
    assert (listed(answer), answer.source, answer.degraded) == (POPULAR, "fallback_global", ["unknown_user"])


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (StoreTimeoutError("late"), "store_timeout"),
        (StoreError("gone"), "store_down"),
        (AttributeError("a client's own mistake"), "store_down"),
        (lambda payload: payload[:-1], "record_damaged"),
        (lambda payload: payload[:50] + bytes([payload[50] ^ 1]) + payload[51:], "record_damaged"),
        (lambda payload: b"garbage", "record_damaged"),
        (lambda payload: b"", "record_damaged"),
    ],
)
def test_a_store_that_fails_is_said_to(world, fault, reason):
    world.store.fault = fault
    answer = world.ask("user-7", limit=10)
    assert (listed(answer), answer.source, answer.degraded) == (POPULAR, "fallback_global", [reason])


def test_a_store_that_keeps_failing_is_not_asked_any_more(world):
    world.store.fault = StoreTimeoutError("late")
    reasons = [world.ask("user-7").degraded for _ in range(6)]
    assert reasons == [["store_timeout"]] * 3 + [["store_down"]] * 3
    assert world.store.num_reads == 3 and world.breaker.state == "open"


def test_a_store_that_fails_now_and_then_stays_asked(world):
    for _ in range(4):
        for fault in (StoreTimeoutError("late"), StoreError("gone"), None):
            world.store.fault = fault
            answer = world.ask("user-7")
        assert answer.degraded == [] and world.breaker.state == "closed"


def test_a_record_of_another_release_is_refused(world, releases):
    """The store answers records of the old release for every question."""
    old, new = releases
    world.store.releases[new.release_id] = old
    answer = world.ask("user-7", limit=6)
    assert (answer.source, answer.degraded) == ("previous_release", ["version_skew"])
    assert listed(answer) == names(advertisers_of(7, 0))
    world.served = replace(world.served, previous=None)
    answer = world.ask("user-7", limit=10)
    assert (listed(answer), answer.degraded) == (POPULAR, ["version_skew"])


def test_vectors_of_another_embedding_space_are_refused(world, tmp_path):
    """R4: the same release id, whose records were written in another space."""
    build_release(make_parts(1, num_users=50, space="space-2"), tmp_path / "other")
    other = Release.open(tmp_path / "other")
    payload = bytearray(other.users.read("user-7"))
    world.store.fault = lambda _: bytes(payload)
    assert world.ask("user-7").degraded == ["version_skew"]
    assert world.ask("user-7").source == "fallback_global"


def test_a_release_that_is_too_old_is_not_personal(world):
    as_of_us = AS_OF_US + DAY_US
    world.now_us = as_of_us + MAX_STALENESS_S * 1_000_000
    assert world.ask("user-7").degraded == []
    world.now_us += 1
    answer = world.ask("user-7", limit=10)
    assert (listed(answer), answer.source, answer.degraded) == (POPULAR, "fallback_global", ["release_stale"])


def test_a_release_before_that_is_too_old_is_not_used(world):
    world.now_us = AS_OF_US + MAX_STALENESS_S * 1_000_000 + 1
    assert world.ask("user-55").degraded == ["unknown_user"]
    assert world.ask("user-55").source == "fallback_global"
    assert world.ask("user-7").source == "advertisers"


def test_a_record_lives_as_long_as_its_release_says(world):
    world.service = CandidateService(
        GuardedStore(world.store, world.breaker),
        lambda: world.served,
        max_staleness_s=100 * TTL_S,
        ads=CHOOSER,
        clock=lambda: world.now_us,
    )
    world.now_us = AS_OF_US + DAY_US + TTL_S * 1_000_000
    assert world.ask("user-7").degraded == []
    world.now_us += 1
    assert world.ask("user-7").degraded == ["record_expired"]
    assert world.ask("user-7").source == "fallback_global"


def test_where_the_release_is_damaged_the_one_before_answers(world):
    world.served = replace(world.served, current=None)
    answer = world.ask("user-7", limit=6)
    assert (answer.source, answer.degraded) == ("previous_release", ["release_refused"])
    assert listed(answer) == names(advertisers_of(7, 0))


def test_while_the_store_has_never_answered_nothing_is_personal(world):
    world.served = replace(world.served, pointer=None, previous=None)
    answer = world.ask("user-7", limit=10)
    assert (listed(answer), answer.source, answer.degraded) == (POPULAR, "fallback_global", ["store_down"])


def test_without_any_release_there_is_an_answer_too(world):
    world.served = Served()
    answer = world.ask("user-7")
    assert (answer.advertisers, answer.source, answer.release) == ([], "none", None)
    assert "no_release" in answer.degraded


def test_candidates_without_an_inventory_are_advertisers_and_products(world):
    ask = CandidateAsk(user_id="user-7", consent=OK, limit=4, request_id="r1")
    answer = world.service.candidates(ask)
    assert answer.products[0].ids == [f"item-{one - FIRST_INDEX}" for one in items_of(7, 1)]
    assert listed(answer) == names(advertisers_of(7, 1))[:4]
    assert answer.degraded == ["no_inventory"] and answer.request_id == "r1"
    sent = msgspec.json.decode(encode(answer))
    assert [part["ranks"] for part in sent["products"] + sent["advertisers"]] == [[1, 2, 3, 4]] * 2
    assert [part.source for part in answer.products] == ["products"]


def test_one_request_sees_one_release_even_when_it_changes_meanwhile(world, releases):
    old, new = releases
    reading = world.service.read(AdvertiserAsk(user_id="user-7", consent=OK))
    world.served = Served(OpenRelease(old), None, POINTER)
    answer = world.service.advertisers(AdvertiserAsk(user_id="user-7", consent=OK, limit=6), reading)
    assert answer.release == new.release_id and listed(answer) == names(advertisers_of(7, 1))


def test_every_user_of_a_release_gets_their_own_list(world):
    for number in range(50):
        own = names(advertisers_of(number, 1))
        assert listed(world.ask(f"user-{number}", limit=len(own))) == own
    assert LAYOUT.num_advertisers == 6
