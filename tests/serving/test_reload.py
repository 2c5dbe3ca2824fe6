"""L6: releases are published and rolled back under load; nothing fails and no answer mixes two releases."""

import asyncio
import itertools
import json
import random
import threading

from tests.publish.small_release import advertisers_of, make_parts
from tests.serving.server_process import ALLOWED, ids_of, serving

from forecart.publish.embedded import EmbeddedStore
from forecart.publish.publisher import Publisher
from forecart.sequences.vocabulary import FIRST_INDEX
from forecart.serving.load import Target, build_request, drive_open

NUM_USERS, NUM_SWITCHES = 40, 5


def test_every_answer_is_of_one_release_and_none_fails(tmp_path):
    root = tmp_path / "releases"
    publisher = Publisher(root, EmbeddedStore(root), keep=3)
    generation_of = {}

    def publish(generation):
        pointer = publisher.publish(lambda suppressed: make_parts(generation, suppressed=suppressed))
        generation_of[pointer.release_id] = generation

    def expected(number, generation):
        return [f"advertiser-{index - FIRST_INDEX}" for index in advertisers_of(number, generation)]

    answers, failures = [], []

    def check(status, body):
        answer = json.loads(body)
        if status != 200 or answer["source"] != "advertisers":
            failures.append((status, answer))
        answers.append(answer)
        return None

    def switch():
        for generation in range(1, NUM_SWITCHES + 1):
            publish(generation)
        publisher.roll_back()

    publish(0)
    with serving(
        tmp_path / "server", "--releases", root, "--clock", "as-of", settings="poll_s = 0.1\n"
    ) as server:
        generator = random.Random(0)
        numbers = (generator.randrange(NUM_USERS) for _ in itertools.count())
        bodies = (
            {"user_id": f"user-{number}", "consent": ALLOWED, "limit": 6, "request_id": str(number)}
            for number in numbers
        )
        requests = (build_request("x", "/v1/advertisers", json.dumps(body).encode()) for body in bodies)
        thread = threading.Thread(target=switch)
        thread.start()
        target = Target("127.0.0.1", server.port, requests, check)
        while thread.is_alive():
            report = asyncio.run(drive_open(target, rate=100, duration_s=1))
            assert report.errors == {} and set(report.latency_ms) == {200}
        thread.join()
        asyncio.run(drive_open(target, rate=100, duration_s=1))
    assert failures == []
    seen = set()
    for answer in answers:
        generation = generation_of[answer["release"]]
        own = expected(int(answer["request_id"]), generation)
        listed = ids_of(part for part in answer["advertisers"] if part["source"] == "advertisers")
        assert listed == own, answer
        seen.add(generation)
    assert {0, NUM_SWITCHES - 1} <= seen and len(seen) >= 4
    assert generation_of[answers[-1]["release"]] == NUM_SWITCHES - 1
