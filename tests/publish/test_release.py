"""Releases: built and opened, and refused before any parser runs where a byte of any file is another (R3)."""

import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
from tests.publish.small_release import LAYOUT, advertisers_of, build, make_parts, user_ids

from forecart import artifacts
from forecart.errors import ArtifactError, DataError
from forecart.metrics.calibration import Calibration
from forecart.publish import release as release_module
from forecart.publish.integrity import describe_files, read_sealed, verify, write_sealed
from forecart.publish.release import RELEASE_FORMAT, Release, build_release, read_manifest
from forecart.retrieval.candidate_files import EVERYONE

FILE_TYPES = {
    "array": "items/index/vectors.npy",
    "records": "users/records.bin",
    "ids": "users/vocabulary/id_bytes.npy",
    "hashes": "advertisers/sorted_hashes.npy",
    "json": "fallback.json",
    "manifest": artifacts.MANIFEST,
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "good"
    build(folder)
    return folder


def test_everyone_is_in_it_and_nobody_else(good):
    release = Release.open(good)
    for number, user in enumerate(user_ids(50)):
        row = np.frombuffer(release.users.read(user), LAYOUT.dtype)[0]
        assert row["advertiser_index"][: row["num_advertisers"]].tolist() == advertisers_of(number, 0)
    assert release.users.read("user-50") is None
    assert release.users.read("") is None
    assert release.manifest.num_users == 50


def test_blocks_are_the_records_in_the_order_of_the_ids(good):
    release = Release.open(good)
    ids, records = zip(*release.users.blocks(), strict=True)
    assert [user for some in ids for user in some] == user_ids(50)
    read = [release.users.read(user) for user in user_ids(50)]
    assert b"".join(block.tobytes() for block in records) == b"".join(read)


def test_fallback_lists_are_read_by_country(good):
    index, score = Release.open(good).fallback.advertisers["DE"]
    assert index.tolist() == list(range(11, 1, -1))
    assert score[0] == pytest.approx(0.91)
    assert Release.open(good).fallback.products[EVERYONE][0].tolist() == list(range(2, 12))


def test_calibrations_are_read_back_and_one_that_does_not_rise_is_refused(good, tmp_path):
    assert not Release.open(good).calibrations
    curves = {"products": Calibration((0.1, 0.7), (0.0, 0.25))}
    build_release(replace(make_parts(), calibrations=curves), tmp_path / "one")
    assert Release.open(tmp_path / "one").calibrations == curves
    table = {"products": {"score": [0.1, 0.7], "probability": [0.25, 0.0]}}
    artifacts.write_json(tmp_path / "one/calibrations.json", table)
    with pytest.raises(ArtifactError, match="rises through scores"):
        Release.open(tmp_path / "one")


def test_the_same_parts_make_the_same_release_and_others_another():
    assert make_parts().release_id == make_parts().release_id
    others = {make_parts(1).release_id, make_parts(num_users=49).release_id, make_parts(space="2").release_id}
    assert len(others | {make_parts().release_id}) == 4


def test_a_release_without_users_can_be_read(tmp_path):
    release = build(tmp_path / "empty", num_users=0)
    assert release.users.read("user-1") is None
    assert list(release.users.blocks()) == []


def test_fewer_records_than_users_are_refused(tmp_path):
    parts = make_parts(num_users=20, block=10)
    cut = release_module.ReleaseParts(**{**vars(parts), "blocks": [next(iter(parts.blocks))]})
    with pytest.raises(ArtifactError, match="a record for each of 20 users, 10 came"):
        build_release(cut, tmp_path / "cut")


def test_records_of_another_layout_are_refused(tmp_path):
    parts = make_parts(num_users=4)
    other = release_module.ReleaseParts(**{**vars(parts), "blocks": [np.zeros(4, "<u4")]})
    with pytest.raises(ArtifactError, match="one layout"):
        build_release(other, tmp_path / "other")


def test_an_empty_id_is_refused():
    with pytest.raises(DataError, match="non-empty"):
        release_module.Vocabulary.build([""])


def damage(path, generator):
    """Cuts a file, or flips one bit of it."""
    raw = bytearray(path.read_bytes())
    if generator.random() < 0.3:
        del raw[generator.randrange(len(raw)) :]
    else:
        raw[generator.randrange(len(raw))] ^= 1 << generator.randrange(8)
    path.write_bytes(raw)


@pytest.mark.parametrize("name", FILE_TYPES.values(), ids=FILE_TYPES)
def test_damage_is_found_before_anything_is_parsed(good, tmp_path, name):
    generator = random.Random(name)
    whole = (good / name).read_bytes()
    folder = tmp_path / "release"
    shutil.copytree(good, folder)
    verify(folder, tmp_path / "stamp")
    (tmp_path / "stamp").unlink()
    for _ in range(200):
        damage(folder / name, generator)
        with pytest.raises(ArtifactError):
            verify(folder, tmp_path / "stamp")
        assert not (tmp_path / "stamp").exists()
        (folder / name).write_bytes(whole)
    verify(folder, tmp_path / "stamp")


def test_a_file_changed_after_the_stamp_is_found(good, tmp_path):
    folder, stamp = tmp_path / "release", tmp_path / "stamp"
    shutil.copytree(good, folder)
    verify(folder, stamp)
    damage(folder / FILE_TYPES["records"], random.Random(1))
    with pytest.raises(ArtifactError, match="records"):
        verify(folder, stamp)


@pytest.mark.parametrize("stamp", ["", "{}", "[1", '{"files": {}, "manifest": "x"}'])
def test_a_damaged_stamp_is_not_believed(good, tmp_path, stamp):
    folder, path = tmp_path / "release", tmp_path / "stamp"
    shutil.copytree(good, folder)
    damage(folder / FILE_TYPES["ids"], random.Random(2))
    path.write_text(stamp)
    with pytest.raises(ArtifactError):
        verify(folder, path)


def test_a_missing_a_further_and_a_linked_file_are_found(good, tmp_path):
    for number, change in enumerate(
        [
            lambda folder: (folder / "fallback.json").unlink(),
            lambda folder: (folder / "more.json").write_text("{}"),
            lambda folder: (folder / "users/link").symlink_to(folder / "fallback.json"),
        ]
    ):
        folder = tmp_path / str(number)
        shutil.copytree(good, folder)
        change(folder)
        with pytest.raises(ArtifactError):
            verify(folder, tmp_path / "stamp")


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "", "a\0b"])
def test_a_manifest_cannot_lead_outside_its_folder(good, tmp_path, name):
    folder = tmp_path / "release"
    shutil.copytree(good, folder)
    manifest = read_sealed(folder / artifacts.MANIFEST)
    manifest["files"][name] = {"bytes": 1, "sha256": ["00"]}
    write_sealed(folder / artifacts.MANIFEST, manifest)
    with pytest.raises(ArtifactError):
        verify(folder, tmp_path / "stamp")


def test_a_file_of_several_blocks_has_a_hash_for_each(tmp_path, monkeypatch):
    monkeypatch.setattr("forecart.publish.integrity.BLOCK_BYTES", 1000)
    monkeypatch.setattr("forecart.publish.integrity._READ_BYTES", 300)
    (tmp_path / "file").write_bytes(bytes(2500))
    facts = describe_files(tmp_path)["file"]
    assert facts["bytes"] == 2500
    assert len(facts["sha256"]) == 3
    assert facts["sha256"][0] == facts["sha256"][1] != facts["sha256"][2]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"format": "forecart-release-9"}, RELEASE_FORMAT), ({"surprise": 1}, RELEASE_FORMAT)],
)
def test_a_manifest_of_another_format_is_refused(good, tmp_path, change, message):
    manifest = read_sealed(good / artifacts.MANIFEST)
    write_sealed(tmp_path / artifacts.MANIFEST, manifest | change)
    with pytest.raises(ArtifactError, match=message):
        read_manifest(tmp_path)


def test_a_folder_without_manifest_is_no_release(tmp_path):
    with pytest.raises(ArtifactError, match="no manifest"):
        Release.open(tmp_path)
