"""A catalogue that is called large is trained from a store, and ends where the usual way ends."""

from dataclasses import replace

import pytest
import torch

from forecart.config import load_config
from forecart.training import task as task_module
from forecart.training.trained_model import load_trained
from forecart.workflow import Workflow


@pytest.fixture
def task(nano):
    task = Workflow(load_config("nano"), nano.folder).training_task("item")
    return replace(task, training=task.training.model_copy(update={"num_epochs": 1, "device": "cpu"}))


def test_a_store_takes_the_place_of_the_tables_and_changes_next_to_nothing(task, tmp_path, monkeypatch):
    usual = task.build_trainer(tmp_path / "usual")
    assert usual.store is None
    curve = usual.run()
    monkeypatch.setattr(task_module, "LARGE_CATALOGUE", 10)
    task = replace(task)  # without what the first one has read
    stored = task.build_trainer(tmp_path / "stored")
    assert stored.store.num_candidates == len(task.sequences.items)
    assert stored.run()[0]["loss"] == pytest.approx(curve[0]["loss"], rel=1e-3)
    assert (tmp_path / "stored" / "store" / "static.npy").exists()
    task.save(stored, tmp_path / "stored")
    assert not (tmp_path / "stored" / "store").exists()
    with torch.no_grad():
        again = load_trained(tmp_path / "stored").encode_candidates()
        # A store has features in half precision, what is saved has them whole.
        torch.testing.assert_close(stored.model.eval().encode_candidates(), again, atol=1e-3, rtol=0)
        cosine = (again * usual.model.eval().encode_candidates())[2:].sum(1)
    assert cosine.min() > 0.99


@pytest.mark.parametrize(
    ("part", "given"),
    [
        ("model", {"id_embedding": "table"}),
        ("model", {"prior": "learned"}),
        ("loss", {"kind": "full"}),
    ],
)
def test_what_needs_a_number_for_each_candidate_has_no_store(task, monkeypatch, part, given):
    assert not task.is_stored
    monkeypatch.setattr(task_module, "LARGE_CATALOGUE", 10)
    assert task.is_stored and not replace(task, level="advertiser").is_stored
    if part == "model":
        task = replace(task, model=task.model.model_copy(update=given))
    else:
        loss = task.training.loss.model_copy(update=given)
        task = replace(task, training=task.training.model_copy(update={"loss": loss}))
    assert not task.is_stored
