"""What every engine is held to; `folder` is new for each."""

import os

import pytest
from tests.engine import tasks

from forecart.engine.contract import MAX_RETRIES, Work, in_order
from forecart.errors import DataError, EngineError


def work(folder, do):
    return Work("trying", tasks.Opening(folder), do)


def check_every_task_is_done_once_and_told(engine, folder):
    told = []
    found = list(engine.run(work(folder, tasks.square), range(7), report=lambda *counts: told.append(counts)))
    assert sorted((done.number, done.value) for done in found) == [(number, number**2) for number in range(7)]
    assert told == [(number, 7) for number in range(1, 8)]


def check_results_come_in_order_where_that_is_asked_for(engine, folder):
    values = in_order(engine.run(work(folder, tasks.square), [5, 3, 4, 1, 0, 2]))
    assert list(values) == [25, 9, 16, 1, 0, 4]


def check_nothing_is_opened_for_no_task(engine, folder):
    assert list(engine.run(work(folder, tasks.square), [])) == []
    assert not tasks.read_notes(folder / "opened")


def check_each_worker_opens_once_and_says_what_it_took(engine, folder):
    found = list(engine.run(work(folder, tasks.square), range(6)))
    opened = tasks.read_notes(folder / "opened")
    assert 1 <= len(set(opened)) == len(opened) <= engine.num_workers
    assert {done.worker.split("/")[1] for done in found} <= set(opened)
    assert all(done.core_seconds >= 0 and done.peak_bytes > 1 << 20 for done in found)


def check_the_error_of_a_task_is_its_own_and_named(engine, folder):
    with pytest.raises(DataError, match="a task is even, 1 arrived") as raised:
        list(engine.run(work(folder, tasks.refuse_odd), [0, 2, 1, 4]))
    assert raised.value.__notes__ == ["while trying: 1"]


def check_a_task_whose_worker_died_is_done_by_another(engine, folder):
    found = engine.run(work(folder, tasks.die_on_three), range(6))
    assert sorted(done.value for done in found) == [-5, -4, -3, -2, -1, 0]
    assert tasks.read_notes(folder / "attempts").count("3") == 2


def check_a_task_that_kills_its_workers_is_given_up(engine, folder):
    with pytest.raises(EngineError, match=r"4 died while trying, each with 3: .* fewer workers"):
        list(engine.run(work(folder, tasks.always_die_on_three), range(4)))
    assert tasks.read_notes(folder / "attempts").count("3") == MAX_RETRIES + 1


def check_workers_compute_with_one_thread(engine, folder):
    found = list(engine.run(work(folder, tasks.count_threads), range(2)))
    assert [done.value for done in found] == [(1, 1), (1, 1)]
    assert f"/{os.getpid()}" not in "".join(done.worker for done in found)


IN_ANY_PROCESS = [
    check_every_task_is_done_once_and_told,
    check_results_come_in_order_where_that_is_asked_for,
    check_nothing_is_opened_for_no_task,
    check_each_worker_opens_once_and_says_what_it_took,
    check_the_error_of_a_task_is_its_own_and_named,
]
IN_WORKERS = [
    check_a_task_whose_worker_died_is_done_by_another,
    check_a_task_that_kills_its_workers_is_given_up,
    check_workers_compute_with_one_thread,
]
