"""The quality gate (R14): each crafted bad release trips it, and a good one passes."""

import re

import numpy as np
import pytest
from tests.publish.small_release import LAYOUT, build, make_parts

from forecart.errors import ArtifactError, GateError, SkewError, StoreError
from forecart.publish import check, gate
from forecart.publish.gate import GateSettings, check_release
from forecart.publish.publisher import Publisher
from forecart.publish.release import Release
from forecart.publish.releases import Releases
from forecart.publish.suppression import suppression_key


def empty_lists(records):
    records["num_advertisers"] = records["num_items"] = 0
    records["advertiser_index"] = records["item_index"] = 0


def one_list(records):
    records["num_advertisers"] = LAYOUT.num_advertisers
    records["advertiser_index"] = np.arange(2, 2 + LAYOUT.num_advertisers)


def one_list_of_products(records):
    records["item_index"] = np.arange(2, 2 + LAYOUT.num_items)


def no_products(records):
    records["num_items"], records["item_index"] = 0, 0


def nan_vector(records):
    records["vector"][-1, 3] = np.nan


def infinite_score(records):
    records["advertiser_score"][0, 0] = np.inf


@pytest.fixture(scope="module")
def previous(tmp_path_factory):
    return build(tmp_path_factory.mktemp("previous"), 0).manifest


BAD = {
    "no user": ({"num_users": 0}, "must hold users"),
    "half of the users": ({"num_users": 25}, "more than 50% of the 50 users"),
    "empty lists": ({"change": empty_lists}, "every list of this one is empty"),
    "NaN in a vector": ({"change": nan_vector}, "vector holds NaN"),
    "infinite score": ({"change": infinite_score}, "advertiser_score holds NaN or infinity"),
    "recall down by a tenth": (
        {"metrics": {"next_advertiser.recall_at_10": 0.36}},
        "must stay above 0.3600, after 0.4000: 0.3600 arrived",
    ),
    "everyone the same list": ({"change": one_list}, "advertisers must be personal: .* 50 of 50 do"),
    "the same products": ({"change": one_list_of_products}, "products must be personal: .* 50 of 50 do"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_a_bad_release_trips_it(tmp_path, previous, options, message):
    release = build(tmp_path, 1, **options)
    with pytest.raises(GateError, match=message):
        check_release(release, previous, suppressed=frozenset(), settings=GateSettings())


def test_who_opted_out_trips_it(tmp_path, previous):
    release = build(tmp_path, 1)
    with pytest.raises(GateError, match="suppressed"):
        check_release(release, previous, suppressed={suppression_key("user-17")}, settings=GateSettings())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_users": 26},
        {"metrics": {"next_advertiser.recall_at_10": 0.361}},
        {"metrics": {"next_advertiser.p90_coverage": 0.001}},
        {"metrics": {}},
    ],
)
def test_a_good_release_passes(tmp_path, previous, options):
    release = build(tmp_path, 1, **options)
    check_release(release, previous, suppressed={suppression_key("user-99")}, settings=GateSettings())


def test_the_first_release_has_nothing_to_be_held_against(tmp_path):
    check_release(build(tmp_path), None, suppressed=frozenset(), settings=GateSettings())


def test_a_release_of_advertisers_alone_passes(tmp_path):
    release = build(tmp_path, change=no_products)
    for _, records in release.users.blocks():
        assert records["num_advertisers"].all() and not records["num_items"].any()
    check_release(release, None, suppressed=frozenset(), settings=GateSettings(max_same_list_share=0.5))


def test_lists_are_compared_for_a_sample_of_a_large_population(tmp_path, monkeypatch):
    """Of 2,000 users every 20th or so: by chance alone 60 to 140 of them, for any hash worth its name."""
    monkeypatch.setattr(gate, "_SAMPLE_USERS", 100)
    alike, personal = (
        build(tmp_path / name, num_users=2000, change=change)
        for name, change in (("alike", one_list), ("personal", None))
    )
    with pytest.raises(GateError, match=r"[0-9]+ of [0-9]+ do") as refused:
        check_release(alike, None, suppressed=frozenset(), settings=GateSettings())
    most, num_users = map(int, re.findall(r"([0-9]+) of ([0-9]+) do", str(refused.value))[0])
    assert most == num_users and 60 <= num_users <= 140
    check_release(personal, None, suppressed=frozenset(), settings=GateSettings())


def test_a_record_of_another_release_trips_it(tmp_path):
    release = build(tmp_path / "one", 0)
    other = build(tmp_path / "other", 1)
    mixed = Release(
        release.folder, release.manifest, release.advertisers, release.items, other.users, release.fallback
    )
    with pytest.raises(SkewError):
        check_release(mixed, None, suppressed=frozenset(), settings=GateSettings())


def test_a_damaged_record_trips_it(tmp_path):
    folder = tmp_path / "one"
    build(folder)
    records = folder / "users" / "records.bin"
    raw = bytearray(records.read_bytes())
    raw[-1] ^= 1
    records.write_bytes(raw)
    with pytest.raises(StoreError, match="checksum"):
        check_release(Release.open(folder), None, suppressed=frozenset(), settings=GateSettings())


def test_a_publisher_leaves_the_old_release_when_the_gate_trips(tmp_path):
    from forecart.publish.embedded import EmbeddedStore

    store = EmbeddedStore(tmp_path)
    publisher = Publisher(tmp_path, store)
    served = publisher.publish(lambda suppressed: make_parts(0))
    with pytest.raises(GateError, match="50 of 50 do"):
        publisher.publish(lambda suppressed: make_parts(1, change=one_list))
    assert store.pointer() == served
    assert Releases(tmp_path).ids() == [served.release_id]


def test_the_process_says_why_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(check.sys, "executable", "/bin/false")
    with pytest.raises(ArtifactError, match="ended with 1"):
        check.check_in_fresh_process(tmp_path, "x", None, suppressed=frozenset(), settings=GateSettings())


def test_a_recall_is_compared_where_both_measured_it(tmp_path, previous):
    """What only one of them has says nothing; beside it, what both have still counts."""
    new = {"next_product.recall_at_10": 0.0}
    settings = GateSettings()
    check_release(build(tmp_path / "1", 1, metrics=new), previous, suppressed=frozenset(), settings=settings)
    worse = build(tmp_path / "2", 1, metrics={**new, "next_advertiser.recall_at_10": 0.2})
    with pytest.raises(GateError, match=r"next_advertiser\.recall_at_10 must stay above"):
        check_release(worse, previous, suppressed=frozenset(), settings=settings)
