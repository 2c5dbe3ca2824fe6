"""Checkpoints: read back bit for bit, two kept, and a damaged one never read."""

import os
import random
import shutil

import pytest
import torch

from forecart.errors import ArtifactError
from forecart.training.checkpoint import (
    Checkpoint,
    load_newest_checkpoint,
    read_tensors,
    remove_checkpoints,
    save_checkpoint,
    write_tensors,
)


def checkpoint_at(step):
    generator = torch.Generator().manual_seed(step)
    tensors = {
        "model.a": torch.randn(40, 7, generator=generator),
        "model.b": torch.randn(7, 40, generator=generator).T,  # not contiguous
        "optimizer.0.step": torch.tensor(float(step)),
        "count": torch.randint(1 << 62, (3,), generator=generator),
    }
    return Checkpoint(step, tensors, {"curve": [{"epoch": 1, "loss": 0.1 + 0.2}]})


def assert_is(loaded, step):
    expected = checkpoint_at(step)
    assert loaded.step == step and loaded.facts == expected.facts
    assert loaded.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert torch.equal(loaded.tensors[name], tensor)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_is_read_back_bit_for_bit_and_two_are_kept(tmp_path):
    assert load_newest_checkpoint(tmp_path) is None
    for step in (5, 10, 9_999_999, 10_000_000):
        save_checkpoint(tmp_path, checkpoint_at(step))
        assert_is(load_newest_checkpoint(tmp_path), step)
    assert names(tmp_path) == ["checkpoint-09999999", "checkpoint-10000000"]
    remove_checkpoints(tmp_path)
    assert names(tmp_path) == []


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    at = random.Random(path.name).randrange(len(content))
    content[at] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("name", ["state.safetensors", "facts.json", "manifest.json"])
@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty, os.unlink])
def test_a_damaged_newest_one_falls_back_to_the_one_before(tmp_path, name, damage):
    for step in (10, 20):
        save_checkpoint(tmp_path, checkpoint_at(step))
    damage(tmp_path / "checkpoint-00000020" / name)
    assert_is(load_newest_checkpoint(tmp_path), 10)
    # The run goes on from there, and comes to step 20 again.
    save_checkpoint(tmp_path, checkpoint_at(20))
    assert_is(load_newest_checkpoint(tmp_path), 20)
    assert len(names(tmp_path)) == 2


def test_no_single_flipped_bit_is_ever_read_as_good(tmp_path):
    """Wherever it is: the weights, the step in the facts, or the manifest, where it may also do no harm."""
    save_checkpoint(tmp_path, checkpoint_at(10))
    files = sorted((tmp_path / "checkpoint-00000010").iterdir())
    rng = random.Random(0)
    for _ in range(300):
        path = rng.choice(files)
        content = bytearray(path.read_bytes())
        damaged = content.copy()
        damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        loaded = load_newest_checkpoint(tmp_path)
        if loaded is not None:
            assert path.name == "manifest.json"
            assert_is(loaded, 10)
        path.write_bytes(content)
    assert_is(load_newest_checkpoint(tmp_path), 10)


def test_damaged_checkpoints_of_later_steps_do_not_push_out_a_good_one(tmp_path):
    for step in (20, 30):
        save_checkpoint(tmp_path, checkpoint_at(step))
        truncate(tmp_path / f"checkpoint-{step:08d}" / "state.safetensors")
    assert load_newest_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, checkpoint_at(10))
    assert_is(load_newest_checkpoint(tmp_path), 10)


def test_what_a_killed_writer_left_is_not_read_and_does_not_stay(tmp_path):
    save_checkpoint(tmp_path, checkpoint_at(10))
    half = tmp_path / "checkpoint-00000020"
    shutil.copytree(tmp_path / "checkpoint-00000010", half)
    (half / "manifest.json").unlink()
    (half / ".state.safetensors.0123abcd.tmp").write_bytes(b"half")
    assert_is(load_newest_checkpoint(tmp_path), 10)
    save_checkpoint(tmp_path, checkpoint_at(20))
    assert names(half) == ["facts.json", "manifest.json", "state.safetensors"]
    assert_is(load_newest_checkpoint(tmp_path), 20)


def test_a_loss_that_is_no_number_is_not_written(tmp_path):
    save_checkpoint(tmp_path, checkpoint_at(10))
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path, Checkpoint(20, {}, {"curve": [{"loss": float("nan")}]}))
    assert_is(load_newest_checkpoint(tmp_path), 10)


def test_tensors_say_what_is_wrong_with_their_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(ArtifactError, match="must hold safetensors"):
        read_tensors(path)
    write_tensors(path, {"a": torch.arange(3)})
    assert read_tensors(path)["a"].tolist() == [0, 1, 2]
    path.write_bytes(b"PK\x03\x04 a pickle in a zip")
    with pytest.raises(ArtifactError, match="must hold safetensors"):
        read_tensors(path)
