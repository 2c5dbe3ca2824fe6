"""Fallback lists against counts in plain dictionaries."""

import random
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from tests.cli.commands import forecart
from tests.sequences.event_logs import CONVERSION_CODES, DAY

from forecart.columns import EVENT_TYPE_CODES
from forecart.publish.releases import Releases
from forecart.retrieval.fallback import MIN_USERS, find_people, list_popular, make_fallback_table
from forecart.sequences import histories as histories_module
from forecart.sequences.countries import encode_countries
from forecart.sequences.histories import Histories
from forecart.sequences.pair_log import PairLog
from forecart.sequences.vocabulary import Vocabulary

CUT = 100
NUM_CANDIDATES = 12
# A small country, whose converters are too few, and users of whom no country is known.
SIZES = {"DE": 90, "FR": 60, "MT": 20, None: 30}


@pytest.fixture(params=[histories_module.BLOCK_EVENTS, 3], autouse=True, scope="module")
def block_events(request):
    """A log is read in blocks of users; the answers are the same in one block and in many."""
    with patch.object(histories_module, "BLOCK_EVENTS", request.param):
        yield


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
    log = PairLog.build(
        histories, level="advertiser", num_candidates=NUM_CANDIDATES, conversion_codes=CONVERSION_CODES
    )
    return log, histories


def rank_plainly(rows, users, eligible, *, only_known, top_k, days):
    """The share of users with any event before the cut whose latest conversion is at most `days` old."""
    present = {user for user, _, _, _, arrived in rows if arrived < CUT and user in users}
    last = {}
    for user, kind, candidate, day, arrived in rows:
        if kind == "checkout" and arrived < CUT and user in users:
            last[user, candidate] = max(last.get((user, candidate), 0), day)
    known = {candidate for _, candidate in last}
    if only_known and len(present) < MIN_USERS:
        return None
    shares = {}
    for one in sorted(eligible & known if only_known else eligible):
        found = [day for (_, candidate), day in last.items() if candidate == one]
        recent = sum(CUT - day < days for day in found)
        shares[one] = (recent + 0.5 + 0.001 * (len(found) + 0.5)) / (len(present) + 1)
    return sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))[:top_k]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("top_k", "days"), [(3, 7), (100, 7), (100, 2)])
def test_lists_are_the_counts_of_each_country_and_of_everyone(seed, top_k, days):
    rows, countries = make_world(seed)
    eligible = {2, 3, 4, 5, 6, 8, 11}
    log, histories = make_log(rows, len(countries))
    people = find_people(histories, encode_countries(pl.Series(countries)), CUT * DAY)
    is_eligible = np.isin(np.arange(NUM_CANDIDATES), [0, 1, *eligible])
    found = list_popular(
        log, CUT * DAY, people=people, is_eligible=is_eligible, top_k=top_k, window_us=days * DAY
    )
    everyone = set(range(len(countries)))
    wanted = {"*": rank_plainly(rows, everyone, eligible, only_known=False, top_k=top_k, days=days)}
    for country in ("DE", "FR", "MT"):
        users = {user for user, one in enumerate(countries) if one == country}
        ranked = rank_plainly(rows, users, eligible, only_known=True, top_k=top_k, days=days)
        if ranked is not None:
            wanted[country] = ranked
    assert list(found) == list(wanted) and {"*", "DE"} <= set(found) and "MT" not in found
    for country, ranked in wanted.items():
        index, score = found[country]
        assert index.tolist() == [one for one, _ in ranked]
        assert score == pytest.approx([share for _, share in ranked], rel=1e-5)


def test_popularity_is_a_probability_of_everyone_and_not_of_converters():
    """50 of 1,000 users converted within the window: whoever comes converts with .05, as calibrations say."""
    rows = [(user, "view", 3, 40, 40) for user in range(2, 1002)]
    rows += [(user, "checkout", 2, 97, 97) for user in range(2, 52)]
    rows += [(user, "checkout", 2, 90, 90) for user in range(52, 102)]
    log, histories = make_log(rows, 1002)
    germany = encode_countries(pl.Series([None, None, *["DE"] * 500, *["FR"] * 500]))
    found = list_popular(
        log,
        CUT * DAY,
        people=find_people(histories, germany, CUT * DAY),
        is_eligible=np.ones(NUM_CANDIDATES, bool),
        top_k=1,
        window_us=7 * DAY,
    )
    shares = {country: (index.tolist(), float(score[0])) for country, (index, score) in found.items()}
    assert shares["*"] == ([2], pytest.approx(0.05, abs=1e-3))
    assert shares["DE"] == ([2], pytest.approx(0.1, abs=2e-3)) and "FR" not in shares


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
