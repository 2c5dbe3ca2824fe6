"""The short table: verdicts follow the interval and nothing else; names from outside are no markup."""

import io

import pytest
from rich.console import Console

from forecart.cli.candidates import _plain
from forecart.cli.result_table import compare_all, print_results


def table(difference):
    metrics = ("recall_at_10", "recall_at_100")
    return {
        "num_rows": 1200,
        "num_users": 400,
        "model": dict.fromkeys(metrics, 0.25),
        "baselines": {"weak": dict.fromkeys(metrics, 0.1), "strong": dict.fromkeys(metrics, 0.2)},
        "difference": {metric: {"weak": difference, "strong": difference} for metric in metrics},
    }


def shown(report):
    written = io.StringIO()
    print_results(Console(file=written, width=120), report)
    return written.getvalue()


@pytest.mark.parametrize(
    ("ci_low", "ci_high", "verdict"),
    [(0.01, 0.02, "ahead"), (-0.01, 0.02, "level"), (-0.02, -0.01, "behind"), (0.0, 0.02, "level")],
)
def test_the_verdict_is_what_the_interval_says(ci_low, ci_high, verdict):
    report = {"next_product": {"novel": table({"mean": 0.0123, "ci_low": ci_low, "ci_high": ci_high})}}
    assert {row["verdict"] for row in compare_all(report)} == {verdict}
    assert len(compare_all(report)) == 4
    text = shown(report)
    assert text.count(verdict) == 4 and "+.0123" in text and ".2500" in text
    assert "Next product, only those new to the user: 1,200 lists of 400 users" in text


def test_the_strongest_baseline_comes_first():
    text = shown({"next_advertiser": {"all": table({"mean": 0.0, "ci_low": -1.0, "ci_high": 1.0})}})
    assert text.index("strong") < text.index("weak")


def test_a_pool_without_rows_is_left_out():
    empty = {"num_rows": 0, "model": {}, "baselines": {}, "difference": {}}
    report = {"next_advertiser": {"all": table({"mean": 0, "ci_low": 0, "ci_high": 0}), "novel": empty}}
    assert "only those new" not in shown(report) and len(compare_all(report)) == 4


def test_ids_are_shown_as_they_are_and_steer_no_terminal():
    written = io.StringIO()
    Console(file=written, width=80).print(_plain("[red]x[/]\\[b]\x1b[2J"))
    assert written.getvalue().rstrip() == "[red]x[/]\\[b]?[2J"
