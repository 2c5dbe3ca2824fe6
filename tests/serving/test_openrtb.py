"""I1: OpenRTB 2.6 requests, what is read of them, and what their consent means."""

import json

import msgspec
import pytest
from tests.serving.test_tcf import consent_string

from forecart.serving.answers import AdCandidate, CandidateAnswer
from forecart.serving.consent import judge
from forecart.serving.openrtb import make_bids, read_ask, read_bid_request

# The example of a banner request in the specification, shortened, with fields that nobody here reads.
REQUEST = {
    "id": "80ce30c53c16e6ede735f123ef6e32361bfc7b22",
    "at": 1,
    "cur": ["USD"],
    "imp": [{"id": "1", "bidfloor": 0.03, "banner": {"h": 250, "w": 300, "pos": 0}, "ext": {"a": [1, {}]}}],
    "site": {"id": "102855", "cat": ["IAB3-1"], "domain": "www.foobar.com", "publisher": {"id": "8953"}},
    "device": {"ua": "Mozilla/5.0", "ip": "123.145.167.10", "geo": {"country": "DEU", "lat": 52.5}},
    "user": {"id": "55816b39711f9b5acf3b90e313ed29e51665623f", "buyeruid": "user-7", "yob": 1980},
    "regs": {"gdpr": 0},
    "tmax": 120,
    "wlang": ["de"],
    "unknown": None,
}
YES, NO = consent_string({1, 3, 4}), consent_string({1})


def read(**changes):
    return read_ask(read_bid_request(json.dumps(REQUEST | changes).encode()))


def test_what_is_read_of_a_request():
    ask = read()
    assert (ask.request_id, ask.user_id, ask.country, ask.deadline_ms) == (
        REQUEST["id"],
        "user-7",
        "DE",
        120,
    )
    assert judge(ask.consent) == "allowed"


def test_the_buyer_s_own_id_comes_before_the_exchange_s():
    assert read(user={"id": "a", "buyeruid": "b"}).user_id == "b"
    assert read(user={"id": "a"}).user_id == "a"
    assert read(user={"id": "a", "buyeruid": ""}).user_id == "a"
    assert read(user={}).user_id is None and read(user=None).user_id is None


@pytest.mark.parametrize("name", ["device", "user", "regs", "tmax", "site", "cur", "at"])
def test_only_an_id_and_an_impression_are_needed(name):
    request = {key: value for key, value in REQUEST.items() if key != name}
    assert read_ask(read_bid_request(json.dumps(request).encode())).request_id == REQUEST["id"]
    assert read(**{name: None}).request_id == REQUEST["id"]


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"id": ""},
        {"id": 7},
        {"imp": []},
        {"imp": None},
        {"imp": {}},
        {"imp": [{}]},
        {"imp": [{"id": 1}]},
        {"imp": [{"id": "1"}] * 101},
        {"device": "phone"},
        {"user": []},
        {"regs": 1},
        {"tmax": "fast"},
        {"device": {"geo": {"country": 49}}},
    ],
)
def test_what_is_malformed_is_refused(change):
    with pytest.raises(msgspec.ValidationError):
        read(**change)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"regs": {"gdpr": 0}}, "allowed"),
        ({"regs": {"ext": {"gdpr": 0}}}, "allowed"),
        ({"regs": {"gdpr": 0, "ext": {"gdpr": 0}}}, "allowed"),
        ({"regs": {"gdpr": 0, "ext": {"gdpr": 1}}}, "unreadable"),
        ({"regs": {}}, "unreadable"),
        ({"regs": None}, "unreadable"),
        ({"regs": {"gdpr": "?"}}, "unreadable"),
        ({"regs": {"gdpr": 1}}, "unreadable"),
        ({"regs": {"gdpr": 1}, "user": {"id": "a", "consent": YES}}, "allowed"),
        ({"regs": {"gdpr": 1}, "user": {"id": "a", "ext": {"consent": YES}}}, "allowed"),
        ({"regs": {"gdpr": 1}, "user": {"id": "a", "consent": NO}}, "denied"),
        ({"regs": {"gdpr": 1}, "user": {"id": "a", "consent": NO, "ext": {"consent": YES}}}, "unreadable"),
        ({"regs": {"gdpr": 1}, "user": {"id": "a", "consent": "../../"}}, "unreadable"),
        ({"regs": {"gdpr": 0, "coppa": 1}}, "denied"),
        ({"regs": {"gdpr": 0, "coppa": 0}}, "allowed"),
        ({"regs": {"us_privacy": "1YNN"}}, "allowed"),
        ({"regs": {"us_privacy": "1YYN"}}, "denied"),
        ({"regs": {"ext": {"us_privacy": "1YYN"}}}, "denied"),
        ({"regs": {"gdpr": 0, "ext": {"gpc": "1"}}}, "denied"),
        ({"regs": {"gdpr": 0, "ext": {"gpc": 1}}}, "denied"),
        ({"regs": {"gdpr": 0, "ext": {"gpc": "0"}}}, "allowed"),
        ({"regs": {"gdpr": 0, "gpp": "DBAA", "gpp_sid": [7]}}, "unreadable"),
        ({"device": {"lmt": 1}}, "denied"),
        ({"device": {"dnt": 1}}, "denied"),
        ({"device": {"lmt": 1, "dnt": 0}}, "denied"),
        ({"device": {"lmt": 0, "dnt": "1"}}, "denied"),
        ({"device": {"lmt": 0, "dnt": 0}}, "allowed"),
        ({"device": {"lmt": "often"}}, "unreadable"),
    ],
)
def test_consent_is_read_wherever_it_stands_and_fails_closed(change, verdict):
    assert judge(read(**change).consent) == verdict


def bid_on(floors, values, max_cpm_usd):
    """Prices by impression of a request with these floors, for ads that are worth so many dollars."""
    imps = [{"id": str(place), "bidfloor": floor} for place, floor in enumerate(floors)]
    request = read_bid_request(json.dumps(REQUEST | {"imp": imps}).encode())
    ads = [AdCandidate(f"a{place}", "x", value, "advertisers", 1, 1.0) for place, value in enumerate(values)]
    answer = CandidateAnswer(
        request_id="r",
        release=None,
        as_of=None,
        source="advertisers",
        degraded=[],
        inventory=1,
        ads=ads,
        advertisers=[],
        products=[],
    )
    found = make_bids(request, answer, max_cpm_usd=max_cpm_usd)
    return {} if found is None else {bid.impid: bid.price for bid in found.seatbid[0].bid}


@pytest.mark.parametrize(
    ("floors", "values", "cap", "prices"),
    [
        ([1, 1], [0.09, 0.003], None, {"0": 90.0, "1": 3.0}),
        ([1, 1], [0.09, 0.003], 40.0, {"0": 40.0, "1": 3.0}),
        ([40, 1], [0.09, 0.003], 40.0, {"0": 40.0, "1": 3.0}),
        ([40.01, 1], [0.09, 0.003], 40.0, {"1": 40.0}),
        ([50], [0.09], 40.0, {}),
        ([0], [0.09], 1e-9, {"0": 1e-9}),
    ],
)
def test_no_bid_is_above_the_cap_nor_below_a_floor(floors, values, cap, prices):
    assert bid_on(floors, values, cap) == prices
