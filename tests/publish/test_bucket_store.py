"""Releases in an object store: what two publishers do at once, what a kill leaves, what is damaged there."""

import shutil
import threading

import pytest
from tests.publish.crashing import check_here
from tests.publish.small_release import advertisers_of, build, make_parts
from tests.s3_server import pointed_at_nothing

from forecart import artifacts
from forecart.errors import ArtifactError, ConfigError, ConflictError, NotFoundError, StoreError
from forecart.object_store import ObjectPath
from forecart.publish import publisher as publisher_module
from forecart.publish.bucket_store import BucketStore
from forecart.publish.lookup import look_up
from forecart.publish.numbered import NumberedLog
from forecart.publish.pointer import Pointer
from forecart.publish.publisher import Publisher
from forecart.publish.releases import Releases
from forecart.publish.remote import RemoteStore
from forecart.publish.stores import open_store
from forecart.publish.suppression import suppression_key
from forecart.serving.current import ReleaseFollower


@pytest.fixture(autouse=True)
def _quick_check(monkeypatch):
    monkeypatch.setattr(publisher_module, "check_in_fresh_process", check_here)


def make_publisher(place, root):
    return Publisher(root, RemoteStore(BucketStore(place, root, look_s=0), root))


def publish(place, root, generation):
    publisher = make_publisher(place, root)
    return publisher.publish(lambda suppressed: make_parts(generation, suppressed=suppressed)).release_id


def open_on_a_new_machine(place, root, release_id):
    store = BucketStore(place, root)
    store.bring(release_id)
    return store, Releases(root).open(release_id)


def test_a_release_of_another_machine_is_brought_verified_and_read(place, tmp_path):
    release_id = publish(place, tmp_path / "one", 0)
    store, release = open_on_a_new_machine(place, tmp_path / "two", release_id)
    assert store.pointer().release_id == release_id
    for number in range(50):
        found = look_up(store, release, f"user-{number}", now_us=release.manifest.as_of_us)
        assert found.record.advertisers.index.tolist() == advertisers_of(number, 0)
    assert not (tmp_path / "two/incoming" / release_id).exists()
    with pytest.raises(NotFoundError):
        store.bring("20171201T000000Z-0123456789ab")


@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_a_damaged_release_does_not_appear_and_the_one_before_is_served_on(place, tmp_path, damage):
    first = publish(place, tmp_path / "one", 0)
    root = tmp_path / "two"
    store = BucketStore(place, root, look_s=0)
    follower = ReleaseFollower(store, Releases(root))
    assert follower.follow().current.release.release_id == first
    second = publish(place, tmp_path / "one", 1)
    folder = place / "releases" / second
    name = next(one for one in folder.sizes() if "users" in one and folder.sizes()[one] > 1000)
    data = (folder / name).read_bytes()
    if damage == "missing":
        (folder / name).remove()
    else:
        (folder / name).write_bytes(data[:-1] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:])
    assert follower.follow().previous.release.release_id == first
    assert "damaged" in follower.problem or "not there" in follower.problem
    assert Releases(root).ids() == [first]
    with pytest.raises(ArtifactError):
        store.bring(second)
    (folder / name).write_bytes(data)
    store.bring(second)
    assert Releases(root).ids() == [first, second]


def test_of_two_publishers_at_once_one_is_refused_and_nothing_is_mixed(place, tmp_path):
    publish(place, tmp_path / "zero", 0)
    barrier, served, refused = threading.Barrier(2), [], []

    class Meeting(RemoteStore):
        def load(self, release, *, report=None):
            barrier.wait()
            super().load(release, report=report)
            barrier.wait()

    def run(number):
        root = tmp_path / str(number)
        publisher = Publisher(root, Meeting(BucketStore(place, root, look_s=0), root))
        try:
            served.append(publisher.publish(lambda suppressed: make_parts(number + 1)).release_id)
        except ConflictError:
            refused.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(served) == len(refused) == 1
    pointer = BucketStore(place, tmp_path / "new").pointer()
    assert (pointer.release_id, pointer.sequence) == (served[0], 2)
    open_on_a_new_machine(place, tmp_path / "new", served[0])


def test_two_machines_that_made_one_id_of_different_bytes_do_not_mix(place, tmp_path):
    releases = [build(tmp_path / name / "x", 0) for name in ("one", "two")]
    manifest = artifacts.read_json(releases[1].folder / artifacts.MANIFEST)
    text = (releases[1].folder / artifacts.MANIFEST).read_text()
    changed = text.replace(manifest["created_at"], "2001-01-01T00:00:00+00:00")
    (releases[1].folder / artifacts.MANIFEST).write_text(changed)
    BucketStore(place, tmp_path / "one").load(releases[0])
    BucketStore(place, tmp_path / "one").load(releases[0])
    with pytest.raises(ConflictError, match="other files"):
        BucketStore(place, tmp_path / "two").load(releases[1])
    _, release = open_on_a_new_machine(place, tmp_path / "new", releases[0].release_id)
    assert release.manifest == releases[0].manifest


def test_stopped_at_any_upload_the_release_is_not_there_and_the_next_try_ends_well(
    place, tmp_path, monkeypatch
):
    release, upload = build(tmp_path / "x", 0), ObjectPath.upload
    num_files = len(release.manifest.files)
    for allowed in (0, 1, num_files // 2, num_files - 1):
        there, left = place / str(allowed), iter([None] * allowed)

        def limited(one, path, left=left):
            if next(left, "none") == "none":
                raise KeyboardInterrupt
            upload(one, path)

        with monkeypatch.context() as patch:
            patch.setattr(ObjectPath, "upload", limited)
            with pytest.raises(KeyboardInterrupt):
                BucketStore(there, tmp_path / "one").load(release)
        with pytest.raises(NotFoundError):
            open_on_a_new_machine(there, tmp_path / "none", release.release_id)
        BucketStore(there, tmp_path / "one").load(release)
        open_on_a_new_machine(there, tmp_path / str(allowed), release.release_id)


def test_old_releases_go_from_the_bucket_and_from_the_machines_that_answer(place, tmp_path):
    root, store = tmp_path / "two", BucketStore(place, tmp_path / "two", look_s=0)
    ids = []
    for generation in range(5):
        ids.append(publish(place, tmp_path / "one", generation))
        store.bring(ids[-1])
    there = {name.partition("/")[0] for name in (place / "releases").sizes()}
    assert there == set(ids[2:]) and set(Releases(root).ids()) == set(ids[2:])


def test_a_rollback_on_a_machine_that_has_nothing(place, tmp_path):
    ids = [publish(place, tmp_path / "one", generation) for generation in (1, 2)]
    pointer = make_publisher(place, tmp_path / "two").roll_back()
    assert (pointer.release_id, pointer.move) == (ids[0], "rollback")
    with pytest.raises(ConflictError, match="older"):
        publish(place, tmp_path / "three", 0)


def test_who_opted_out_is_in_no_release_that_another_machine_makes(place, tmp_path):
    publish(place, tmp_path / "one", 0)
    RemoteStore(BucketStore(place, tmp_path / "two"), tmp_path / "two").suppress("user-5", "opt_out")
    release_id = publish(place, tmp_path / "one", 1)
    store, release = open_on_a_new_machine(place, tmp_path / "three", release_id)
    assert release.users.read("user-5") is None and release.users.read("user-6") is not None
    assert store.read(release_id, "user-5").is_suppressed
    assert suppression_key("user-5") in (tmp_path / "one/suppressed.txt").read_text()


def test_a_store_that_is_down_leaves_what_is_served(place, tmp_path):
    release_id = publish(place, tmp_path / "one", 0)
    root = tmp_path / "two"
    follower = ReleaseFollower(BucketStore(place, root, look_s=0), Releases(root))
    follower.follow()
    with pointed_at_nothing():
        down = BucketStore(ObjectPath(str(place)), root, look_s=0)
        with pytest.raises(StoreError, match="must answer"):
            down.pointer()
        with pytest.raises(StoreError, match="must answer"):
            down.read(release_id, "user-1")
        without = ReleaseFollower(down, Releases(root))
        assert without.follow().pointer is None  # the lists for everybody, of what is on the disk
        assert without.served.current.release.release_id == release_id
    assert follower.follow().current.release.release_id == release_id and follower.problem is None


def test_a_log_of_numbers_has_no_gap_and_is_read_from_where_one_was(place):
    log = NumberedLog(place)
    assert log.read_new() == []
    for number in range(1, 21):
        log.append(b"%d" % number)
    assert not log.add(20, b"another") and not log.add(1, b"another")
    other = NumberedLog(place)
    assert other.read_new() == [b"%d" % number for number in range(1, 21)]
    log.append(b"21")
    assert other.read_new() == [b"21"] and other.read_new() == []
    last = NumberedLog(place)
    last.skip_to_last()
    assert last.read_new() == [b"21"]


def test_garbage_in_place_of_the_pointer_is_an_error_of_the_store(place, tmp_path):
    BucketStore(place, tmp_path).move(Pointer.after(None, "one", move="publish"), expected=None)
    (place / "pointers/000000000002").write_bytes(b"[]")
    with pytest.raises(StoreError, match="pointer"):
        BucketStore(place, tmp_path).pointer()


def test_a_url_names_the_store(place, tmp_path):
    publish(place, tmp_path / "one", 0)
    store = open_store(tmp_path / "two", str(place), timeout_s=1)
    assert store.pointer().sequence == 1
    store.close()
    for url in ("http://bucket/releases", "nowhere"):
        with pytest.raises(ConfigError, match="s3://bucket"):
            open_store(tmp_path, url, timeout_s=1)
    shutil.rmtree(tmp_path / "one")
