"""`forecart run`, `train` and `evaluate`: the stages of a configuration, each only where it is missing."""

import typer

import forecart
from forecart.api import open_workflow
from forecart.cli.result_table import compare_all, print_results
from forecart.cli.terminal import (
    ConfigArgument,
    JsonOption,
    OutputOption,
    QuietOption,
    examples,
    make_console,
    print_json,
    told,
)


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog=examples("forecart run forecart.toml", "forecart run nano --output runs/try"))(run)
    app.command(epilog=examples("forecart train forecart.toml"))(train)
    app.command(epilog=examples("forecart evaluate forecart.toml --json"))(evaluate)


def run(
    config: ConfigArgument,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run every stage of a configuration.

    Reads the log, trains, measures, lists candidates for every user and writes the report.

    What is complete is skipped and what was interrupted is continued; a changed setting redoes what
    depends on it and nothing else. The last line of the output is the path of the report.
    """
    with told(quiet=quiet) as reporter:
        finished = forecart.run(config, folder=output, reporter=reporter)
    show_result(finished, as_json=as_json)


def train(
    config: ConfigArgument,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train the models of a configuration and stop there.

    Runs the stages before it where they are missing. Prints the folder of the models.
    """
    with told(quiet=quiet) as reporter:
        workflow = open_workflow(config, folder=output, reporter=reporter)
        workflow.learn()
    folder = workflow.folder / "training"
    print_json({"folder": workflow.folder, "training": folder}) if as_json else typer.echo(str(folder))


def evaluate(
    config: ConfigArgument,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure models and baselines at the test cuts and report.

    Like `run`, but without the candidates of every user.
    """
    with told(quiet=quiet) as reporter:
        workflow = open_workflow(config, folder=output, reporter=reporter)
        workflow.learn()
        workflow.evaluate()
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
