"""What is kept out of an inventory is told: once when it is read, and when it comes later."""

import json

import pytest
from structlog.testing import CapturingLogger
from tests.publish.small_release import make_parts
from tests.serving.test_choosing import ROWS

from forecart.publish.embedded import EmbeddedStore
from forecart.publish.publisher import Publisher
from forecart.publish.releases import Releases
from forecart.serving.current import OpenRelease, Served
from forecart.serving.logged_stock import LoggedStock
from forecart.serving.stock import UPDATES


@pytest.fixture
def served(tmp_path):
    root = tmp_path / "releases"
    pointer = Publisher(root, EmbeddedStore(root)).publish(lambda gone: make_parts(suppressed=gone))
    return Served(current=OpenRelease(Releases(root).open(pointer.release_id)), pointer=pointer)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "ads"
    folder.mkdir()
    for name, rows in ROWS.items():
        lines = [json.dumps(row) for row in rows]
        lines += ['{"ad_id": "bad", "bid_usd": "much"}', "no JSON"] if name == "ads" else []
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_rows_that_are_kept_out_are_told_once(served, folder):
    log = CapturingLogger()
    stock = LoggedStock(folder, log)
    for _ in range(3):
        stock.follow(served)
    (call,) = log.calls
    assert (call.method_name, call.args, call.kwargs["rejected"]) == ("warning", ("inventory_read",), 2)
    num_ads = len(ROWS["ads"])
    assert call.kwargs["ads"] + sum(call.kwargs["left_out"].values()) == num_ads
    begins = [reason.split(": ")[0] for reason in call.kwargs["reasons"]]
    assert begins == [f"ads.jsonl row {num_ads + 1}", f"ads.jsonl row {num_ads + 2}"]


def test_updates_that_are_kept_out_are_told_when_they_come(served, folder):
    log = CapturingLogger()
    stock = LoggedStock(folder, log)
    stock.follow(served)
    (folder / UPDATES).write_text('{"ad": "nobody", "remove": true}\n')
    stock.follow(served)
    stock.follow(served)
    (_, call) = log.calls
    assert (call.args, call.kwargs["rejected"]) == (("inventory_rejected",), 1)
    (reason,) = call.kwargs["reasons"]
    assert reason.startswith("updates.jsonl row 1: ") and "'nobody'" in reason
    explained = stock.change_and_explain([{"ad": "nobody", "remove": True}] * 7, served)
    assert explained[:2] == (0, 7) and len(explained[2]) == 5


def test_a_folder_without_mistakes_is_no_warning(served, folder):
    (folder / "ads.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS["ads"]))
    log = CapturingLogger()
    LoggedStock(folder, log).follow(served)
    assert [(call.method_name, call.kwargs["rejected"]) for call in log.calls] == [("info", 0)]
