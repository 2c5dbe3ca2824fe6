"""A run kept in an object store: what is complete there is not done again, nothing half is taken for it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from forecart import artifacts
from forecart.errors import ArtifactError
from forecart.object_store import ObjectPath
from forecart.run_mirror import MIRROR, RunMirror, find_work_folder, local_run

FILES = {"a.bin": b"a" * 1000, "deep/b.bin": b"b" * 2000, "deep/manifest.json": b"{}", "c.bin": b"c"}
KILLED = """
import sys
from pathlib import Path
from forecart.object_store import ObjectPath
from forecart.run_mirror import RunMirror
RunMirror(ObjectPath(sys.argv[1]), Path(sys.argv[2])).push(Path(sys.argv[2]) / "stage", "key")
"""


def finish(folder, key="key", files=FILES):
    """A finished stage in a run's folder."""
    shutil.rmtree(folder / "stage", ignore_errors=True)
    for name, data in files.items():
        (folder / "stage" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "stage" / name).write_bytes(data)
    artifacts.complete_stage(folder / "stage", key, {})
    return folder / "stage"


def pushed(place, folder, key="key", files=FILES):
    RunMirror(place, folder).push(finish(folder, key, files), key)


def read(stage):
    found = {
        path.relative_to(stage).as_posix(): path.read_bytes() for path in stage.rglob("*") if path.is_file()
    }
    found.pop(artifacts.MANIFEST, None)
    return found


def test_what_is_complete_there_comes_when_it_is_read(place, tmp_path):
    pushed(place, tmp_path / "one")
    mirror, stage = RunMirror(place, tmp_path / "two"), tmp_path / "two/stage"
    assert mirror.take_over(stage, "key") and read(stage) == {}
    assert artifacts.stage_files(stage) == artifacts.stage_files(tmp_path / "one/stage")
    mirror.bring("another")
    assert read(stage) == {}
    mirror.bring()
    assert read(stage) == FILES
    assert not RunMirror(place, tmp_path / "two").take_over(tmp_path / "two/none", "key")


def test_another_key_is_not_taken_over_and_takes_the_place(place, tmp_path):
    pushed(place, tmp_path / "one")
    mirror, stage = RunMirror(place, tmp_path / "two"), tmp_path / "two/stage"
    assert not mirror.take_over(stage, "new")
    finish(tmp_path / "two", "new", {"a.bin": b"new"})
    mirror.push(stage, "new")
    assert set((place / "stage").sizes()) == {"a.bin", MIRROR, artifacts.MANIFEST}
    third = RunMirror(place, tmp_path / "three")
    assert not third.take_over(tmp_path / "three/stage", "key")
    assert third.take_over(tmp_path / "three/stage", "new")


@pytest.mark.parametrize("key", ["key", "new"])
def test_stopped_at_any_upload_it_is_not_complete_and_is_finished_later(place, tmp_path, monkeypatch, key):
    """With `new` over a finished stage of another key, none of which may then pass for one of the two."""
    upload, files = ObjectPath.upload, {name: data + b"!" for name, data in FILES.items()}
    for allowed in range(len(files) + 1):
        run = place / str(allowed)
        if key == "new":
            pushed(run, tmp_path / "before")
        left = iter([None] * allowed)

        def limited(one, path, left=left):
            if next(left, "none") == "none":
                raise KeyboardInterrupt
            upload(one, path)

        stage = finish(tmp_path / "one", key, files)
        with monkeypatch.context() as patch:
            patch.setattr(ObjectPath, "upload", limited)
            with pytest.raises(KeyboardInterrupt):
                RunMirror(run, tmp_path / "one").push(stage, key)
        assert artifacts.MANIFEST not in (run / "stage").sizes()
        for other in ("key", "new"):
            assert not RunMirror(run, tmp_path / "none").take_over(tmp_path / "none/stage", other)
        again = RunMirror(run, tmp_path / "one")
        assert again.take_over(stage, key)
        again.push(stage, key)
        shutil.rmtree(tmp_path / "two", ignore_errors=True)
        fresh = RunMirror(run, tmp_path / "two")
        assert fresh.take_over(tmp_path / "two/stage", key)
        fresh.bring()
        assert read(tmp_path / "two/stage") == files


def test_a_push_that_is_killed_is_gone_on_with(place, tmp_path):
    files = {f"{number:03d}.bin": os.urandom(20_000) for number in range(60)}
    stage = finish(tmp_path / "one", files=files)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(place), str(tmp_path / "one")])
    while len((place / "stage").sizes()) < 10:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert artifacts.MANIFEST not in (place / "stage").sizes()
    assert not RunMirror(place, tmp_path / "two").take_over(tmp_path / "two/stage", "key")
    again = RunMirror(place, tmp_path / "one")
    assert again.take_over(stage, "key")
    again.push(stage, "key")
    fresh = RunMirror(place, tmp_path / "two")
    assert fresh.take_over(tmp_path / "two/stage", "key")
    fresh.bring()
    assert read(tmp_path / "two/stage") == files


@pytest.mark.parametrize("name", ["a.bin", "deep/manifest.json", artifacts.MANIFEST, MIRROR])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_an_object_that_is_not_what_was_pushed_is_told(place, tmp_path, name, damage):
    pushed(place, tmp_path / "one")
    one = place / "stage" / name
    data = one.read_bytes()
    one.write_bytes(data[:-1] if damage == "cut" else b"?" + data[1:])
    mirror, stage = RunMirror(place, tmp_path / "two"), tmp_path / "two/stage"
    with pytest.raises(ArtifactError, match=name):
        mirror.take_over(stage, "key")
        mirror.bring()
    assert not (stage / name).exists() or name in (artifacts.MANIFEST, MIRROR)


def test_a_listing_that_leaves_its_folder_is_refused(place, tmp_path):
    pushed(place, tmp_path / "one")
    listing = place / "stage" / MIRROR
    listed = json.loads(listing.read_bytes())
    for name in ("../outside", "/outside"):
        listed["files"] = listed["files"] | {name: {"bytes": 1, "sha256": "x"}}
        listing.write_bytes(json.dumps(listed).encode())
        with pytest.raises(ArtifactError, match="of the stage"):
            RunMirror(place, tmp_path / "two").take_over(tmp_path / "two/stage", "key")


def test_what_is_missing_there_is_told(place, tmp_path):
    pushed(place, tmp_path / "one")
    (place / "stage/c.bin").remove()
    mirror = RunMirror(place, tmp_path / "two")
    assert mirror.take_over(tmp_path / "two/stage", "key")
    with pytest.raises(ArtifactError, match=r"c\.bin is listed"):
        mirror.bring()


def test_files_of_another_key_are_not_taken_for_those_that_are_listed(place, tmp_path):
    pushed(place, tmp_path / "one")
    stage = finish(tmp_path / "two", "old", {**FILES, "a.bin": b"z" * 1000, "more.bin": b"m"})
    mirror = RunMirror(place, tmp_path / "two")
    assert mirror.take_over(stage, "key")
    mirror.bring()
    assert read(stage) == FILES


def test_what_the_store_has_is_what_counts(place, tmp_path):
    """Two machines made one stage with different bytes: later stages there follow from the store's."""
    pushed(place, tmp_path / "one")
    stage = finish(tmp_path / "two", files={"a.bin": b"of another machine"})
    mirror = RunMirror(place, tmp_path / "two")
    assert mirror.take_over(stage, "key")
    mirror.push(stage, "key")
    mirror.bring()
    assert read(stage) == FILES and (place / "stage/a.bin").read_bytes() == FILES["a.bin"]


def test_finished_pieces_of_a_stage_go_on_elsewhere(place, tmp_path):
    stage, other = tmp_path / "one/stage", tmp_path / "two/stage"
    artifacts.begin_stage(stage, "key", resumable="part-*")
    mirror = RunMirror(place, tmp_path / "one")
    patterns = (artifacts.INPUTS, "part-*")
    mirror.push_pieces(stage, "key", patterns=patterns)
    assert place.sizes() == {}
    for number in range(3):
        (stage / f"part-{number}").write_bytes(b"%d" % number)
        mirror.push_pieces(stage, "key", patterns=patterns)
    artifacts.begin_stage(other, "old", resumable="part-*")
    (other / "part-0").write_bytes(b"old")
    second = RunMirror(place, tmp_path / "two")
    assert not second.take_over(other, "key")
    second.bring_pieces(other, "key")
    artifacts.begin_stage(other, "key", resumable="part-*")
    assert [(other / f"part-{number}").read_bytes() for number in range(3)] == [b"0", b"1", b"2"]
    (other / "part-3").write_bytes(b"3")
    artifacts.complete_stage(other, "key", {})
    second.push(other, "key")
    third = RunMirror(place, tmp_path / "three")
    assert third.take_over(tmp_path / "three/stage", "key")
    third.bring()
    assert set(read(tmp_path / "three/stage")) == {"inputs.json", *(f"part-{number}" for number in range(4))}
    third.bring_pieces(tmp_path / "three/other", "key")
    assert not (tmp_path / "three/other").exists()


def test_a_run_is_brought_whole_to_be_read(place, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ArtifactError, match="must be a run"):
        local_run(str(place))
    artifacts.write_json(tmp_path / "one" / artifacts.CONFIG, {"name": "x"})
    mirror = RunMirror(place, tmp_path / "one")
    mirror.push_file(artifacts.CONFIG)
    mirror.push(finish(tmp_path / "one"), "key")
    folder = local_run(str(place))
    assert folder == find_work_folder(place) and folder.is_relative_to(tmp_path / "cache")
    assert artifacts.read_json(folder / artifacts.CONFIG) == {"name": "x"} and read(folder / "stage") == FILES
    assert local_run(tmp_path / "one") == tmp_path / "one"
