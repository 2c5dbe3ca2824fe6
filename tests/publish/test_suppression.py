"""The suppression list: durable, seen by every process, and without an id in it."""

import multiprocessing
import threading

import pytest

from forecart.errors import DataError
from forecart.publish.suppression import SuppressionList, suppression_key


def test_who_is_on_it_stays_on_it_for_every_reader(tmp_path):
    writer, reader = SuppressionList(tmp_path / "list"), SuppressionList(tmp_path / "list")
    assert "ada" not in reader
    writer.add("ada", "opt_out")
    assert "ada" in reader and "bob" not in reader
    writer.add("bob", "deletion")
    assert "bob" in reader and "ada" in reader
    assert SuppressionList(tmp_path / "list").keys() == {suppression_key("ada"), suppression_key("bob")}


def test_no_id_is_written(tmp_path):
    SuppressionList(tmp_path / "list").add("canary-7", "opt_out")
    assert b"canary" not in (tmp_path / "list").read_bytes()


def test_a_line_that_a_crash_cut_hides_nobody(tmp_path):
    path = tmp_path / "list"
    writer = SuppressionList(path)
    writer.add("ada", "opt_out")
    with path.open("ab") as handle:
        handle.write(suppression_key("cut")[:30].encode())
    reader = SuppressionList(path)
    assert "ada" in reader and "cut" not in reader
    writer.add("bob", "opt_out")
    assert "bob" in reader and "bob" in SuppressionList(path)


def test_a_list_that_is_lost_frees_nobody_while_the_process_lives(tmp_path):
    reader = SuppressionList(tmp_path / "list")
    reader.add("ada", "opt_out")
    assert "ada" in reader
    (tmp_path / "list").unlink()
    assert "ada" in reader


class SlowSet(set):
    """A set that stops in the middle of taking in what was read."""

    def __init__(self):
        super().__init__()
        self.is_updating, self.may_go_on = threading.Event(), threading.Event()

    def update(self, *others):
        self.is_updating.set()
        self.may_go_on.wait(10)
        super().update(*others)


def test_who_asks_while_another_thread_reads_the_list_gets_what_is_on_it(tmp_path):
    reader = SuppressionList(tmp_path / "list")
    reader.add("ada", "opt_out")
    reader._keys = keys = SlowSet()
    first = threading.Thread(target=lambda: "bob" in reader)
    first.start()
    assert keys.is_updating.wait(10)
    found = []
    second = threading.Thread(target=lambda: found.append("ada" in reader))
    second.start()
    second.join(0.3)
    assert found in ([], [True]), "it waits, or knows; it does not answer that nobody is suppressed"
    keys.may_go_on.set()
    first.join()
    second.join()
    assert found == [True]


def add_many(path, name):
    for number in range(50):
        SuppressionList(path).add(f"{name}-{number}", "opt_out")


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=add_many, args=(tmp_path / "list", name)) for name in ("a", "b")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    wanted = {suppression_key(f"{name}-{number}") for name in ("a", "b") for number in range(50)}
    assert SuppressionList(tmp_path / "list").keys() == wanted


def test_an_empty_id_is_refused(tmp_path):
    with pytest.raises(DataError):
        SuppressionList(tmp_path / "list").add("", "opt_out")
