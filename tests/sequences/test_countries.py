"""The number of a country is its letters, and a user's is that of the latest event that names one."""

import itertools
import string

import numpy as np
import polars as pl
from tests.sequences.conftest import DAY, EPOCH

from forecart.sequences.build import Sequences, build_sequences
from forecart.sequences.countries import NO_COUNTRY, decode_country, encode_countries


def test_every_two_letters_come_back_and_nothing_is_zero():
    pairs = ["".join(pair) for pair in itertools.product(string.ascii_uppercase, repeat=2)]
    numbers = encode_countries(pl.Series([*pairs, None]))
    assert numbers.dtype == np.uint16 and numbers[-1] == NO_COUNTRY
    assert [decode_country(number) for number in numbers[:-1].tolist()] == pairs
    assert len(encode_countries(pl.Series([], dtype=pl.String))) == 0


def test_the_latest_event_with_a_country_says(write_events, tmp_path):
    def event(user, day, country, arrived_day=None):
        occurred = EPOCH + day * DAY
        arrived = occurred if arrived_day is None else EPOCH + arrived_day * DAY
        return {
            "user_id": user,
            "advertiser_id": "a",
            "item_id": "i",
            "occurred_at": occurred,
            "arrived_at": arrived,
            "country": country,
        }

    events = [
        event("moved", 2, "FR"),
        event("moved", 1, "DE"),
        event("silent", 1, None),
        event("quiet", 1, "JP"),
        event("quiet", 3, None),
        event("late", 1, "US", arrived_day=4),
        event("late", 2, "CA"),
        event("later", 9, "BR"),
        event("later", 1, "PT"),
    ]
    folder = write_events(events)
    build_sequences(folder, tmp_path / "sequences", read_until_us=EPOCH + 8 * DAY)
    found = Sequences.load(tmp_path / "sequences")
    countries = {
        user: found.user_country[index] and decode_country(int(found.user_country[index]))
        for user, index in zip(
            ["moved", "silent", "quiet", "late", "later"],
            found.users.index(pl.Series(["moved", "silent", "quiet", "late", "later"])),
            strict=True,
        )
    }
    # What arrived last counts, as everywhere; what comes after the moment does not.
    assert countries == {"moved": "FR", "silent": 0, "quiet": "JP", "late": "US", "later": "PT"}
