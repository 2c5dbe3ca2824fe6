"""Files of a run: written whole or not at all, refused when damaged, marked when complete."""

import hashlib
import math
import os
import random

import numpy as np
import polars as pl
import pytest

from forecart import artifacts
from forecart.errors import ArtifactError


class DiskFullError(OSError):
    pass


def fail(*args: object) -> None:
    raise DiskFullError("no space left on device")


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.txt"
    artifacts.write_text(path, "old")

    def write_half(temporary):
        temporary.write_text("ne")
        fail()

    with pytest.raises(DiskFullError):
        artifacts.write_atomically(path, write_half)
    assert path.read_text() == "old" and names_in(tmp_path) == ["table.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_refuses_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "table.txt"
    artifacts.write_text(path, "old")
    monkeypatch.setattr(os, step, fail)
    if step == "replace":
        monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(DiskFullError):
        artifacts.write_text(path, "new")
    assert path.read_text() == "old" and names_in(tmp_path) == ["table.txt"]


def test_the_file_is_durable_before_it_has_its_name_and_the_name_after(tmp_path, monkeypatch):
    path, steps = tmp_path / "new" / "table.txt", []
    sync = os.fsync

    def record(descriptor):
        steps.append(path.exists())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    artifacts.write_text(path, "text")
    assert steps == [False, True]


def test_a_reader_sees_only_the_name_it_knows(tmp_path):
    seen = []
    artifacts.write_atomically(
        tmp_path / "a.json", lambda temporary: (temporary.write_text("{}"), seen.append(names_in(tmp_path)))
    )
    assert len(seen[0]) == 1 and seen[0][0].startswith(".a.json.") and names_in(tmp_path) == ["a.json"]


def test_json_round_trip_is_sorted_and_refuses_nan(tmp_path):
    path = tmp_path / "facts.json"
    artifacts.write_json(path, {"b": [1, None], "a": "é"})
    assert artifacts.read_json(path) == {"a": "é", "b": [1, None]}
    assert path.read_text().index('"a"') < path.read_text().index('"b"')
    with pytest.raises(ValueError, match="JSON compliant"):
        artifacts.write_json(path, {"a": math.nan})
    assert artifacts.read_json(path)["a"] == "é"


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe"])
def test_json_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "facts.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"facts\.json"):
        artifacts.read_json(path)


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.uint8, bool])
def test_arrays_come_back_read_only(tmp_path, dtype):
    values = np.arange(12).reshape(3, 4).astype(dtype)
    artifacts.write_npy(tmp_path / "values.npy", values)
    read = artifacts.read_npy(tmp_path / "values.npy")
    np.testing.assert_array_equal(read, values)
    assert read.dtype == values.dtype
    with pytest.raises(ValueError, match="read-only"):
        read[0, 0] = 1


@pytest.mark.filterwarnings("ignore")  # numpy guesses aloud at a header that it cannot read
def test_a_damaged_header_is_refused_or_describes_a_smaller_array(tmp_path):
    path, generator = tmp_path / "values.npy", random.Random(0)
    artifacts.write_npy(path, np.arange(1000))
    whole = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(128)] = generator.choice(b"(){}[]'\",:\\\n\x00\xff0129abc<>Of")
        path.write_bytes(damaged)
        try:
            assert artifacts.read_npy(path).nbytes <= len(whole)
        except ArtifactError:
            continue


def test_an_array_of_objects_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        artifacts.write_npy(tmp_path / "values.npy", np.array([{}], dtype=object))
    assert names_in(tmp_path) == []


def test_parquet_is_the_same_bytes_for_the_same_table(tmp_path):
    frame = pl.DataFrame({"user_id": ["a", None, "b"], "score": [1.0, 2.0, math.inf]})
    for name in ("one.parquet", "two.parquet"):
        artifacts.write_parquet(tmp_path / name, frame)
    assert pl.read_parquet(tmp_path / "one.parquet").equals(frame)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_hashes_are_sha256(tmp_path):
    content = b"0123456789" * 200_000
    (tmp_path / "large.bin").write_bytes(content)
    assert artifacts.hash_file(tmp_path / "large.bin") == hashlib.sha256(content).hexdigest()
    (tmp_path / "empty").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert artifacts.hash_file(tmp_path / "empty") == empty


def test_a_folder_is_its_files_without_manifests(tmp_path):
    artifacts.write_text(tmp_path / "b" / "two.txt", "2")
    artifacts.write_text(tmp_path / "a.txt", "1")
    artifacts.write_json(tmp_path / "b" / artifacts.MANIFEST, {})
    hashes = artifacts.hash_folder(tmp_path)
    assert list(hashes) == ["a.txt", "b/two.txt"]
    assert hashes["a.txt"] == hashlib.sha256(b"1").hexdigest()


def test_the_hash_of_a_value_ignores_the_order_of_keys_only():
    assert artifacts.hash_value({"a": 1, "b": [1, 2]}) == artifacts.hash_value({"b": [1, 2], "a": 1})
    different = [{"a": 1}, {"a": 2}, {"a": "1"}, [1, 2], [2, 1], None]
    assert len({artifacts.hash_value(value) for value in different}) == len(different)


def test_a_stage_is_complete_for_its_key_only_while_its_files_are_there(tmp_path):
    assert not artifacts.is_stage_complete(tmp_path, "key")
    artifacts.write_text(tmp_path / "part.txt", "1")
    artifacts.complete_stage(tmp_path, "key", {"num_rows": 3})
    assert artifacts.is_stage_complete(tmp_path, "key")
    assert not artifacts.is_stage_complete(tmp_path, "another")
    manifest = artifacts.read_json(tmp_path / artifacts.MANIFEST)
    assert manifest["num_rows"] == 3
    assert manifest["files"] == {"part.txt": hashlib.sha256(b"1").hexdigest()}
    (tmp_path / "part.txt").unlink()
    assert not artifacts.is_stage_complete(tmp_path, "key")


def test_a_damaged_manifest_is_an_error_and_not_an_unfinished_stage(tmp_path):
    (tmp_path / artifacts.MANIFEST).write_text("{")
    with pytest.raises(ArtifactError, match="must hold JSON"):
        artifacts.is_stage_complete(tmp_path, "key")
