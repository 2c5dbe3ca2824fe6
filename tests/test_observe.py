"""What reporters tell, on a terminal and in a file."""

import io

import pytest
from rich.console import Console

from forecart.observe import ConsoleReporter, Reporter, SilentReporter


def make_reporter(*, is_terminal: bool = False) -> tuple[ConsoleReporter, io.StringIO]:
    file = io.StringIO()
    return ConsoleReporter(Console(file=file, force_terminal=is_terminal, width=60)), file


def lines_of(file: io.StringIO) -> list[str]:
    return [line.strip() for line in file.getvalue().splitlines()]


def work(reporter: Reporter) -> None:
    reporter.stage("events")
    reporter.progress("reading", 1, None)
    reporter.progress("reading", 9, None, "9 rows")
    reporter.say("epoch 1: loss [bold]2[/bold]")
    reporter.progress("sorting", 1, 2)
    reporter.stage("training", is_done=True)


def test_a_file_gets_a_line_for_each_finished_piece_of_work():
    reporter, file = make_reporter()
    with reporter:
        work(reporter)
    first, *rest, last = lines_of(file)
    assert first.endswith("s] events") and last.endswith("s] training: complete, skipped")
    assert rest == ["epoch 1: loss [bold]2[/bold]", "reading: done 9 rows", "sorting: done"]


def test_a_file_hears_of_long_work_now_and_then(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("forecart.observe.time.perf_counter", lambda: now[0])
    reporter, file = make_reporter()
    with reporter:
        for done in range(8):
            now[0] = 10.0 * (done + 1)
            reporter.progress("training", done, 8, "loss 2")
    assert lines_of(file) == [
        "training: 3 of 8, about 50 s left loss 2",
        "training: 6 of 8, about 20 s left loss 2",
        "training: done loss 2",
    ]


def test_long_lines_are_not_broken():
    reporter, file = make_reporter()
    reporter.say("word " * 40)
    assert len(lines_of(file)) == 1


def test_work_that_failed_is_not_told_as_done():
    reporter, file = make_reporter()
    with pytest.raises(RuntimeError), reporter:
        reporter.progress("training", 1, 9, "loss 3")
        raise RuntimeError
    assert lines_of(file) == ["training: not finished loss 3"]


def test_the_last_piece_ends_with_the_reporter():
    reporter, file = make_reporter()
    with reporter:
        reporter.progress("training", 9, 9)
    assert lines_of(file) == ["training: done"]


def test_a_terminal_gets_a_bar_with_label_and_note_as_they_are():
    reporter, file = make_reporter(is_terminal=True)
    with reporter:
        reporter.progress("[/x] reading", 1, 2, "[red]9[/red]")
        reporter.say("a remark")
    told = file.getvalue()
    assert "[/x] reading: done [red]9[/red]" in told and "a remark" in told
    assert "\x1b[?25h" in told  # the cursor is shown again


def test_a_bar_is_stopped_when_work_fails():
    reporter, file = make_reporter(is_terminal=True)
    with pytest.raises(RuntimeError), reporter:
        reporter.progress("training", 1, 9)
        raise RuntimeError
    assert "\x1b[?25h" in file.getvalue() and "not finished" in file.getvalue()


def test_silence(capsys):
    work(SilentReporter())
    assert capsys.readouterr() == ("", "")
