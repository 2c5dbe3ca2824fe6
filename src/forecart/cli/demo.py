"""`forecart demo`: the whole job on the data set of the README."""

from pathlib import Path
from typing import Annotated, Any

import typer

import forecart
from forecart.ads.journey import write_journey_inventory
from forecart.cli.release import INVENTORY, publish_run
from forecart.cli.run import show_result
from forecart.cli.terminal import JsonOption, OutputOption, QuietOption, examples, told
from forecart.sequences.split import SECTION

RELEASES = "releases"


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog=examples(
            "forecart demo",
            "forecart demo --config nano            # a small synthetic world, under a minute",
            "forecart demo --seeds 3                # with the spread from seed to seed",
            'open "$(forecart demo | tail -n 1)"    # the last line is the path of the report',
        )
    )(demo)


def demo(
    output: OutputOption = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of every random choice.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Models trained per target, one a seed.")] = None,
    config: Annotated[str, typer.Option(help="Another configuration, such as nano.")] = "demo",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Do the whole job on Complete Journey, a year of a grocer.

    Trains, compares with baselines, lists candidates, reports, and makes a release to serve. Prints how the
    models stand against the baselines, and last the path of the report. Running it again does only what is
    missing.
    """
    chosen = _override(forecart.load_config(config), seed=seed, seeds=seeds)
    folder = output if output is not None else Path("runs") / chosen.name
    with told(quiet=quiet) as reporter:
        finished = forecart.run(chosen, folder=folder, reporter=reporter)
        releases = finished.folder / RELEASES
        publish_run(finished.folder, releases, None, reporter=reporter)
        if chosen.source.adapter == "complete_journey":
            write_journey_inventory(releases / INVENTORY, data=chosen.source.data_folder)
        reporter.say(f"to serve it: forecart serve --releases {releases} --clock as-of")
    show_result(finished, as_json=as_json)


def _override(config: forecart.RunConfig, *, seed: int | None, seeds: int | None) -> forecart.RunConfig:
    changes: dict[str, Any] = {} if seed is None else {"seed": seed}
    if seeds is not None:
        for level in config.levels:
            target = config.target(level).model_copy(update={"num_seeds": seeds})
            changes[SECTION[level]] = target
    return config.model_copy(update=changes)
