"""`forecart events`: whether a log can be read, and what was dropped and why."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import polars as pl
import typer

from forecart import artifacts, columns
from forecart.api import opened_workflow
from forecart.cli.terminal import (
    ConfigArgument,
    JsonOption,
    OutputOption,
    QuietOption,
    WorkOption,
    examples,
    print_json,
    told,
)
from forecart.errors import DataError
from forecart.events.ingest import QUARANTINE_FILE, REFUSED_FILE
from forecart.events.quarantine import count_reasons

if TYPE_CHECKING:
    from forecart.workflow import Workflow

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

TOO_MANY_REJECTED: Final = 1
_RAW_CHARS: Final = 200
_FACTS: Final = ("counts", "catalogue", "num_users", "first_occurred_at", "last_occurred_at")


@app.callback()
def events() -> None:
    """The log of a configuration."""


@app.command(
    epilog=examples(
        "forecart events validate forecart.toml",
        "forecart events validate forecart.toml --json | jq .counts.rejected",
    )
)
def validate(
    config: ConfigArgument,
    output: OutputOption = None,
    work_dir: WorkOption = None,
    sample: Annotated[int, typer.Option(min=0, help="Rejected rows to show.")] = 5,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read a log and tell what was accepted, dropped and rejected, with reasons and examples.

    Nothing is trained; a later `run` need not read the log again. Exits with 1 where more rows were rejected
    than the configuration allows (`events.max_rejected_share`).
    """
    with (
        told(quiet=quiet) as reporter,
        opened_workflow(config, folder=output, work_folder=work_dir, reporter=reporter) as workflow,
    ):
        facts = _read_events(workflow)
    facts["sample"] = _read_sample(Path(facts["quarantine"]), sample)
    print_json(facts) if as_json else _print_facts(facts)
    if not facts["is_accepted"]:
        typer.echo(f"error: {facts['error']}", err=True)
        raise typer.Exit(TOO_MANY_REJECTED)


def _read_events(workflow: "Workflow") -> dict[str, Any]:
    """Returns the facts of the event store, or of a log that was refused for its rejected rows."""
    folder = workflow.folder / "events"
    quarantine = folder / QUARANTINE_FILE
    refused = folder / REFUSED_FILE if (folder / artifacts.MANIFEST).exists() else quarantine
    # Of an earlier attempt: it must not pass for the rows of this one.
    (folder / REFUSED_FILE).unlink(missing_ok=True)
    if refused == quarantine:
        quarantine.unlink(missing_ok=True)
    try:
        facts = workflow.events()
    except DataError as error:
        if not refused.exists():
            raise
        reasons = count_reasons(pl.read_parquet(refused))
        return {
            "is_accepted": False,
            "error": str(error),
            "rejected": reasons,
            "quarantine": str(refused),
        }
    shown = {name: facts[name] for name in _FACTS}
    return {"is_accepted": True, "error": None, **shown, "quarantine": str(quarantine)}


def _read_sample(quarantine: Path, num_rows: int) -> list[dict[str, Any]]:
    rejected = pl.scan_parquet(quarantine).head(num_rows)
    return rejected.with_columns(pl.col(columns.RAW).str.slice(0, _RAW_CHARS)).collect().to_dicts()


def _print_facts(facts: dict[str, Any]) -> None:
    if facts["is_accepted"]:
        _print_counts("log", facts["counts"])
        if facts["catalogue"]["rows_read"]:
            _print_counts("catalogue", facts["catalogue"])
        typer.echo(f"users: {facts['num_users']:,}")
        typer.echo(f"first event: {facts['first_occurred_at']}")
        typer.echo(f"last event:  {facts['last_occurred_at']}")
    else:
        _print_reasons("rejected", facts["rejected"])
    for row in facts["sample"]:
        typer.echo(
            f"{row[columns.SOURCE]} row {row[columns.OFFSET]}: {row[columns.REASON]}: {row[columns.RAW]!r}"
        )
    typer.echo(f"quarantine: {facts['quarantine']}")


def _print_counts(title: str, counts: dict[str, Any]) -> None:
    typer.echo(
        f"{title}: {counts['rows_read']:,} rows read, {counts['accepted']:,} accepted, "
        f"{counts['duplicates']:,} duplicates"
    )
    _print_reasons("filtered", counts["filtered"])
    _print_reasons("rejected", counts["rejected"])


def _print_reasons(title: str, reasons: dict[str, int]) -> None:
    for reason, count in sorted(reasons.items(), key=lambda pair: -pair[1]):
        typer.echo(f"  {title}: {count:,} {reason}")
