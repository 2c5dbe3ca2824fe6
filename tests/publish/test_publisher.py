"""Publishing and rolling back: what is served, what is kept, and who is refused."""

import multiprocessing
import shutil
import time

import pytest
from tests.publish.crashing import check_here
from tests.publish.small_release import AS_OF_US, DAY_US, TTL_S, advertisers_of, make_parts

from forecart.errors import ConflictError, GateError, NotFoundError
from forecart.publish import publisher as publisher_module
from forecart.publish.embedded import EmbeddedStore
from forecart.publish.lookup import look_up
from forecart.publish.publisher import Publisher
from forecart.publish.releases import Releases
from forecart.publish.suppression import suppression_key


@pytest.fixture
def publisher(tmp_path, monkeypatch):
    monkeypatch.setattr(publisher_module, "check_in_fresh_process", check_here)
    return Publisher(tmp_path, EmbeddedStore(tmp_path))


def publish(publisher, generation, **options):
    return publisher.publish(lambda suppressed: make_parts(generation, suppressed=suppressed, **options))


def served(publisher, number, *, later_s=0):
    pointer = publisher.store.pointer()
    release = Releases(publisher.root).open(pointer.release_id)
    now_us = release.manifest.as_of_us + later_s * 1_000_000
    return look_up(publisher.store, release, f"user-{number}", now_us=now_us)


def test_what_is_published_is_served(tmp_path):
    publisher = Publisher(tmp_path, EmbeddedStore(tmp_path))
    pointer = publish(publisher, 0)
    assert (pointer.sequence, pointer.move, pointer.previous_id) == (1, "publish", None)
    assert served(publisher, 9).record.advertisers.index.tolist() == advertisers_of(9, 0)
    assert served(publisher, 50).absence == "unknown_user"


def test_the_same_again_changes_nothing(publisher):
    first = publish(publisher, 0)
    assert publish(publisher, 0) == first
    assert Releases(publisher.root).ids() == [first.release_id]


def test_a_damaged_release_is_built_again(publisher):
    pointer = publish(publisher, 0)
    path = publisher.root / "releases" / pointer.release_id / "users" / "records.bin"
    path.write_bytes(path.read_bytes()[:-1])
    publisher.store.close()
    assert publish(publisher, 0) == pointer
    assert served(publisher, 9).record.advertisers.index.tolist() == advertisers_of(9, 0)


def test_rolling_back_serves_the_one_before_byte_for_byte(publisher):
    first = publish(publisher, 0)
    before = publisher.store.read(first.release_id, "user-7")
    second = publish(publisher, 1)
    back = publisher.roll_back()
    assert (back.release_id, back.previous_id) == (first.release_id, second.release_id)
    assert (back.sequence, back.move) == (3, "rollback")
    assert publisher.store.read(back.release_id, "user-7") == before
    assert publisher.roll_back(second.release_id).release_id == second.release_id


def test_rolling_back_again_goes_further_back_and_never_forward(publisher):
    first, second, third = (publish(publisher, generation).release_id for generation in range(3))
    assert [publisher.roll_back().release_id for _ in range(2)] == [second, first]
    with pytest.raises(NotFoundError, match="no release before"):
        publisher.roll_back()
    assert publisher.store.pointer().release_id == first
    assert publisher.roll_back(third).release_id == third, "one that is named may be a later one"
    assert publisher.roll_back().release_id == first, "the second was withdrawn, and is not gone back to"
    assert publisher.roll_back(second).release_id == second, "but where it is named"


def test_what_was_withdrawn_is_not_gone_back_to_from_what_came_after(publisher):
    first, withdrawn = publish(publisher, 0).release_id, publish(publisher, 1).release_id
    publisher.roll_back()
    second = publish(publisher, 2).release_id
    third = publish(Publisher(publisher.root, publisher.store, keep=5), 3).release_id
    assert withdrawn in Releases(publisher.root).ids()
    assert publisher.roll_back().release_id == second
    assert publisher.roll_back().release_id == first, "not to the one between, which was withdrawn"
    with pytest.raises(NotFoundError):
        publisher.roll_back()
    assert publisher.roll_back(third).release_id == third


def same_for_all(records):
    records["num_advertisers"], records["advertiser_index"] = 6, range(2, 8)


def test_what_a_killed_publisher_left_unchecked_is_checked_before_it_is_gone_back_to(publisher, monkeypatch):
    first = publish(publisher, 0).release_id

    def die(*_, **__):
        raise KeyboardInterrupt

    for generation, change in ((1, same_for_all), (2, None)):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(publisher_module, "check_in_fresh_process", die)
            publish(publisher, generation, change=change)
    served = publish(Publisher(publisher.root, publisher.store, keep=4), 3)
    _, bad, good, _ = Releases(publisher.root).ids()
    with pytest.raises(GateError, match="50 of 50 do"):
        publisher.roll_back(bad)
    assert publisher.store.pointer() == served
    assert publisher.roll_back(good).release_id == good
    with monkeypatch.context() as patched:
        patched.setattr(publisher_module, "check_in_fresh_process", die)
        assert publisher.roll_back(first).release_id == first, "once is enough for a release that passed"


def test_a_rollback_to_what_is_served_is_refused(publisher):
    publish(publisher, 0)
    pointer = publish(publisher, 1)
    with pytest.raises(ConflictError, match=f"{pointer.release_id} is served already"):
        publisher.roll_back(pointer.release_id)
    assert publisher.store.pointer() == pointer


def test_there_must_be_something_to_roll_back_to(publisher):
    with pytest.raises(NotFoundError, match="no release before"):
        publisher.roll_back()
    publish(publisher, 0)
    with pytest.raises(NotFoundError, match="no release before"):
        publisher.roll_back()
    with pytest.raises(NotFoundError, match="has no release"):
        publisher.roll_back("20171201T000000Z-0123456789ab")
    for name in ("../../etc", "x", "20171201T000000Z-0123456789ab/..", ""):
        with pytest.raises(NotFoundError):
            Releases(publisher.root).verify(name)


def test_an_older_history_is_published_by_rolling_back_only(publisher):
    newest = publish(publisher, 1)
    with pytest.raises(ConflictError, match="older"):
        publish(publisher, 0)
    assert publisher.store.pointer() == newest
    assert Releases(publisher.root).ids() == [newest.release_id], "nobody rolls back to what no gate has seen"


@pytest.mark.parametrize("what", ["all of it", "its manifest", "a byte of its manifest"])
def test_a_served_release_that_is_lost_or_damaged_blocks_no_publish(tmp_path, what):
    publisher = Publisher(tmp_path, EmbeddedStore(tmp_path))
    lost = publish(publisher, 1)
    manifest = tmp_path / "releases" / lost.release_id / "manifest.json"
    if what == "all of it":
        shutil.rmtree(manifest.parent)
    elif what == "its manifest":
        manifest.unlink()
    else:
        manifest.write_text(manifest.read_text().replace('"num_users": 50', '"num_users": 51'))
    with pytest.raises(ConflictError, match="older"):
        publish(publisher, 0)
    pointer = publish(publisher, 2)
    assert (pointer.previous_id, pointer.sequence) == (lost.release_id, 2)
    assert served(publisher, 9).record.advertisers.index.tolist() == advertisers_of(9, 2)


def test_the_last_releases_are_kept_and_no_more(publisher):
    pointers = [publish(publisher, generation) for generation in range(6)]
    assert Releases(publisher.root).ids() == [pointer.release_id for pointer in pointers[-3:]]
    assert not list((publisher.root / "stamps").glob(f"{pointers[0].release_id}*"))


def test_what_is_served_is_kept_whatever_its_age(publisher):
    first = publish(publisher, 0)
    for generation in range(1, 4):
        publish(publisher, generation)
        publisher.roll_back(first.release_id)
    assert first.release_id in Releases(publisher.root).ids()
    assert served(publisher, 9).record.advertisers.index.tolist() == advertisers_of(9, 0)


def test_who_is_suppressed_is_answered_by_no_release_old_or_new(publisher):
    publish(publisher, 0)
    publisher.store.suppress("user-3", "opt_out")
    assert served(publisher, 3).absence == "suppressed"
    second = publish(publisher, 1)
    assert publisher.store.read(second.release_id, "user-3").payload is None
    publisher.roll_back()
    assert served(publisher, 3).absence == "suppressed"
    assert publisher.store.suppressed_keys() == {suppression_key("user-3")}
    assert served(publisher, 4).absence is None


def test_a_record_is_served_until_it_is_too_old(publisher):
    publish(publisher, 0)
    assert served(publisher, 3, later_s=TTL_S).absence is None
    assert served(publisher, 3, later_s=TTL_S + 1).absence == "record_expired"


def test_a_pointer_that_moved_meanwhile_is_left_alone(publisher):
    first = publish(publisher, 0)
    store = publisher.store
    late = Publisher(publisher.root, store)
    publish(publisher, 1)
    with pytest.raises(ConflictError, match="where it was read"):
        store.move(first, expected=first)
    assert late.store.pointer().sequence == 2


def hold(root, started):
    def slow_parts(_):
        started.set()
        time.sleep(3)
        return make_parts(0)

    publisher_module.check_in_fresh_process = check_here
    Publisher(root, EmbeddedStore(root)).publish(slow_parts)


def test_two_publishers_at_once_one_wins_the_other_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(publisher_module, "check_in_fresh_process", check_here)
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    first = context.Process(target=hold, args=(tmp_path, started))
    first.start()
    assert started.wait(60)
    second = Publisher(tmp_path, EmbeddedStore(tmp_path))
    with pytest.raises(ConflictError, match="one publisher works on"):
        publish(second, 1)
    first.join()
    assert first.exitcode == 0
    assert second.store.pointer().sequence == 1
    assert publish(second, 1).sequence == 2


def test_the_moment_of_a_release_is_in_its_name(publisher):
    assert publish(publisher, 0).release_id.startswith("20241004T000000Z-")
    assert AS_OF_US // DAY_US == 20_000
