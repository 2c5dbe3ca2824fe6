"""Carried lists: kept where nothing is new, made anew where something is, and never shorter than before."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from forecart import artifacts
from forecart.retrieval.candidate_files import part_name, user_vectors_name
from forecart.retrieval.carry import Carry, find_news
from forecart.sequences.histories import Histories
from forecart.sequences.vocabulary import FIRST_INDEX, Vocabulary

DAY = [datetime(2025, 1, day, tzinfo=UTC) for day in range(1, 10)]
USERS = Vocabulary.build([f"u{number}" for number in range(6)])
CANDIDATES = Vocabulary.build([f"a{number}" for number in range(4)])
TO_US = 1_000_000


@pytest.fixture
def folder(tmp_path):
    """Yesterday: four users, u3 without a list, u1's made five days before."""
    rows = [
        ("u0", 1, "a0", DAY[5]),
        ("u0", 2, "a1", DAY[5]),
        ("u1", 1, "a2", DAY[0]),
        ("u2", 1, "a3", DAY[5]),
    ]
    frame = pl.DataFrame(
        [{"user_id": user, "rank": rank, "advertiser_id": one, "as_of": at} for user, rank, one, at in rows],
        schema_overrides={"as_of": pl.Datetime("us", "UTC"), "rank": pl.Int32},
    )
    artifacts.write_parquet(tmp_path / part_name(0), frame)
    artifacts.write_npy(tmp_path / user_vectors_name(0), np.arange(8, dtype=np.float16).reshape(4, 2))
    return tmp_path


def carry(folder, *, news=(), eligible=range(4), after=DAY[1]):
    has_news, is_eligible = np.zeros(len(USERS), bool), np.zeros(len(CANDIDATES), bool)
    has_news[[FIRST_INDEX + user for user in news]] = True
    is_eligible[[FIRST_INDEX + one for one in eligible]] = True
    after_us = int(after.timestamp()) * TO_US
    return Carry(folder, after_us, has_news, is_eligible, USERS, CANDIDATES, "advertiser_id")


EVERYONE = np.arange(FIRST_INDEX, len(USERS), dtype=np.int32)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, ["u0", "u2"]),
        ({"after": DAY[0]}, ["u0", "u1", "u2"]),
        ({"news": [0]}, ["u2"]),
        ({"news": [0, 2, 4]}, []),
        ({"eligible": [0, 2, 3]}, ["u2"]),
        ({"eligible": []}, []),
    ],
)
def test_who_has_no_news_keeps_a_list_that_still_holds(folder, options, kept):
    part = carry(folder, **options).read_part(0, EVERYONE)
    assert [f"u{row}" for row in np.flatnonzero(part.is_carried)] == kept
    assert part.lists["user_id"].unique(maintain_order=True).to_list() == kept
    wanted = [[2 * int(user[1]), 2 * int(user[1]) + 1] for user in kept]
    assert part.vectors.tolist() == wanted


def test_a_part_that_was_not_there_carries_nothing(folder):
    assert carry(folder).read_part(1, EVERYONE) is None


def test_news_is_what_arrived_since(tmp_path):
    histories = Histories(
        start=np.array([0, 0, 0, 2, 2]),
        length=np.array([0, 0, 2, 0, 1]),
        event_type=np.ones(3, np.uint8),
        advertiser=np.full(3, 2, np.int32),
        item=np.zeros(3, np.int32),
        occurred_us=np.array([1, 2, 3]),
        arrived_us=np.array([10, 20, 30]),
        price=np.full(3, np.nan, np.float32),
    )
    assert find_news(histories, since_us=21).tolist() == [False, False, False, False, True]
    assert find_news(histories, since_us=20).tolist() == [False, False, True, False, True]
    assert not find_news(histories, since_us=31).any()
