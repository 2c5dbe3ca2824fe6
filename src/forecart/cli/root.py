"""The root command: what `forecart` itself understands, and the commands below it."""

from typing import Annotated

import typer

import forecart
from forecart.cli import (
    bench,
    candidates,
    config,
    demo,
    events,
    init,
    plan,
    release,
    report,
    run,
    serve,
    status,
    tune,
)
from forecart.cli.terminal import ErrorsAsLines, examples

app = typer.Typer(
    cls=ErrorsAsLines,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog=examples(
        "forecart demo                      # a year of a grocer, about ten minutes",
        "forecart demo --config nano        # a small synthetic world, under a minute",
        "forecart init events.csv           # your own log: writes forecart.toml",
        "forecart run forecart.toml         # trains, measures, lists; prints the report's path",
        "forecart candidates show USER --run runs/events",
        "forecart release publish runs/events   # checked, versioned, what an ad server reads",
    ),
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"forecart {forecart.__version__}")
        raise typer.Exit


@app.callback()
def forecart_command(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Ads candidates from behavioural sequences: whom each user converts with next, and with what.

    From a log of what people did on advertisers' sites, forecart trains two models (next advertiser, next
    product), compares them with baselines, and lists candidates for every user.
    """


demo.add_to(app)
init.add_to(app)
run.add_to(app)
bench.add_to(app)
tune.add_to(app)
serve.add_to(app)
status.add_to(app)
plan.add_to(app)
app.add_typer(events.app, name="events")
app.add_typer(candidates.app, name="candidates")
app.add_typer(report.app, name="report")
app.add_typer(release.app, name="release")
app.add_typer(config.app, name="config")
