"""Logs are gone through in blocks of users: however they are cut, every array is the same to the bit."""

from dataclasses import fields
from unittest.mock import patch

import numpy as np
import pytest
from event_logs import CONVERSIONS, EVENTS, LEVELS, QUARTER, Event, make_histories, make_log
from hypothesis import given, settings

from forecart.sequences import histories as histories_module
from forecart.sequences.histories import split_users
from forecart.sequences.population import read_population
from forecart.sequences.split import LabelContract, label_windows

CONTRACT = LabelContract(positives=dict.fromkeys(CONVERSIONS, 1.0), window_days=7)


def read_all(events: list[Event], level: str, block_events: int) -> dict[str, np.ndarray]:
    """Everything that is read in blocks, with blocks of this size."""
    with patch.object(histories_module, "BLOCK_EVENTS", block_events):
        log = make_log(events, level)
        cuts = np.array([40, 90]) * QUARTER
        found = {
            "log": log,
            "labels": label_windows(
                make_histories(events), cuts_us=cuts, contract=CONTRACT, level=level, with_prior_only=False
            ),
            "novel": label_windows(make_histories(events), cuts_us=cuts, contract=CONTRACT, level=level),
            "population": read_population(log, int(cuts[1])),
            "seen": read_population(log.with_seen_only(), int(cuts[1])),
        }
    return {
        f"{name}.{field.name}": np.asarray(getattr(one, field.name))
        for name, one in found.items()
        for field in fields(one)
        if field.name != "histories" and getattr(one, field.name) is not None
    }


@settings(max_examples=60)
@given(EVENTS, LEVELS)
def test_blocks_of_a_few_events_give_what_one_block_gives(events, level):
    whole = read_all(events, level, 1 << 20)
    for block_events in (1, 7):
        parts = read_all(events, level, block_events)
        assert parts.keys() == whole.keys()
        for name, array in whole.items():
            assert parts[name].dtype == array.dtype, name
            assert parts[name].tobytes() == array.tobytes(), name
            assert parts[name].strides == array.strides, name


def test_a_block_of_histories_holds_whole_users_alone():
    events = [Event(user, "view", 2, 2, user + at) for user in (2, 3, 5) for at in range(3)]
    histories = make_histories(events)
    with patch.object(histories_module, "BLOCK_EVENTS", 4):
        blocks = list(histories.blocks())
    assert [first for first, _ in blocks] == [0, 4, 6]
    assert [block.num_events for _, block in blocks] == [6, 3, 0]
    for first, block in blocks:
        for user in range(block.num_users):
            rows = slice(block.start[user], block.start[user] + block.length[user])
            begin = histories.start[first + user]
            expected = histories.occurred_us[begin : begin + histories.length[first + user]]
            assert block.occurred_us[rows].tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [([0, 0, 0], [(0, 3)]), ([0, 0, 9, 1, 1], [(0, 3), (3, 5)]), ([2, 2, 2], [(0, 2), (2, 3)]), ([], [])],
)
def test_runs_of_users_hold_about_so_many_rows(lengths, expected):
    bounds = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    assert list(split_users(bounds, num_rows=3)) == expected
