"""Fallback lists against counts in plain dictionaries."""

import random

import numpy as np
import polars as pl
import pytest
from tests.cli.commands import forecart
from tests.sequences.event_logs import CONVERSION_CODES, DAY

from forecart.columns import EVENT_TYPE_CODES
from forecart.publish.releases import Releases
from forecart.retrieval.fallback import MIN_USERS, list_popular, make_fallback_table
from forecart.sequences.countries import encode_countries
from forecart.sequences.histories import Histories
from forecart.sequences.pair_log import PairLog
from forecart.sequences.vocabulary import Vocabulary

CUT = 100
NUM_CANDIDATES = 12
# A small country, whose converters are too few, and users of whom no country is known.
SIZES = {"DE": 90, "FR": 60, "MT": 20, None: 30}


def make_world(seed):
    """Rows (user, kind, candidate, day, arrived day), and the country of each user."""
    rng = random.Random(seed)
    countries = [None, None, *(country for country, size in SIZES.items() for _ in range(size))]
    rows = []
    for user, country in enumerate(countries):
        favourites = range(2, 6) if country == "DE" else range(4, 11)
        for _ in range(0 if user < 2 else rng.randrange(1, 5)):
            day = rng.uniform(60, 110)
            kind = rng.choice(["checkout", "checkout", "view"])
            rows.append((user, kind, rng.choice(favourites), day, day + rng.choice([0, 0, 6])))
    return rows, countries


def make_log(rows, num_users):
    rows = sorted(rows, key=lambda row: (row[0], row[4], row[3]))
    length = np.bincount([row[0] for row in rows], minlength=num_users)
    histories = Histories(
        start=np.cumsum(length) - length,
        length=length,
        event_type=np.array([EVENT_TYPE_CODES[row[1]] for row in rows], np.uint8),
        advertiser=np.array([row[2] for row in rows], np.int32),
        item=np.zeros(len(rows), np.int32),
        occurred_us=np.array([int(row[3] * DAY) for row in rows], np.int64),
        arrived_us=np.array([int(row[4] * DAY) for row in rows], np.int64),
        price=np.full(len(rows), np.nan, np.float32),
    )
    return PairLog.build(
        histories, level="advertiser", num_candidates=NUM_CANDIDATES, conversion_codes=CONVERSION_CODES
    )


def rank_plainly(rows, users, eligible, *, only_known, top_k):
    last = {}
    for user, kind, candidate, day, arrived in rows:
        if kind == "checkout" and arrived < CUT and user in users:
            last[user, candidate] = max(last.get((user, candidate), 0), day)
    num_users = len({user for user, _ in last})
    if only_known and num_users < MIN_USERS:
        return None
    known = {candidate for _, candidate in last}
    shares = {}
    for one in sorted(eligible & known if only_known else eligible):
        days = [day for (_, candidate), day in last.items() if candidate == one]
        week = sum(CUT - day < 7 for day in days)
        shares[one] = (week + 0.5 + 0.001 * (len(days) + 0.5)) / (num_users + 1)
    return sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))[:top_k]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("top_k", [3, 100])
def test_lists_are_the_counts_of_each_country_and_of_everyone(seed, top_k):
    rows, countries = make_world(seed)
    eligible = {2, 3, 4, 5, 6, 8, 11}
    found = list_popular(
        make_log(rows, len(countries)),
        CUT * DAY,
        user_country=encode_countries(pl.Series(countries)),
        is_eligible=np.isin(np.arange(NUM_CANDIDATES), [0, 1, *eligible]),
        top_k=top_k,
    )
    wanted = {"*": rank_plainly(rows, set(range(len(countries))), eligible, only_known=False, top_k=top_k)}
    for country in ("DE", "FR", "MT"):
        users = {user for user, one in enumerate(countries) if one == country}
        if (ranked := rank_plainly(rows, users, eligible, only_known=True, top_k=top_k)) is not None:
            wanted[country] = ranked
    assert list(found) == list(wanted) and {"*", "DE"} <= set(found) and "MT" not in found
    for country, ranked in wanted.items():
        index, score = found[country]
        assert index.tolist() == [one for one, _ in ranked]
        assert score == pytest.approx([share for _, share in ranked], rel=1e-5)


def test_the_table_has_a_row_for_each_place():
    lists = {
        "*": (np.array([3, 2]), np.array([0.5, 0.25], np.float32)),
        "DE": (np.array([2]), np.array([0.75], np.float32)),
    }
    table = make_fallback_table(lists, Vocabulary.build(["a", "b"]), "advertiser_id")
    assert table.rows() == [("*", 1, "b", 0.5), ("*", 2, "a", 0.25), ("DE", 1, "a", 0.75)]


def test_a_country_in_the_log_becomes_a_list_of_the_release(tmp_path):
    rng = random.Random(0)
    lines = ["user_id,event_type,advertiser_id,item_id,occurred_at,country"]
    for user in range(150):
        country, own = [("de", "a1"), ("FR", "a2"), ("Atlantis", "a3")][user % 3]
        for day in range(1, 29):
            advertiser = own if rng.random() < 0.7 else f"a{rng.randrange(1, 6)}"
            lines.append(f"u{user},checkout,{advertiser},i{user % 7},2025-01-{day:02d}T10:00:00,{country}")
    # A day that is not here yet, by mistake: lists are of today, not of then.
    lines.append("u0,checkout,a4,i0,2090-01-01T10:00:00,DE")
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    config = tmp_path / "forecart.toml"
    config.write_text(
        """name = "countries"
[source]
events = ["log.csv"]
[split]
as_of = "2025-01-27T00:00:00Z"
validate_before = false
[labels]
positives = { checkout = 1.0 }
window_days = 2
[next_advertiser]
model = { width = 16, num_layers = 1, history_length = 8 }
training = { num_epochs = 1 }
[next_product]
is_enabled = false
"""
    )
    forecart("run", config, "--output", tmp_path / "run")
    said = forecart("release", "publish", tmp_path / "run", "--releases", tmp_path / "releases")
    release = Releases(tmp_path / "releases").open(said.stdout.strip().splitlines()[-1])
    assert release.release_id.startswith("20250128T100000Z-")
    lists = release.fallback.advertisers
    assert set(lists) == {"*", "DE", "FR"}
    first = {country: release.advertisers.ids(index[:1])[0] for country, (index, _) in lists.items()}
    assert (first["DE"], first["FR"]) == ("a1", "a2")
