"""The result of a run in a few lines: the model beside every baseline, by target and pool.

Takes `report.json`; gives rows of plain values and a table. Ahead, level and behind are what the 95 %
interval of the paired difference says.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from forecart.evaluation.report.verdicts import Difference, Verdict

_TARGETS: Final = {"next_advertiser": "Next advertiser", "next_product": "Next product"}
_POOLS: Final = {"all": "all candidates", "novel": "only those new to the user"}
_METRICS: Final = {"recall_at_10": "Recall@10", "recall_at_100": "Recall@100"}
_STYLES: Final = {Verdict.AHEAD: "green", Verdict.LEVEL: "yellow", Verdict.BEHIND: "red"}


def compare_all(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a row per target, pool, metric and baseline, with the verdict of the difference."""
    return [row for target, pool, table in _tables(report) for row in _compare(target, pool, table)]


def _tables(report: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for target in _TARGETS:
        for pool in _POOLS:
            table = report.get(target, {}).get(pool, {})
            if table.get("num_rows"):
                yield target, pool, table


def _compare(target: str, pool: str, table: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "target": target,
            "pool": pool,
            "metric": metric,
            "model": table["model"][metric],
            "baseline": name,
            "baseline_value": table["baselines"][name][metric],
            "difference": found["mean"],
            "ci_low": found["ci_low"],
            "ci_high": found["ci_high"],
            "verdict": Difference(found["mean"], found["ci_low"], found["ci_high"]).verdict.value,
        }
        for metric in _METRICS
        for name, found in table["difference"].get(metric, {}).items()
    ]


def print_results(console: Console, report: Mapping[str, Any]) -> None:
    """Prints a table per target and pool, the strongest baseline first."""
    for target, pool, table in _tables(report):
        console.print(_build_table(target, pool, table), end="\n\n")


def _build_table(target: str, pool: str, table: Mapping[str, Any]) -> Table:
    size = f"{table['num_rows']:,} lists of {table['num_users']:,} users"
    title = f"{_TARGETS[target]}, {_POOLS[pool]}: {size}"
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False)
    shown.add_column("")
    for heading in _METRICS.values():
        shown.add_column(heading, justify="right")
        shown.add_column("model minus it, 95 %")
        shown.add_column("model is")
    shown.add_row("model", *_model_cells(table), style="bold")
    first = next(iter(_METRICS))
    by_value = sorted(table["baselines"], key=lambda name: -table["baselines"][name][first])
    for name in by_value:
        shown.add_row(name, *_baseline_cells(table, name))
    return shown


def _model_cells(table: Mapping[str, Any]) -> list[str]:
    return [cell for metric in _METRICS for cell in (_plain(table["model"][metric]), "", "")]


def _baseline_cells(table: Mapping[str, Any], name: str) -> list[str]:
    cells = []
    for metric in _METRICS:
        found = table["difference"][metric][name]
        difference = Difference(found["mean"], found["ci_low"], found["ci_high"])
        style = _STYLES[difference.verdict]
        cells += [
            _plain(table["baselines"][name][metric]),
            f"{_sign(difference.mean)} ({_sign(difference.ci_low)}, {_sign(difference.ci_high)})",
            f"[{style}]{difference.verdict.value}[/]",
        ]
    return cells


def _plain(share: float) -> str:
    """A share with four digits, without the 0 that says nothing."""
    return f"{share:.4f}".removeprefix("0")


def _sign(difference: float) -> str:
    return f"{'-' if difference < 0 else '+'}{_plain(abs(difference))}"
