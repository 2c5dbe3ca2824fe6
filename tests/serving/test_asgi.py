"""Limits of the HTTP layer, with handlers that wait for the test: overload, long bodies, unknown errors."""

import asyncio
import json
import threading

import pytest

from forecart.serving.asgi import Bounds, HttpApp, Reply, Route


class Caller:
    """An application whose one handler waits until it is released."""

    def __init__(self):
        self.release = asyncio.Event()
        self.complaints, self.observed = [], []
        self.app = HttpApp(
            [Route("POST", "/wait", self.wait), Route("POST", "/fail", self.fail)],
            bounds=Bounds(max_in_flight=4, max_body_bytes=1024),
            lifespan=(lambda: None, lambda: None),
            observe=lambda path, status: self.observed.append((path, status)),
            complain=self.complaints.append,
            draining=threading.Event(),
        )

    async def wait(self, incoming):
        await self.release.wait()
        return Reply(incoming.body)

    async def fail(self, incoming):
        raise KeyError("user-7")

    async def post(self, path="/wait", messages=None):
        """Returns status, headers and body."""
        pending = iter(messages or [{"type": "http.request", "body": b"{}"}])
        sent = []

        async def receive():
            return next(pending)

        async def send(message):
            sent.append(message)

        await self.app({"type": "http", "path": path, "method": "POST", "headers": []}, receive, send)
        return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def test_what_is_too_much_at_once_is_told_to_come_again_at_once():
    async def run():
        caller = Caller()
        accepted = [asyncio.create_task(caller.post()) for _ in range(4)]
        await asyncio.sleep(0)
        for _ in range(50):
            status, headers, body = await caller.post()
            assert status == 503 and headers[b"retry-after"] == b"1" and json.loads(body)["error"]
        caller.release.set()
        assert [status for status, _, _ in await asyncio.gather(*accepted)] == [200] * 4
        assert (await caller.post())[0] == 200 and caller.app.num_in_flight == 0
        assert caller.observed.count(("/wait", 503)) == 50

    asyncio.run(run())


def test_an_error_nobody_expected_is_500_and_tells_the_caller_nothing():
    async def run():
        caller = Caller()
        status, _, body = await caller.post("/fail")
        assert status == 500 and b"user-7" not in body
        assert [type(one) for one in caller.complaints] == [KeyError]
        assert caller.app.num_in_flight == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([{"type": "http.request", "body": b"a" * 1024}], 200),
        ([{"type": "http.request", "body": b"a" * 1025}], 413),
        (
            [{"type": "http.request", "body": b"a" * 600, "more_body": True}] * 2
            + [{"type": "http.request"}],
            413,
        ),
        (
            [
                {"type": "http.request", "body": b"ab", "more_body": True},
                {"type": "http.request", "body": b"c"},
            ],
            200,
        ),
        ([{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"}], 400),
        ([{"type": "http.request", "body": b"a" * (1 << 20), "more_body": True}] * 100, 413),
    ],
)
def test_bodies_come_in_pieces_and_have_a_limit(messages, status):
    async def run():
        caller = Caller()
        caller.release.set()
        found, _, body = await caller.post(messages=messages)
        assert found == status
        if status == 200:
            assert body == b"".join(message["body"] for message in messages)

    asyncio.run(run())
