"""`forecart report`: the report of a finished run."""

import typer

import forecart
from forecart.cli.terminal import DEFAULT_RUN, JsonOption, RunOption, examples, print_json

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def report() -> None:
    """The report of a run."""


@app.command(epilog=examples("forecart report path", 'open "$(forecart report path --run runs/events)"'))
def path(run: RunOption = DEFAULT_RUN, as_json: JsonOption = False) -> None:
    """Print the path of the HTML report."""
    found = forecart.open_run(run)
    if as_json:
        print_json({"report": found.report_path, "figures": found.folder / "evaluation" / "report.json"})
    else:
        typer.echo(str(found.report_path))
