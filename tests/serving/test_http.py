"""`forecart serve` over HTTP: what it answers, what it refuses, and that it stops as it should."""

import gzip
import hashlib
import json
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path
from typing import get_args

import polars as pl
import pytest
from tests.publish.small_release import make_parts
from tests.serving.server_process import ALLOWED, ids_of, serving, wait_until

from forecart.publish.embedded import EmbeddedStore
from forecart.publish.publisher import Publisher
from forecart.publish.run_parts import read_run
from forecart.serving.ladder import Reason, Source

TOKENS = {"all-of-it": ["suppress", "reload"], "only-reload": ["reload"]}
SETTINGS = "max_batch = 3\n[tokens]\n" + "".join(
    f"{hashlib.sha256(token.encode()).hexdigest()} = {json.dumps(scopes)}\n"
    for token, scopes in TOKENS.items()
)


@pytest.fixture(scope="module")
def run(nano):
    return nano.folder


@pytest.fixture(scope="module")
def root(run, tmp_path_factory):
    root = tmp_path_factory.mktemp("releases")
    publisher = Publisher(root, EmbeddedStore(root))
    publisher.publish(lambda suppressed: read_run(run, suppressed=suppressed, ttl_s=7 * 86_400))
    return root


@pytest.fixture(scope="module")
def server(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, "--releases", root, "--clock", "as-of", settings=SETTINGS) as found:
        yield found


def lists_of(run, level):
    """user -> rows of the run's Parquet lists, by rank."""
    parts = sorted((run / "candidates" / level).glob("part-*.parquet"))
    lists = {}
    for row in pl.concat([pl.read_parquet(part) for part in parts]).sort("user_id", "rank").to_dicts():
        lists.setdefault(row["user_id"], []).append(row)
    return lists


def test_everyone_gets_the_list_that_the_run_made(server, run):
    lists = lists_of(run, "advertisers")
    assert len(lists) > 100
    for user_id, rows in list(lists.items())[::5]:
        answer = server.advertisers(user_id, limit=len(rows))
        (part,) = answer["advertisers"]
        assert part["ids"] == [row["advertiser_id"] for row in rows]
        assert part["is_repeat"] == [row["is_repeat"] for row in rows]
        assert part["scores"] == pytest.approx([row["score"] for row in rows], abs=1e-5)
        assert part["ranks"] == [row["rank"] for row in rows]
        assert (answer["source"], answer["degraded"]) == ("advertisers", [])


def test_candidates_hold_the_products_of_the_run_too(server, run):
    for user_id, rows in list(lists_of(run, "products").items())[:20]:
        body = {"user_id": user_id, "consent": ALLOWED, "limit": 10}
        answer = server.post("/v1/candidates", body).json()
        assert ids_of(answer["products"]) == [row["item_id"] for row in rows[:10]]
        assert answer["degraded"] == ["no_inventory"]


def test_a_stranger_gets_what_the_run_lists_for_everybody(server, run):
    rows = pl.read_parquet(run / "candidates" / "advertisers" / "fallback.parquet").to_dicts()
    answer = server.advertisers("nobody", limit=5)
    assert ids_of(answer["advertisers"]) == [row["advertiser_id"] for row in rows[:5]]
    assert (answer["source"], answer["degraded"]) == ("fallback_global", ["unknown_user"])


def test_a_batch_answers_each_of_its_requests(server, run):
    users = list(lists_of(run, "advertisers"))[:2]
    requests = [{"user_id": user, "consent": ALLOWED, "request_id": user} for user in users]
    answers = server.post("/v1/candidates:batch", {"requests": requests}).json()["answers"]
    assert [one["request_id"] for one in answers] == users
    single = [server.post("/v1/candidates", one).json() for one in requests]
    assert answers == single
    assert server.post("/v1/candidates:batch", {"requests": []}).json() == {"answers": []}
    assert server.post("/v1/candidates:batch", {"requests": [{}] * 4}).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"user_id": 7}',
        b'{"user_id": ""}',
        b'{"user_id": "a\\u0000b"}',
        b'{"user_id": "a\\nb"}',
        b'{"user_id": "\\ud800"}',
        b'{"user_id": "' + b"x" * 257 + b'"}',
        b'{"user": "misspelt"}',
        b'{"limit": 0}',
        b'{"limit": 1001}',
        b'{"limit": 1.5}',
        b'{"deadline_ms": 0}',
        b'{"blocked_advertisers": "a"}',
        b'{"consent": []}',
        b'{"country": "a"}',
        b"[" * 20_000,
        b'{"consent":' * 5_000,
    ],
)
@pytest.mark.parametrize("path", ["/v1/advertisers", "/v1/candidates"])
def test_malformed_bodies_are_400_and_say_why(server, path, body):
    reply = server.client.post(path, content=body)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]


def test_ids_of_any_language_are_ids(server):
    for user_id in ("Ω", "名前", "a b", "user/1", "😀", "x" * 256):
        assert server.advertisers(user_id)["degraded"] == ["unknown_user"]


def test_bodies_over_the_limit_are_413(server):
    head = b'{"user_id": "x"'
    fits = head + b" " * ((64 << 10) - len(head) - 1) + b"}"
    assert server.client.post("/v1/advertisers", content=fits).status_code == 200
    assert server.client.post("/v1/advertisers", content=fits + b" ").status_code == 413

    def chunks():
        for _ in range(2000):
            yield b" " * 1000

    assert server.client.post("/v1/advertisers", content=chunks()).status_code == 413
    assert server.client.get("/healthz").status_code == 200


def test_what_is_refused_leaves_no_memory_behind(server):
    bomb = gzip.compress(bytes(10_000_000))
    large = bytes(1_000_000)
    before = server.memory_mb()
    for _ in range(60):
        assert server.client.post("/v1/candidates", content=large).status_code == 413
        reply = server.client.post("/v1/candidates", content=bomb, headers={"content-encoding": "gzip"})
        assert reply.status_code == 415
        assert server.client.post("/v1/candidates", content=b"[" * 60_000).status_code == 400
    assert server.memory_mb() - before < 50


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, identity"])
def test_compressed_bodies_are_415(server, encoding):
    reply = server.client.post("/v1/advertisers", content=b"\x1f\x8b", headers={"content-encoding": encoding})
    assert reply.status_code == 415


def test_other_paths_and_methods_are_404_and_405(server):
    assert server.client.get("/").status_code == 404
    assert server.client.post("/v1/advertisers/").status_code == 404
    assert server.client.post("/v1/unknown", json={}).status_code == 404
    reply = server.client.get("/v1/advertisers")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    assert server.client.request("DELETE", "/healthz").status_code == 405


def test_openrtb_without_anything_to_bid_is_204_and_malformed_is_400(server):
    request = {"id": "r", "imp": [{"id": "1"}], "user": {"buyeruid": "nobody"}, "tmax": 100, "ext": {"x": 1}}
    reply = server.post("/openrtb", request)
    assert (reply.status_code, reply.content) == (204, b"")
    for malformed in ({}, {"id": "r"}, {"id": "r", "imp": []}, []):
        assert server.post("/openrtb", malformed).status_code == 400


def post_admin(server, path, token, body):
    headers = {} if token is None else {"authorization": token}
    return server.post(path, body, headers=headers).status_code


def test_admin_needs_a_token_for_what_it_does(server):
    for path, body in (("/admin/suppress", {"user_id": "x", "reason": "opt_out"}), ("/admin/reload", {})):
        for token in (None, "", "Bearer", "Bearer wrong", "Basic all-of-it", "all-of-it"):
            assert post_admin(server, path, token, body) == 401, token
        hashed = hashlib.sha256(b"all-of-it").hexdigest()
        assert post_admin(server, path, f"Bearer {hashed}", body) == 401
    suppress = ("/admin/suppress", "Bearer only-reload", {"user_id": "y", "reason": "opt_out"})
    assert post_admin(server, *suppress) == 403
    assert post_admin(server, "/admin/reload", "Bearer only-reload", {}) == 200
    assert server.client.get("/admin/suppress").status_code == 405


def test_who_is_suppressed_is_never_answered_personally_again(server, run, root):
    user_id = list(lists_of(run, "advertisers"))[-1]
    assert server.advertisers(user_id)["source"] == "advertisers"
    body = {"user_id": user_id, "reason": "deletion"}
    assert post_admin(server, "/admin/suppress", "Bearer all-of-it", body | {"reason": "mood"}) == 400
    assert server.advertisers(user_id)["source"] == "advertisers"
    assert post_admin(server, "/admin/suppress", "bearer all-of-it", body) == 200
    answer = server.advertisers(user_id)
    assert (answer["source"], answer["degraded"]) == ("fallback_global", ["suppressed"])
    assert user_id not in (root / "suppressed.txt").read_text()


TRAVERSALS = [
    prefix + middle + suffix
    for prefix in ("", "/", "v1/", "releases/", "%2e%2e/", "C:")
    for middle in ("../", "..%2f", "%2e%2e%2f", "..%5c", "%252e%252e%252f", "....//", "..;/", "%c0%ae%c0%ae/")
    for suffix in ("etc/passwd", "suppressed.txt%00.json")
]


def test_no_path_leads_to_a_file(server, root):
    """S2: raw request lines, because a client would tidy them up."""
    assert len(TRAVERSALS) > 60
    before = sorted(path.stat().st_mtime_ns for path in root.rglob("*"))
    for path in TRAVERSALS:
        with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
            connection.sendall(f"GET /{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            reply = b"".join(iter(lambda: connection.recv(4096), b""))
        assert reply.split()[1] in (b"400", b"404"), (path, reply)
        assert b"root:" not in reply
        answer = server.advertisers(path)
        assert answer["degraded"] == ["unknown_user"]
    assert sorted(path.stat().st_mtime_ns for path in root.rglob("*")) == before


def test_health_readiness_and_the_description(server):
    assert server.client.get("/healthz").json() == {"status": "ok"}
    ready = server.client.get("/readyz").json()
    assert ready["problem"] is None and ready["breaker"] == "closed" and ready["release"]
    document = server.client.get("/openapi.json").json()
    assert {"/v1/advertisers", "/v1/candidates", "/v1/candidates:batch", "/healthz"} <= set(document["paths"])
    fields = document["components"]["schemas"]["AdvertiserAsk"]["properties"]
    assert {"user_id", "consent", "country", "limit"} <= set(fields)
    assert document["paths"]["/admin/suppress"]["post"]["security"] == [{"token": []}]


def test_the_reference_names_every_path_field_and_reason(server):
    text = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")
    document = server.client.get("/openapi.json").json()
    sections = set(re.findall(r"^##+ (/\S+)$", text, re.MULTILINE))
    assert sections == set(document["paths"])
    schemas = document["components"]["schemas"].values()
    fields = {name for schema in schemas for name in schema["properties"]}
    fields -= {"bid", "error", "price", "status", "impid", "adid", "crid", "seatbid"}  # in examples
    assert {
        name for name in (*fields, *get_args(Reason), *get_args(Source)) if f"`{name}`" not in text
    } == set()


def read_metrics(server):
    lines = server.client.get("/metrics").text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def test_metrics_count_what_happened(server):
    name, path = "forecart_requests_total", 'path="/v1/advertisers"'
    before = read_metrics(server)
    for _ in range(5):
        server.advertisers("nobody")
    server.client.post("/v1/advertisers", content=b"{")
    after = read_metrics(server)
    assert after[f'{name}{{{path},status="200"}}'] - before[f'{name}{{{path},status="200"}}'] == 5
    failed = f'{name}{{{path},status="400"}}'
    assert after[failed] - before.get(failed, 0) == 1
    unknown = 'forecart_degraded_total{reason="unknown_user"}'
    assert after[unknown] - before.get(unknown, 0) == 5
    assert 0 <= after["forecart_release_age_seconds"] < 3600
    assert after["forecart_breaker_state"] == 0


def log_of(server):
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def test_the_log_is_json_without_anybody_s_id(server, run):
    user_id = next(iter(lists_of(run, "advertisers")))
    server.advertisers(user_id)
    assert {"release_opened", "serving"} <= {line["event"] for line in log_of(server)}
    assert user_id not in server.log.read_text()


def test_several_processes_serve_one_port_and_count_together(root, tmp_path):
    options = ("--releases", root, "--clock", "as-of", "--workers", 2)
    with serving(tmp_path, *options) as server:
        wait_until(lambda: server.log.read_text().count('"serving"') == 2)
        for _ in range(20):
            server.client.post("/v1/advertisers", json={}, headers={"connection": "close"})
        key = 'forecart_requests_total{path="/v1/advertisers",status="200"}'
        wait_until(lambda: read_metrics(server)[key] == 20)
        # A process that dies is replaced, and what it counted stays counted.
        (first, *_) = server.workers()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: server.log.read_text().count('"serving"') == 3)
        assert first not in server.workers()
        wait_until(lambda: read_metrics(server)[key] == 20)
        assert read_metrics(server)["forecart_release_age_seconds"] < 3600
        assert server.stop() == 0


def test_sigterm_answers_what_has_begun_and_exits_0(root, tmp_path):
    """L7: requests keep coming while it stops; each is answered or its connection was refused."""
    with serving(tmp_path, "--releases", root) as server:
        outcomes, stopping = [], threading.Event()

        def keep_asking():
            head = b"POST /v1/advertisers HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            request = head + b"content-length: 2\r\n\r\n{}"
            while True:
                try:
                    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
                        connection.sendall(request)
                        reply = b"".join(iter(lambda: connection.recv(65536), b""))
                except OSError:
                    if stopping.is_set():
                        return
                    outcomes.append("refused too early")
                    return
                outcomes.append("answered" if reply.endswith(b"]}") else f"cut: {reply[:80]!r}")
                if stopping.is_set() and not reply:
                    return

        threads = [threading.Thread(target=keep_asking) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(outcomes) > 40)
        begin = time.monotonic()
        stopping.set()
        assert server.stop() == 0
        assert time.monotonic() - begin < 10
        for thread in threads:
            thread.join()
    assert set(outcomes) == {"answered"}


def test_without_a_release_it_says_so_and_takes_the_first_one(tmp_path):
    root = tmp_path / "releases"
    with serving(tmp_path / "server", "--releases", root, "--clock", "as-of") as server:
        assert server.client.get("/readyz").status_code == 503
        (refused,) = [one for one in log_of(server) if one["event"] == "release_refused"]
        assert refused["level"] == "warning" and "publish one" in refused["reason"]
        answer = server.advertisers("user-7")
        assert (answer["source"], answer["advertisers"]) == ("none", [])
        assert "no_release" in answer["degraded"]
        Publisher(root, EmbeddedStore(root)).publish(lambda suppressed: make_parts(suppressed=suppressed))
        wait_until(lambda: server.client.get("/readyz").status_code == 200)
        assert server.advertisers("user-7")["source"] == "advertisers"
