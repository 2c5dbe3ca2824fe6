"""The order of training: every row once an epoch, one cut a batch, the same for the same seed."""

import dataclasses

import numpy as np
import pytest

from forecart.errors import DataError
from forecart.sequences.batches import select_labels
from forecart.training.settings import TrainingSettings
from planted_world import DAY, START, cycle_world

CUTS = START + DAY * np.array([10, 11, 12, 13, 14])


@pytest.fixture(scope="module")
def world():
    return cycle_world(num_users=25)


def examples_of(world, *, seed=0, **settings):
    return world.examples(CUTS, TrainingSettings(**({"batch_rows": 10} | settings)), seed=seed)


@pytest.mark.parametrize("objective", ["next", "all_action", "dense_all_action"])
def test_an_epoch_has_every_row_once_in_as_many_steps_as_it_says(world, objective):
    examples = examples_of(world, objective=objective)
    assert examples.num_rows == 5 * 25
    for epoch in range(2):
        order = examples.order(epoch)
        assert len(order) == examples.steps_per_epoch
        assert sorted(np.concatenate(order).tolist()) == list(range(125))


def test_the_batches_of_a_cut_are_of_one_size_and_of_that_cut(world):
    order = examples_of(world).order(0)
    # 25 rows of at most 10: three batches of 8 or 9, never a rest of 5.
    assert sorted(len(rows) for rows in order) == [8] * 10 + [9] * 5
    labels = examples_of(world).labels
    assert all(len(set(labels.cut_us[rows].tolist())) == 1 for rows in order)
    assert all((np.diff(labels.user_index[rows]) > 0).all() for rows in order)


def test_a_dense_batch_holds_users_with_neighbouring_cuts(world):
    examples = examples_of(world, objective="dense_all_action", cuts_per_history=3, batch_rows=12)
    for rows in examples.order(0):
        labels = select_labels(examples.labels, rows)
        days = np.unique((labels.cut_us - CUTS[0]) // DAY)
        assert set(days) <= {0, 1, 2} or set(days) <= {3, 4}
        batch = examples.batch(rows)
        num_users = len(np.unique(labels.user_index))
        assert len(batch.events.offsets) - 1 == num_users < len(rows)
        # The prior is that of the earliest cut: none of the rows sees its own window in it.
        population = examples.populations[int(labels.cut_us.min())]
        assert np.array_equal(batch.log_share, population.log_share)


def test_the_order_follows_from_seed_and_epoch_alone(world):
    def flat(seed, epoch):
        return [rows.tolist() for rows in examples_of(world, seed=seed).order(epoch)]

    assert flat(3, 1) == flat(3, 1)
    assert flat(3, 1) != flat(3, 2)
    assert flat(3, 1) != flat(4, 1)


def test_an_epoch_can_be_entered_in_the_middle(world):
    examples = examples_of(world)
    whole, rest = list(examples.batches(1)), list(examples.batches(1, first=4))
    assert len(rest) == len(whole) - 4
    for batch, expected in zip(rest, whole[4:], strict=True):
        assert np.array_equal(batch.user_index, expected.user_index)
        assert np.array_equal(batch.own.feature, expected.own.feature)


def test_batches_hold_the_labels_of_their_rows(world):
    examples = examples_of(world)
    for rows in examples.order(0)[:3]:
        batch = examples.batch(rows)
        for row in range(len(batch)):
            mine = batch.positives.candidate[batch.positives.row == row]
            history = batch.events.advertiser[batch.events.offsets[row] : batch.events.offsets[row + 1]]
            successor = dict(zip(history[:-1].tolist(), history[1:].tolist(), strict=True))
            # The cycle has 12 advertisers and the history 20 events, so what comes next has come before.
            assert mine.tolist() == [successor.get(int(history[-1]), mine[0])]


def test_no_row_at_all_is_an_error_that_says_what_to_do(world):
    examples = examples_of(world)
    nothing = select_labels(examples.labels, np.zeros(0, np.int64))
    with pytest.raises(DataError, match="use an earlier first cut"):
        dataclasses.replace(examples, labels=nothing)
