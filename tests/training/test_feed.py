"""Batches from a store against the usual ones, and read ahead against one after the other."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from forecart.model.settings import ModelSettings
from forecart.model.tensors import to_tensors
from forecart.training import feed as feed_module
from forecart.training.feed import Feed, negatives_generator, read_ahead
from forecart.training.loop import Trainer
from forecart.training.objective import Objective
from forecart.training.settings import LossSettings, TrainingSettings
from planted_world import DAY, START, random_world

CUTS = START + DAY * np.array([15, 20, 25])
CPU = torch.device("cpu")
MODEL = ModelSettings(width=8, num_layers=1, history_length=8, id_rows=64, dropout=0.2, feature_dropout=0.3)


@pytest.fixture(scope="module")
def world():
    return random_world(num_users=40, num_advertisers=20, num_items=300)


def settings_of(**loss):
    loss = LossSettings(kind="sampled", num_negatives=50, **loss)
    return TrainingSettings(batch_rows=16, num_epochs=2, warmup_steps=2, loss=loss, device="cpu")


def examples_of(world, settings, *, is_stored):
    return world.examples(
        CUTS, settings, level="item", length=8, window_days=5, max_positives=2, is_stored=is_stored
    )


LOSSES = [
    {},
    {"negatives": "sampled", "sampled_power": 0.75},
    {"negatives": "in_batch", "alpha_pos": 1.0},
    {"mask_own_future": True, "form": "corrected"},
]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_stored_batch_has_the_loss_and_the_gradient_of_the_usual_one(world, tmp_path, loss):
    settings = settings_of(**loss)
    usual, stored = (examples_of(world, settings, is_stored=is_stored) for is_stored in (False, True))
    objective = Objective.build(settings.loss, usual.labels.candidate, world.num_items, is_sparse=True)
    model = world.model(MODEL, level="item").train()
    steps = usual.steps_per_epoch
    feed = Feed(stored, objective, CPU, seed=3, store=world.store(tmp_path))
    assert len(list(feed.batches(0, steps_per_epoch=steps))) == steps
    for step, batch in enumerate(feed.batches(steps, steps_per_epoch=steps), start=steps):
        whole = to_tensors(next(usual.batches(1, first=step - steps)), CPU)
        assert len(whole.future_H) and batch.num_candidates < world.num_items == whole.num_candidates
        found = []
        for one in (whole, batch):
            torch.manual_seed(step)
            value = objective(model, one, generator=negatives_generator(3, step))
            gradient = torch.autograd.grad(value, list(model.parameters()))
            found.append((value, torch.cat([part.flatten() for part in gradient])))
        torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES[:3])
@pytest.mark.parametrize("q_estimator", ["exact", "sketch"])
def test_sparse_distributions_are_the_dense_ones(world, loss, q_estimator):
    settings = settings_of(**loss, q_estimator=q_estimator).loss
    positive = np.array([2, 2, 2, 3, 3, 4, 250], np.int32)
    dense, sparse = (
        Objective.build(settings, positive, world.num_items, is_sparse=is_sparse).negatives
        for is_sparse in (False, True)
    )
    index = torch.arange(world.num_items)
    for num_positives in (1, 40):
        torch.testing.assert_close(
            sparse.log_q(index, num_positives=num_positives).float(),
            dense.log_q(index, num_positives=num_positives),
            rtol=1e-5,
            atol=1e-5,
        )


def train(world, folder, *, is_stored, on_step=None):
    settings = settings_of().model_copy(update={"checkpoint_every_steps": 2})
    examples = examples_of(world, settings, is_stored=is_stored)
    model = world.model(MODEL, level="item")
    objective = Objective.build(settings.loss, examples.labels.candidate, world.num_items, is_sparse=True)
    store = world.store(folder / "store") if is_stored else None
    trainer = Trainer(model, examples, objective, settings, folder, 0, on_step=on_step, store=store)
    curve = trainer.run()
    return [entry["loss"] for entry in curve], dict(trainer.model.state_dict())


def test_reading_ahead_changes_no_bit_and_the_store_next_to_nothing(world, tmp_path, monkeypatch):
    ahead = train(world, tmp_path / "ahead", is_stored=True)
    usual = train(world, tmp_path / "usual", is_stored=False)
    monkeypatch.setattr(feed_module, "read_ahead", lambda source: source)
    one_by_one = train(world, tmp_path / "one by one", is_stored=True)
    assert ahead[0] == one_by_one[0]
    assert all(torch.equal(ahead[1][name], value) for name, value in one_by_one[1].items())
    assert ahead[0] == pytest.approx(usual[0], rel=1e-4)
    assert ahead[1].keys() == usual[1].keys()


def test_a_checkpoint_holds_nothing_of_the_catalogue(world, tmp_path):
    weights = train(world, tmp_path, is_stored=True)[1]
    assert not [name for name, value in weights.items() if world.num_items in value.shape]


def test_steps_say_what_they_waited(world, tmp_path):
    told = []
    train(world, tmp_path, is_stored=True, on_step=told.append)
    assert all(0 <= progress.waited_s < 10 for progress in told)


def test_read_ahead_keeps_the_order_and_stays_ahead_by_two():
    made, are_made = [], threading.Event()

    def source():
        for number in range(10):
            made.append(number)
            if number == 2:
                are_made.set()
            yield number

    values = read_ahead(source())
    assert next(values) == 0
    assert are_made.wait(10) and made == [0, 1, 2]
    assert list(values) == list(range(1, 10))


def test_what_is_raised_ahead_is_raised_in_its_place():
    def source():
        yield 1
        yield 2
        raise OSError("the disk is gone")

    values = read_ahead(source())
    assert [next(values), next(values)] == [1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(values)


def test_leaving_early_ends_the_thread():
    values = read_ahead(iter(range(1000)))
    next(values)
    values.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("read-ahead")]


def test_the_population_of_the_seen_says_of_every_candidate_what_the_whole_one_does(world):
    settings = settings_of()
    usual, stored = (examples_of(world, settings, is_stored=is_stored) for is_stored in (False, True))
    every = np.arange(world.num_items)
    for cut, whole in usual.populations.items():
        seen = stored.populations[cut]
        rows = seen.rows_of(every)
        assert len(seen.log_share) < world.num_items
        for name in ("log_share", "visits_per_user", "gap_days"):
            assert np.array_equal(getattr(seen, name)[rows], getattr(whole, name))
        assert np.array_equal(seen.log_candidate[:, rows], whole.log_candidate)
    batch, other = (next(examples.batches(0)) for examples in (usual, stored))
    assert np.array_equal(batch.own.feature, other.own.feature)
    assert replace(other, log_share=batch.log_share).log_share is batch.log_share
