"""The service with an inventory over HTTP: ads with their provenance, live updates, bids, the outcome log."""

import hashlib
import json
import subprocess
import sys

import pytest
from tests.publish.small_release import AS_OF_US, DAY_US, advertisers_of, make_parts
from tests.serving.server_process import ALLOWED, serving, wait_until
from tests.serving.test_choosing import ROWS

from forecart.ads.outcomes import read_outcomes
from forecart.publish.embedded import EmbeddedStore
from forecart.publish.publisher import Publisher
from forecart.sequences.vocabulary import FIRST_INDEX

TOKEN = hashlib.sha256(b"stock").hexdigest()
CURVE = {"score": [0.0, 1.0], "probability": [0.0, 0.5]}
SETTINGS = f"""
calibrations = "CALIBRATIONS"
poll_s = 0.1
ads_per_advertiser = 1
pseudonym_key = "sixteen characters"
[quotas.advertisers]
least = 2
[tokens]
{TOKEN} = ["inventory"]
"""
BEARER = {"authorization": "Bearer stock"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def server(folder):
    root, ads = folder / "releases", folder / "ads"
    Publisher(root, EmbeddedStore(root)).publish(lambda suppressed: make_parts(suppressed=suppressed))
    ads.mkdir()
    for name, rows in ROWS.items():
        (ads / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--releases", root, "--inventory", ads, "--outcomes", folder / "outcomes", "--clock", "as-of")
    curves = folder / "curves.json"
    curves.write_text(json.dumps({"advertisers": CURVE, "products": CURVE}))
    settings = SETTINGS.replace("CALIBRATIONS", str(curves))
    with serving(folder / "server", *options, "--workers", 2, settings=settings) as found:
        wait_until(lambda: found.log.read_text().count('"serving"') == 2)
        yield found


def candidates(server, user_id="user-7", **fields):
    # A connection of its own each time, so that both processes answer.
    headers = {"connection": "close"}
    reply = server.post("/v1/candidates", {"user_id": user_id, "consent": ALLOWED} | fields, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_ads_say_how_they_came_here(server):
    answer = candidates(server, limit=10, request_id="mine")
    own = [f"advertiser-{index - FIRST_INDEX}" for index in advertisers_of(7, 0)]
    assert answer["request_id"] == "mine" and answer["degraded"] == [] and answer["inventory"] >= 1
    assert len(answer["ads"]) == 10 and answer["advertisers"] == answer["products"] == []
    assert len({ad["advertiser_id"] for ad in answer["ads"]}) == 10
    from_own = [ad for ad in answer["ads"] if ad["source"] == "advertisers"]
    assert len(from_own) >= 2
    for ad in from_own:
        assert own[ad["rank"] - 1] == ad["advertiser_id"]
        assert ad["score"] == pytest.approx(1 - 0.1 * (ad["rank"] - 1))
    assert [ad["value"] for ad in answer["ads"]] == sorted(
        (ad["value"] for ad in answer["ads"]), reverse=True
    )


def test_a_change_holds_in_every_process_and_after_a_restart(server, folder):
    first = candidates(server)["ads"][0]["ad_id"]
    update = {"updates": [{"ad": first, "set": {"status": "paused"}}]}
    assert server.post("/admin/inventory/updates", update).status_code == 401
    assert server.post("/admin/inventory/updates", {"updates": []}, headers=BEARER).status_code == 400
    assert (
        server.post("/admin/suppress", {"user_id": "x", "reason": "opt_out"}, headers=BEARER).status_code
        == 403
    )
    assert first in [ad["ad_id"] for ad in candidates(server)["ads"]]
    reply = server.post("/admin/inventory/updates", update, headers=BEARER)
    assert (reply.status_code, reply.json()) == (200, {"applied": 1, "rejected": 0, "reasons": []})
    seen = []

    def is_gone_everywhere():
        seen.append(first in [ad["ad_id"] for ad in candidates(server)["ads"]])
        return len(seen) > 20 and not any(seen[-20:])

    wait_until(is_gone_everywhere)
    wrong = {"updates": [{"ad": "nobody", "set": {"status": "paused"}}, {"ad": first, "set": {"bid": 1}}]}
    reply = server.post("/admin/inventory/updates", wrong, headers=BEARER)
    answer = reply.json()
    assert (answer["applied"], answer["rejected"]) == (0, 2)
    lines = (folder / "ads" / "updates.jsonl").read_text().splitlines()
    written = [json.loads(line) for line in lines if line]
    assert written == update["updates"] + wrong["updates"]
    for reason, one in zip(answer["reasons"], wrong["updates"], strict=True):
        row = int(reason.removeprefix("updates.jsonl row ").partition(":")[0])
        assert json.loads(lines[row - 1]) == one
    assert "no ad 'nobody'" in answer["reasons"][0]
    server.post(
        "/admin/inventory/updates", {"updates": [{"ad": first, "set": {"status": "active"}}]}, headers=BEARER
    )
    wait_until(lambda: first in [ad["ad_id"] for ad in candidates(server)["ads"]])


def test_nothing_may_be_shown_is_an_answer_too(server):
    answer = candidates(server, blocked_categories=["anything"])
    assert answer["ads"] == [] and answer["degraded"] == ["inventory_empty"]
    assert server.post("/v1/advertisers", {"blocked_categories": ["anything"]}).json()["advertisers"] == []


def bid(server, **changes):
    request = {
        "id": "auction-1",
        "imp": [{"id": "1"}, {"id": "2"}],
        "user": {"buyeruid": "user-7"},
        "regs": {"gdpr": 0},
        "tmax": 200,
    }
    reply = server.post("/openrtb", request | changes)
    return reply.status_code, reply.json() if reply.content else None


def test_bids_are_the_best_ads_one_for_each_impression(server):
    best = candidates(server, limit=2)["ads"]
    status, response = bid(server)
    assert status == 200 and response["id"] == "auction-1" and response["cur"] == "USD"
    (seat,) = response["seatbid"]
    assert [one["impid"] for one in seat["bid"]] == ["1", "2"]
    assert [one["adid"] for one in seat["bid"]] == [ad["ad_id"] for ad in best]
    assert [one["price"] for one in seat["bid"]] == pytest.approx(
        [1000 * ad["value"] for ad in best], rel=1e-4
    )
    assert len({one["id"] for one in seat["bid"]}) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"imp": [{"id": "1", "bidfloor": 1e9}]},
        {"imp": [{"id": "1", "bidfloor": 0.01, "bidfloorcur": "EUR"}]},
        {"cur": ["EUR"]},
        {"bcat": ["IAB7"]},
    ],
)
def test_where_there_is_nothing_to_bid_there_is_no_bid(server, change):
    assert bid(server, **change) == (204, None)


def test_an_impression_whose_floor_is_too_high_leaves_the_ad_to_the_next(server):
    best = candidates(server, limit=1)["ads"][0]["ad_id"]
    _, response = bid(server, imp=[{"id": "1", "bidfloor": 1e9}, {"id": "2", "bidfloor": 0.01}])
    assert [(one["impid"], one["adid"]) for one in response["seatbid"][0]["bid"]] == [("2", best)]


def test_what_was_answered_is_in_the_outcome_log_after_a_stop(folder, tmp_path):
    options = ("--releases", folder / "releases", "--inventory", folder / "ads", "--clock", "as-of")
    with serving(tmp_path / "server", *options, "--outcomes", tmp_path / "log") as server:
        answers = [candidates(server, f"user-{number}") for number in range(30)]
        assert server.stop() == 0
    rows = read_outcomes(tmp_path / "log").sort("request_id", "position").to_dicts()
    expected = sorted(
        (one["request_id"], at, ad["ad_id"]) for one in answers for at, ad in enumerate(one["ads"], 1)
    )
    assert sorted((row["request_id"], row["position"], row["ad_id"]) for row in rows) == expected
    assert all(AS_OF_US <= row["at_us"] < AS_OF_US + DAY_US for row in rows)


def test_an_inventory_that_is_none_is_told_before_anything_starts(folder, tmp_path):
    command = [sys.executable, "-m", "forecart", "serve", "--inventory", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: an inventory has campaigns.parquet or campaigns.jsonl")
