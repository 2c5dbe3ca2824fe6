"""Following the pointer: what is opened, kept, refused, and taken up again."""

import shutil

import pytest
from tests.publish.small_release import make_parts
from tests.serving.server_process import wait_until

from forecart.errors import StoreError
from forecart.publish.embedded import EmbeddedStore
from forecart.publish.publisher import Publisher
from forecart.publish.releases import Releases
from forecart.serving import current
from forecart.serving.current import ReleaseFollower


class FlakyStore(EmbeddedStore):
    is_down = False

    def pointer(self):
        if self.is_down:
            raise StoreError("the store is down")
        return super().pointer()


@pytest.fixture
def store(tmp_path):
    return FlakyStore(tmp_path)


@pytest.fixture
def publisher(tmp_path):
    return Publisher(tmp_path, EmbeddedStore(tmp_path))


@pytest.fixture
def told():
    return []


@pytest.fixture
def follower(tmp_path, store, told):
    return ReleaseFollower(store, Releases(tmp_path), tell=lambda what, which: told.append(what))


def publish(publisher, generation):
    return publisher.publish(lambda suppressed: make_parts(generation, suppressed=suppressed)).release_id


def ids(served):
    return [one and one.release.release_id for one in (served.current, served.previous)]


def test_before_the_first_release_nothing_is_served_and_it_says_so(follower):
    assert ids(follower.follow()) == [None, None]
    assert "publish one" in follower.problem


def test_each_publish_moves_on_and_keeps_the_one_before(follower, publisher):
    first = publish(publisher, 0)
    assert ids(follower.follow()) == [first, None]
    opened = follower.served.current
    second = publish(publisher, 1)
    assert ids(follower.served) == [first, None], "nothing moves before the pointer is looked at"
    assert ids(follower.follow()) == [second, first]
    assert follower.served.previous is opened, "what is open is not opened again"
    third = publish(publisher, 2)
    assert ids(follower.follow()) == [third, second]
    assert follower.problem is None


def test_a_rollback_serves_the_one_before_again_and_nothing_of_what_it_withdrew(follower, publisher):
    first, second = publish(publisher, 0), publish(publisher, 1)
    assert ids(follower.follow()) == [second, first]
    publisher.roll_back()
    assert ids(follower.follow()) == [first, None]
    third = publish(publisher, 2)
    assert ids(follower.follow()) == [third, first]


def test_nothing_is_opened_again_while_the_pointer_stays(follower, publisher, told):
    publish(publisher, 0)
    served = follower.follow()
    assert follower.follow() is served and follower.follow() is served
    assert told == ["release_opened"]


def test_a_damaged_release_is_refused_and_the_one_before_stays(
    follower, publisher, tmp_path, told, monkeypatch
):
    first, second = publish(publisher, 0), publish(publisher, 1)
    path = tmp_path / "releases" / second / "users" / "records.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    assert ids(follower.follow()) == [None, first]
    assert "damaged" in follower.problem
    follower.follow()
    assert told == ["release_refused"], "it is told once"
    path.write_bytes(whole)
    assert ids(follower.follow()) == [None, first], "verifying costs much, so it waits before it tries again"
    monkeypatch.setattr(current, "_RETRY_S", 0)
    follower._retry_at = 0
    assert ids(follower.follow()) == [second, first]
    assert follower.problem is None and told[-1] == "release_opened"


def test_no_error_ends_the_thread(tmp_path, publisher, store, monkeypatch):
    follower = ReleaseFollower(store, Releases(tmp_path), poll_s=0.01)
    with monkeypatch.context() as patched:
        patched.setattr(store, "pointer", lambda: 1 / 0)
        follower.start()
        wait_until(lambda: follower.problem == "ZeroDivisionError: division by zero")
    try:
        first = publish(publisher, 0)
        wait_until(lambda: ids(follower.served) == [first, None])
    finally:
        follower.stop()


def test_what_is_prepared_is_prepared_before_anybody_sees_it(tmp_path, store, publisher):
    seen = []
    follower = ReleaseFollower(
        store,
        Releases(tmp_path),
        prepare=lambda served: seen.append((ids(served), ids(follower.served))),
    )
    first = publish(publisher, 0)
    follower.follow()
    follower.follow()
    second = publish(publisher, 1)
    follower.follow()
    assert seen == [
        ([first, None], [None, None]),
        ([first, None], [first, None]),
        ([second, first], [first, None]),
    ]


def test_while_the_store_is_down_what_is_served_stays(follower, publisher, store):
    first = publish(publisher, 0)
    follower.follow()
    store.is_down = True
    assert ids(follower.follow()) == [first, None]
    assert "down" in follower.problem
    store.is_down = False
    follower.follow()
    assert follower.problem is None


def test_who_begins_while_the_store_is_down_opens_the_latest_unconfirmed(follower, publisher, store):
    first, second = publish(publisher, 0), publish(publisher, 1)
    publisher.roll_back()
    store.is_down = True
    served = follower.follow()
    assert ids(served) == [second, None] and served.pointer is None
    store.is_down = False
    served = follower.follow()
    assert ids(served) == [first, None] and served.pointer is not None


def test_no_error_of_the_disk_ends_the_thread_while_the_store_is_down(
    tmp_path, publisher, store, monkeypatch
):
    """As on a file system that became read-only: what cannot be opened is passed over and tried again."""

    def refuse(release_id):
        raise PermissionError("read-only file system")

    first, second = publish(publisher, 0), publish(publisher, 1)
    store.is_down = True
    releases = Releases(tmp_path)
    follower = ReleaseFollower(store, releases, poll_s=0.01)
    whole = releases.open
    monkeypatch.setattr(releases, "open", refuse)
    follower.start()
    try:
        wait_until(lambda: follower.problem is not None)
        assert ids(follower.served) == [None, None]
        monkeypatch.setattr(releases, "open", lambda one: refuse(one) if one == second else whole(one))
        wait_until(lambda: ids(follower.served) == [first, None])
    finally:
        follower.stop()


def test_a_release_that_is_gone_from_the_disk_is_still_served(follower, publisher, tmp_path):
    """Publishers remove old releases while somebody answers from them."""
    publish(publisher, 0)
    opened = follower.follow().current
    shutil.rmtree(tmp_path / "releases")
    assert opened.release.users.read("user-7") is not None
    assert opened.advertiser_ids[2] == "advertiser-0"


def test_the_thread_follows_by_itself_and_stops(tmp_path, store, publisher):
    follower = ReleaseFollower(store, Releases(tmp_path), poll_s=0.01)
    follower.start()
    try:
        first = publish(publisher, 0)
        wait_until(lambda: ids(follower.served) == [first, None])
    finally:
        follower.stop()
    publish(publisher, 1)
    assert ids(follower.served) == [first, None]


def test_the_embedded_store_keeps_few_releases_open(publisher, store):
    publisher = Publisher(publisher.root, publisher.store, keep=20)
    released = [publish(publisher, generation) for generation in range(8)]
    for release_id in released:
        assert store.read(release_id, "user-7").payload is not None
    assert len(store._tables) <= 4
    assert store.read(released[0], "user-7").payload is not None


class LosingStore(FlakyStore):
    """Loses what it holds, as a server does that is restarted without a disk."""

    has_pointer = has_records = True

    def pointer(self):
        return super().pointer() if self.has_pointer else None

    def holds(self, release_id):
        return self.has_records and super().holds(release_id)


@pytest.mark.parametrize("lost", ["has_pointer", "has_records"])
def test_a_store_that_lost_what_is_served_is_empty_until_it_is_published_again(tmp_path, publisher, lost):
    store = LosingStore(tmp_path)
    follower = ReleaseFollower(store, Releases(tmp_path))
    first = publish(publisher, 0)
    served = follower.follow()
    assert not served.is_empty
    setattr(store, lost, False)
    empty = follower.follow()
    assert ids(empty) == [first, None] and empty.is_empty and "publish again" in follower.problem
    assert follower.follow() is empty
    setattr(store, lost, True)
    assert follower.follow() == served and follower.problem is None


def test_who_begins_while_the_store_is_empty_opens_the_latest_for_everybody(tmp_path, publisher):
    store = LosingStore(tmp_path)
    store.has_pointer = store.has_records = False
    follower = ReleaseFollower(store, Releases(tmp_path))
    assert not follower.follow().is_empty, "nothing was published yet"
    assert "publish one" in follower.problem
    first = publish(publisher, 0)
    served = follower.follow()
    assert ids(served) == [first, None] and served.is_empty
