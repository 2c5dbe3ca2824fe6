"""`forecart run`, `train` and `evaluate`: the stages of a configuration, each only where it is missing.

With a moment, `run` is a day of the daily cycle: new lists on the models there are, and a release of them.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

import forecart
from forecart.api import opened_workflow, require_training
from forecart.cli.release import publish_run, require_ttl_beyond
from forecart.cli.result_table import compare_all, print_results
from forecart.cli.terminal import (
    ConfigArgument,
    EngineOption,
    JsonOption,
    OutputOption,
    QuietOption,
    RayAddressOption,
    WorkersOption,
    WorkOption,
    examples,
    make_console,
    print_json,
    told,
)
from forecart.config import load_config
from forecart.engine.choice import opened_engine
from forecart.engine.contract import Engine
from forecart.errors import ConfigError

_MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(
        epilog=examples(
            "forecart run forecart.toml",
            "forecart run nano --output runs/try",
            "forecart run forecart.toml --workers 8",
            "forecart run forecart.toml --output s3://bucket/runs/shop",
            "forecart run forecart.toml --as-of 2025-06-02 --publish releases   # every night",
        )
    )(run)
    app.command(epilog=examples("forecart train forecart.toml"))(train)
    app.command(epilog=examples("forecart evaluate forecart.toml --json"))(evaluate)


def run(  # noqa: PLR0913  (the options of the command)
    config: ConfigArgument,
    output: OutputOption = None,
    work_dir: WorkOption = None,
    as_of: Annotated[
        datetime | None,
        typer.Option(
            formats=_MOMENTS, metavar="MOMENT", help="A day: lists from what had arrived by then (UTC)."
        ),
    ] = None,
    publish: Annotated[
        Path | None, typer.Option(help="With --as-of: folder of releases to publish the lists in.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="With --publish: URL of a Redis or Valkey server to serve from.")
    ] = None,
    engine: EngineOption = "local",
    workers: WorkersOption = None,
    ray_address: RayAddressOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run every stage of a configuration.

    Reads the log, trains, measures, lists candidates for every user and writes the report.

    What is complete is skipped and what was interrupted is continued; a changed setting redoes what
    depends on it and nothing else. The last line of the output is the path of the report.

    With a URL as --output the run is kept in that object store, and goes on from what is there, on
    whatever machine.

    With --as-of nothing is trained: the log is read up to that moment, lists are made anew for users of
    whom something arrived since the day before, all others are kept for at most `max_carry_days`, and
    with --publish the result is checked and served. Prints the folder of the day, or the release. Exits
    with 2 where anything fails; what was served is then served on.
    """
    engines = partial(opened_engine, engine, num_workers=workers, address=ray_address)
    if as_of is not None:
        moment, flags = as_of.replace(tzinfo=UTC), (as_json, quiet)
        places = output, work_dir
        _run_day(config, places, moment, served=(publish, store), engines=engines, flags=flags)
        return
    if publish is not None:
        raise ConfigError(
            "--publish goes with --as-of; a whole run is published by `forecart release publish RUN`"
        )
    with told(quiet=quiet) as reporter, engines() as opened:
        finished = forecart.run(config, folder=output, work_folder=work_dir, reporter=reporter, engine=opened)
    show_result(finished, as_json=as_json)


def _run_day(
    config: str,
    places: tuple[str | None, Path | None],
    as_of: datetime,
    *,
    served: tuple[Path | None, str | None],
    engines: Callable[[], AbstractContextManager[Engine]],
    flags: tuple[bool, bool],
) -> None:
    (output, work_dir), (publish, store), (as_json, quiet) = places, served, flags
    require_training()
    from forecart.daily import run_day

    read = load_config(config)
    run = output or Path("runs") / read.name
    if publish is not None:
        require_ttl_beyond(read.candidates.max_carry_days)
    with told(quiet=quiet) as reporter, engines() as engine:
        day = run_day(read, run, as_of, reporter=reporter, engine=engine, work_folder=work_dir)
        found: dict[str, Any] = {"folder": day.folder, "as_of": as_of.isoformat(), **day.facts}
        if publish is not None:
            pointer = publish_run(day.run_folder, publish, store, day=day.folder, reporter=reporter)
            found["release"] = asdict(pointer)
    if as_json:
        print_json(found)
        return
    for plural, facts in day.facts.items():
        shown = f"{facts['num_encoded']:,} of {facts['num_users']:,} users anew in {facts['seconds']:.1f} s"
        typer.echo(f"{plural}: {shown}")
    typer.echo(str(found["release"]["release_id"] if publish is not None else day.folder))


def train(
    config: ConfigArgument,
    output: OutputOption = None,
    work_dir: WorkOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train the models of a configuration and stop there.

    Runs the stages before it where they are missing. Prints the folder of the models.
    """
    with (
        told(quiet=quiet) as reporter,
        opened_workflow(config, folder=output, work_folder=work_dir, reporter=reporter) as workflow,
    ):
        workflow.learn()
    folder = workflow.folder / "training"
    print_json({"folder": workflow.folder, "training": folder}) if as_json else typer.echo(str(folder))


def evaluate(
    config: ConfigArgument,
    output: OutputOption = None,
    work_dir: WorkOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure models and baselines at the test cuts and report.

    Like `run`, but without the candidates of every user.
    """
    with (
        told(quiet=quiet) as reporter,
        opened_workflow(config, folder=output, work_folder=work_dir, reporter=reporter) as workflow,
    ):
        workflow.learn()
        workflow.evaluate()
        workflow.calibrate()
        workflow.report()
    show_result(forecart.open_run(workflow.folder), as_json=as_json)


def show_result(finished: forecart.Run, *, as_json: bool) -> None:
    """Prints how the model stands against the baselines, and last the path of the report.

    A run without test cuts has nothing measured: then the last line is its folder.
    """
    if not finished.config.split.test_cuts:
        print_json({"folder": finished.folder}) if as_json else typer.echo(str(finished.folder))
    elif as_json:
        found = {"folder": finished.folder, "report": finished.report_path}
        print_json({**found, "comparisons": compare_all(finished.report)})
    else:
        print_results(make_console(), finished.report)
        typer.echo(str(finished.report_path))
