"""Small logs of named events, their histories, and what of them is known at a cut, one event at a time."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from forecart.columns import EVENT_TYPE_CODES
from forecart.sequences.histories import Histories
from forecart.sequences.pair_log import PairLog

DAY = 86_400_000_000
QUARTER = DAY // 4
NUM_USERS, NUM_CANDIDATES = 7, 7
CONVERSIONS = ("checkout", "signup")
CONVERSION_CODES = frozenset(EVENT_TYPE_CODES[name] for name in CONVERSIONS)


class Event(NamedTuple):
    """One event; times in quarters of a day since the epoch, so that many are equal."""

    user: int
    kind: str
    advertiser: int
    item: int
    occurred: int
    late: int = 0
    price: float = float("nan")

    @property
    def occurred_us(self) -> int:
        return self.occurred * QUARTER

    @property
    def arrived_us(self) -> int:
        return (self.occurred + self.late) * QUARTER

    def candidate(self, level: str) -> int:
        return self.advertiser if level == "advertiser" else self.item


# User 6 never has an event; candidate 1 is the unknown one, item 0 is no item.
EVENT = st.builds(
    Event,
    user=st.integers(2, 5),
    kind=st.sampled_from(["view", "add_to_cart", "checkout", "checkout", "signup"]),
    advertiser=st.integers(1, 6),
    item=st.sampled_from([0, 1, 2, 3, 4]),
    occurred=st.integers(0, 120),
    late=st.sampled_from([0, 0, 0, 1, 9, 50]),
    price=st.sampled_from([float("nan"), 0.5, 20.0]),
)
EVENTS = st.lists(EVENT, max_size=50)
LEVELS = st.sampled_from(["advertiser", "item"])
CUTS = st.integers(0, 130).map(lambda quarters: quarters * QUARTER)


def in_arrival_order(events: list[Event]) -> list[Event]:
    return sorted(events, key=lambda event: (event.user, event.arrived_us, event.occurred_us))


def make_histories(events: list[Event]) -> Histories:
    rows = in_arrival_order(events)
    length = np.bincount([event.user for event in rows] or np.zeros(0, int), minlength=NUM_USERS)
    return Histories(
        start=np.cumsum(length) - length,
        length=length,
        event_type=np.array([EVENT_TYPE_CODES[event.kind] for event in rows], np.uint8),
        advertiser=np.array([event.advertiser for event in rows], np.int32),
        item=np.array([event.item for event in rows], np.int32),
        occurred_us=np.array([event.occurred_us for event in rows], np.int64),
        arrived_us=np.array([event.arrived_us for event in rows], np.int64),
        price=np.array([event.price for event in rows], np.float32),
    )


def make_log(events: list[Event], level: str = "advertiser") -> PairLog:
    return PairLog.build(
        make_histories(events),
        level=level,
        num_candidates=NUM_CANDIDATES,
        conversion_codes=CONVERSION_CODES,
    )


def known_at(events: list[Event], cut_us: int) -> list[Event]:
    return [event for event in events if event.arrived_us < cut_us]


def poison(cut_us: int) -> list[Event]:
    """Events of every user with every candidate that a reading at the cut may not see: at it, after it, and
    before it but known only at it."""
    cut = -(-cut_us // QUARTER)
    return [
        Event(user, kind, candidate, candidate, occurred, late, 999.0)
        for user in range(2, NUM_USERS)
        for candidate in range(2, NUM_CANDIDATES)
        for kind in ("checkout", "view")
        for occurred, late in ((cut, 0), (cut + 8, 4), (max(cut - 10, 0), 10))
    ]
