"""`forecart tune`: better settings for one's own log, chosen on validation."""

from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table

import forecart
from forecart import artifacts
from forecart.api import opened_workflow, require_tuning
from forecart.cli.config_text import comment, render_config, to_toml
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
from forecart.config import RunConfig
from forecart.errors import ConfigError
from forecart.sequences.split import SECTION

_LEVELS = {section: level for level, section in SECTION.items()}


class Target(StrEnum):
    """Whose settings."""

    ADVERTISER = "next_advertiser"
    PRODUCT = "next_product"


class Metric(StrEnum):
    """What is best."""

    RECALL_10 = "recall_at_10"
    RECALL_20 = "recall_at_20"
    RECALL_100 = "recall_at_100"
    NOVEL_100 = "novel_recall_at_100"


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog=examples(
            "forecart tune forecart.toml --trials 30",
            "forecart tune forecart.toml --target next_product --metric recall_at_100",
            "forecart run runs/shop/tuned.toml --output runs/shop",
        )
    )(tune)


def tune(  # noqa: PLR0913  (the options of the command)
    config: ConfigArgument,
    target: Annotated[Target, typer.Option(help="Whose settings.")] = Target.ADVERTISER,
    trials: Annotated[int, typer.Option(min=1, help="Finished trials in all.")] = 20,
    metric: Annotated[Metric, typer.Option(help="What is best, on validation.")] = Metric.RECALL_10,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Search better settings of a model, on the label window before `as_of`.

    The configuration as it stands is the first trial. Test cuts are never looked at. The best settings are
    written to tuned.toml in the run's folder, with how many were tried; the last line is its path. The same
    command again goes on where it stopped; with more --trials it adds to what is there.
    """
    require_tuning()
    from forecart.tune import Tried, Tuning

    started = forecart.load_config(config)
    if not started.target(_LEVELS[target]).is_enabled:
        raise ConfigError(f"{target} must be enabled to be tuned, the configuration turns it off")
    validated = started.model_copy(
        update={"split": started.split.model_copy(update={"validate_before": True})}
    )
    with (
        told(quiet=quiet) as reporter,
        opened_workflow(validated, folder=output, reporter=reporter) as workflow,
    ):
        tuning = Tuning(workflow, _LEVELS[target], metric)

        def say(tried: Tried) -> None:
            result = tried.error or f"{metric} {tried.measure:.4f}"
            reporter.say(f"trial {tried.number}: {result}, {_describe(tried.settings)}")

        try:
            finished = tuning.run(trials, on_trial=say)
        finally:
            # The stages note the configuration they ran with; the run is still the one that was given.
            artifacts.write_json(workflow.folder / artifacts.CONFIG, started.model_dump(mode="json"))
    tuned = with_full_paths(tuning.tuned_config(started))
    path = workflow.folder / "tuned.toml"
    head = comment(
        f"Best of {len(finished)} trials by forecart tune: {target}, {metric} {tuning.best.measure:.4f} on "
        f"validation, {finished[0].measure:.4f} before."
    )
    artifacts.write_text(path, "\n".join([*head, render_config(tuned)]))
    if as_json:
        shown = [{"trial": one.number, "measure": one.measure, "settings": one.settings} for one in finished]
        print_json({"config": path, "metric": metric, "best": tuning.best.number, "trials": shown})
        return
    table = Table(title=f"{len(finished)} trials, the best first")
    for heading in ("trial", metric, "settings"):
        table.add_column(heading)
    for one in sorted(finished, key=lambda one: -one.measure)[:10]:
        table.add_row(str(one.number), f"{one.measure:.4f}", _describe(one.settings))
    make_console().print(table)
    typer.echo(str(path))


def with_full_paths(config: RunConfig) -> RunConfig:
    """Returns a configuration that can be written to any folder: relative paths are those of its file."""
    source = config.source
    paths: dict[str, object] = {"events": [path.resolve() for path in source.events]}
    for name in ("catalogue", "data_folder"):
        if path := getattr(source, name):
            paths[name] = path.resolve()
    return config.model_copy(update={"source": source.model_copy(update=paths)})


def _describe(settings: dict[str, Any]) -> str:
    changes = (
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {to_toml(value)}"
        for name, value in settings.items()
    )
    return ", ".join(changes) or "as it stands"
