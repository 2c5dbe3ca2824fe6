"""The circuit breaker on a clock that the test turns."""

import threading

import pytest

from forecart.serving.breaker import Breaker


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker(max_failures=3, reset_s=2.0, clock=clock)


def fail(breaker, times):
    for _ in range(times):
        assert breaker.allows()
        breaker.fail()


def test_it_stays_closed_while_failures_are_few_or_apart(breaker):
    for _ in range(5):
        fail(breaker, 2)
        assert breaker.allows()
        breaker.succeed()
    assert breaker.state == "closed"


def test_it_opens_at_the_last_failure_and_lets_nobody_through(breaker, clock):
    fail(breaker, 3)
    assert breaker.state == "open"
    clock.now += 1.99
    assert not any(breaker.allows() for _ in range(100))


def test_one_probe_passes_and_its_success_closes_it(breaker, clock):
    fail(breaker, 3)
    clock.now += 2.0
    assert breaker.state == "half_open"
    assert [breaker.allows() for _ in range(10)] == [True] + [False] * 9
    breaker.succeed()
    assert breaker.state == "closed" and breaker.allows()
    fail(breaker, 2)
    assert breaker.state == "closed"


def test_a_probe_that_fails_opens_it_again_at_once(breaker, clock):
    fail(breaker, 3)
    clock.now += 2.0
    fail(breaker, 1)
    assert breaker.state == "open" and not breaker.allows()
    clock.now += 2.0
    assert breaker.allows()


def test_a_probe_that_never_reports_is_followed_by_another(breaker, clock):
    fail(breaker, 3)
    clock.now += 2.0
    assert breaker.allows() and not breaker.allows()
    clock.now += 2.0
    assert breaker.allows() and not breaker.allows()


def test_of_many_threads_one_probes(breaker, clock):
    fail(breaker, 3)
    clock.now += 2.0
    passed, ready = [], threading.Barrier(8)

    def ask():
        ready.wait()
        passed.append(breaker.allows())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(passed) == 1
