"""Histories against plain Python lists: prefixes, broadcasting, what is refused."""

import numpy as np
import polars as pl
import pytest

from forecart.errors import ArtifactError
from forecart.sequences.histories import (
    Histories,
    Places,
    Vocabularies,
    _unit_price,
    place_events,
    write_histories,
)
from forecart.sequences.vocabulary import Vocabulary

SPACES = Vocabularies(*(Vocabulary.build(ids) for ids in (["u", "v"], ["a"], ["i"])))


def make_histories(arrivals: list[list[int]]) -> Histories:
    length = np.array([len(row) for row in arrivals], np.int64)
    arrived = np.array([time for row in arrivals for time in row], np.int64)
    num = len(arrived)
    return Histories(
        start=np.cumsum(length) - length,
        length=length,
        event_type=np.full(num, 6, np.uint8),
        advertiser=np.full(num, 2, np.int32),
        item=np.zeros(num, np.int32),
        occurred_us=arrived,
        arrived_us=arrived,
        price=np.full(num, np.nan, np.float32),
    )


def test_end_at_counts_what_arrived_before_the_cut():
    rng = np.random.default_rng(3)
    arrivals = [[], []] + [sorted(rng.integers(0, 30, size).tolist()) for size in rng.integers(0, 20, 40)]
    histories = make_histories(arrivals)
    users, cuts = np.arange(len(arrivals)), np.arange(-1, 32)
    expected = [
        [histories.start[user] + sum(time < cut for time in arrivals[user]) for cut in cuts] for user in users
    ]
    assert histories.end_at(users[:, None], cuts[None, :]).tolist() == expected
    assert histories.end_at(users, 15).tolist() == [row[16] for row in expected]
    assert histories.end_at(5, 15) == expected[5][16]


def test_histories_without_events_have_empty_prefixes():
    assert make_histories([[], [], []]).end_at([0, 1, 2], 10).tolist() == [0, 0, 0]


def test_saved_histories_load_as_they_were(tmp_path):
    histories = make_histories([[], [], [1, 2], [5]])
    histories.save(tmp_path)
    loaded = Histories.load(tmp_path)
    assert loaded.arrived_us.tolist() == [1, 2, 5]
    assert (loaded.num_users, loaded.num_events) == (4, 3)
    assert loaded.event_users().tolist() == [2, 2, 3]
    assert not loaded.arrived_us.flags.writeable


def test_arrays_that_do_not_belong_together_are_refused(tmp_path):
    make_histories([[], [], [1, 2]]).save(tmp_path)
    np.save(tmp_path / "item.npy", np.zeros(1, np.int32))
    with pytest.raises(ArtifactError, match="one size"):
        Histories.load(tmp_path)


def part(rows: list[tuple[str, int]]) -> pl.DataFrame:
    time = pl.col("time").cast(pl.Datetime("us", "UTC"))
    frame = pl.DataFrame(rows, schema=["user_id", "time"], orient="row")
    return frame.select(
        "user_id",
        time.alias("occurred_at"),
        time.alias("arrived_at"),
        event_type=pl.lit("view"),
        advertiser_id=pl.lit("a"),
        item_id=pl.lit(None, pl.String),
        value=pl.lit(None, pl.Float64),
        quantity=pl.lit(None, pl.Float64),
    )


def build_histories(frames, folder):
    places = Places.of(SPACES, np.array([0, 0, 2, 1]))
    write_histories((place_events(frame, places) for frame in frames), folder, places=places)


@pytest.mark.parametrize(
    ("parts", "rule"),
    [
        ([[("u", 1), ("v", 1), ("u", 2)]], "consecutive"),
        ([[("u", 1)], [("u", 2), ("v", 1)]], "consecutive"),
        ([[("u", 2), ("u", 1), ("v", 1)]], "order of arrival"),
        ([[("u", 1), ("u", 2)]], "every user"),
    ],
)
def test_events_that_break_a_rule_are_refused(tmp_path, parts, rule):
    frames = [part(rows) for rows in parts]
    with pytest.raises(ArtifactError, match=rule):
        build_histories(frames, tmp_path)
    assert not list(tmp_path.glob("*.building"))


def test_users_lie_in_index_order_whatever_the_partitions(tmp_path):
    frames = [part([("v", 9)]), part([("u", 1), ("u", 2)])]
    build_histories(frames, tmp_path)
    assert Histories.load(tmp_path).arrived_us.tolist() == [1, 2, 9]


def test_unit_price():
    frame = pl.DataFrame(
        {
            "value": [6.0, 6.0, None, 6.0, -1.0, 0.0, float("inf"), float("nan")],
            "quantity": [2.0, None, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0],
        }
    )
    assert frame.select(_unit_price())["price"].to_list() == [3.0, 6.0, *[None] * 6]
