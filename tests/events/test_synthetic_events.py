"""Generated events against the parameters of their world."""

import numpy as np
import polars as pl
import pytest

from forecart.events.synthetic import (
    SyntheticConfig,
    build_world,
    generate_events,
    world_catalogue,
    write_world,
)
from forecart.events.synthetic.world import DAY_US


@pytest.fixture(scope="module")
def world():
    return build_world(SyntheticConfig(seed=3, num_events=100_000))


@pytest.fixture(scope="module")
def events(world):
    return pl.concat(list(generate_events(world)))


def advertiser_of(events):
    return events["advertiser_id"].str.slice(3).cast(pl.Int64).to_numpy()


def test_the_columns_are_the_canonical_ones(events):
    instant = pl.Datetime("us", "UTC")
    assert events.schema == pl.Schema(
        {
            "event_id": pl.String,
            "user_id": pl.String,
            "event_type": pl.String,
            "advertiser_id": pl.String,
            "item_id": pl.String,
            "occurred_at": instant,
            "arrived_at": instant,
            "ordinal": pl.Int64,
            "value": pl.Float64,
            "currency": pl.String,
            "quantity": pl.Float64,
        }
    )
    assert events["event_id"].n_unique() == len(events)


@pytest.mark.parametrize("chunk_users", [1, 7, 10_000])
def test_the_chunk_size_never_shows(chunk_users):
    world = build_world(SyntheticConfig(seed=3, num_events=3_000))
    whole = pl.concat(list(generate_events(world)))
    assert pl.concat(list(generate_events(world, chunk_users=chunk_users))).equals(whole)


@pytest.mark.parametrize("restart_share", [0.0, 1.0])
@pytest.mark.parametrize("favoured_share", [0.2, 1.0])
def test_the_ends_of_every_share_can_be_generated(restart_share, favoured_share):
    config = SyntheticConfig(
        num_events=2_000,
        restart_share=restart_share,
        favoured_share=favoured_share,
        late_share=1.0,
        cold_share=0.0,
    )
    (events,) = generate_events(build_world(config))
    assert len(events) == pytest.approx(2_000, rel=0.15)


def test_a_larger_world_begins_with_the_users_of_a_smaller_one(events):
    small = build_world(SyntheticConfig(seed=3, num_events=5_000))
    assert pl.concat(list(generate_events(small))).equals(
        events.filter(pl.col("user_id") < f"u{small.config.num_users:09d}")
    )


def test_another_seed_gives_other_events(events):
    other = pl.concat(list(generate_events(build_world(SyntheticConfig(seed=4, num_events=5_000)))))
    assert not other.head(100).equals(events.head(100))


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    world = build_world(SyntheticConfig(num_events=5_000))
    one, other = (write_world(world, tmp_path / name) for name in ("one", "other"))
    for left, right in zip(one, other, strict=True):
        assert left.read_bytes() == right.read_bytes()
    assert pl.read_parquet(one[0]).equals(pl.concat(list(generate_events(world))))
    assert pl.read_parquet(one[1]).equals(world_catalogue(world))


def test_there_are_about_as_many_events_as_asked_for(events):
    assert len(events) == pytest.approx(100_000, rel=0.02)


def test_users_are_poisson_clocks_from_joining_to_the_end(world, events):
    # Within the days when everyone has joined, counts are Poisson: mean and variance agree.
    everyone = world.config.start_us + 45 * DAY_US
    late = events.filter(pl.col("occurred_at").to_physical() >= everyone)
    counts = late.group_by("user_id").len()["len"].to_numpy()
    assert np.mean(counts) == pytest.approx(1.5 * 45, rel=0.02)
    assert np.var(counts) == pytest.approx(1.5 * 45, rel=0.2)


def test_a_user_s_events_are_in_order_and_numbered(world, events):
    gap = events.select(pl.col("occurred_at").diff().over("user_id").drop_nulls())["occurred_at"]
    assert gap.min().total_seconds() >= 0
    number = events.select(pl.int_range(pl.len()).over("user_id").alias("number"))["number"]
    assert number.equals(events["ordinal"].alias("number"))
    occurred = events["occurred_at"].to_physical()
    assert occurred.min() >= world.config.start_us
    assert occurred.max() < world.end_us


def test_types_have_their_shares(events):
    share = dict(events["event_type"].value_counts(normalize=True).iter_rows())
    expected = {"view": 0.4, "add_to_cart": 0.3, "checkout": 0.22, "signup": 0.08}
    assert share == pytest.approx(expected, abs=0.006)


def test_views_arrive_at_once_and_a_share_of_conversions_hours_to_days_late(events):
    delay = (pl.col("arrived_at") - pl.col("occurred_at")).dt.total_seconds(fractional=True) / 3600
    hours = events.select("event_type", delay.alias("hours"))
    assert hours.filter(pl.col("event_type") == "view")["hours"].max() == 0
    conversions = hours.filter(pl.col("event_type") != "view")["hours"].to_numpy()
    assert np.mean(conversions > 0) == pytest.approx(0.15, abs=0.01)
    late = conversions[conversions > 0]
    assert 2 <= late.min() < 2.1 < 110 < late.max() <= 120


def test_a_signup_has_no_item_and_every_other_event_one_of_its_advertiser(world, events):
    is_signup = pl.col("event_type") == "signup"
    for column in ("item_id", "value", "currency", "quantity"):
        assert events.select((pl.col(column).is_null() == is_signup).all()).item()
    joined = events.drop_nulls("item_id").join(world_catalogue(world), on="item_id", suffix="_of_item")
    assert (joined["advertiser_id"] == joined["advertiser_id_of_item"]).all()
    assert np.allclose(joined["value"], joined["price"] * joined["quantity"])


def test_advertisers_have_their_long_run_shares(world, events):
    after = (events["occurred_at"].to_physical() >= world.launch_us).to_numpy().astype(int)
    for era in (0, 1):
        counts = np.bincount(advertiser_of(events)[after == era], minlength=world.num_advertisers)
        expected = world.emission[era].mean(axis=0) * counts.sum()
        live = expected > 0
        assert np.all(counts[~live] == 0)
        # Events of one visit share their intent, so counts vary several times more than Poisson ones.
        error = (counts[live] - expected[live]) ** 2 / expected[live]
        assert error.mean() < 6


def test_cold_items_appear_only_after_the_launch(world, events):
    early = events.filter(pl.col("occurred_at").to_physical() < world.launch_us)["item_id"].drop_nulls()
    late = events.filter(pl.col("occurred_at").to_physical() >= world.launch_us)["item_id"].drop_nulls()
    cold = pl.Series(world.item_ids).filter(pl.Series(world.is_cold_item))
    assert early.is_in(cold.implode()).sum() == 0
    assert late.is_in(cold.implode()).sum() > 0


def test_which_intent_comes_next_follows_from_the_last_two():
    # Without noise the intent can be read off the advertiser, and with a slow clock of intents hardly any
    # is skipped: the changes seen must be the planted ones.
    config = SyntheticConfig(
        seed=8,
        num_events=60_000,
        noise_share=0.0,
        events_per_day=8,
        intent_changes_per_day=0.1,
        restart_share=0.0,
    )
    world = build_world(config)
    events = pl.concat(list(generate_events(world)))
    intent = world.advertiser_intent[advertiser_of(events)]
    user = events["user_id"].to_physical().rle_id().to_numpy()
    is_new = np.append(True, (intent[1:] != intent[:-1]) | (user[1:] != user[:-1]))
    intent, user = intent[is_new], user[is_new]
    within = user[2:] == user[:-2]
    before, now, after = intent[:-2][within], intent[1:-1][within], intent[2:][within]
    state = {tuple(pair): number for number, pair in enumerate(world.edge_intents.tolist())}
    favoured = world.edge_intents[world.next_edges[:, 0], 1]
    known = [(state.get((b, n)), a) for b, n, a in zip(before, now, after, strict=True)]
    hits = [favoured[edge] == a for edge, a in known if edge is not None]
    assert len(known) > 500
    assert len(hits) > 0.95 * len(known)
    assert np.mean(hits) == pytest.approx(0.97, abs=0.04)
