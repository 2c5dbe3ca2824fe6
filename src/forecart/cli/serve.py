"""`forecart serve`: the candidates of what is published, over HTTP."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from forecart.cli.release import DEFAULT_ROOT, INVENTORY, RootOption, StoreOption
from forecart.cli.terminal import examples


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog=examples(
            "forecart serve",
            "forecart serve --inventory ads --clock as-of     # a log that is not of today",
            "forecart serve --store redis://localhost:6379/0 --workers 4 --pin",
        )
    )(serve)


def serve(  # noqa: PLR0913  (the options of the command)
    releases: RootOption = DEFAULT_ROOT,
    store: StoreOption = None,
    inventory: Annotated[
        Path | None,
        typer.Option(
            help="Folder of campaigns, ad groups and ads.  [default: `inventory` beside the releases]"
        ),
    ] = None,
    outcomes: Annotated[
        Path | None, typer.Option(help="Folder for the log of what was answered.  [default: none]")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8080,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes.")] = 1,
    pin: Annotated[
        bool,
        typer.Option(
            "--pin",
            help="Keep each process on a core of its own: more requests, where no other program needs it.",
        ),
    ] = False,
    clock: Annotated[
        Literal["now", "as-of"], typer.Option(help="Whether time begins now or at the release's as_of.")
    ] = "now",
    settings: Annotated[Path | None, typer.Option(help="TOML file of budgets, limits and tokens.")] = None,
) -> None:
    """Answer ad requests over HTTP.

    Follows what is published: a new release is opened beside the old one and then switched to, with no
    request dropped. SIGTERM stops it: what has begun is answered first.
    """
    from forecart.ads.inventory import Inventory
    from forecart.sequences.vocabulary import Vocabulary
    from forecart.serving.launch import Launch  # other commands do without the serving install
    from forecart.serving.server import Listen
    from forecart.serving.server import serve as listen
    from forecart.serving.settings import ServingSettings, read_settings

    limits = read_settings(settings) if settings is not None else ServingSettings()
    inventory = _find_inventory(inventory, releases)
    if inventory is not None:
        nobody = Vocabulary.build([])
        # A mistake is told before anything starts.
        Inventory.read(inventory, advertisers=nobody, items=nobody)
    launch = Launch(releases.resolve(), store, inventory, outcomes, clock, limits)
    listen(launch, Listen(host, port, workers, pin))


def _find_inventory(asked: Path | None, releases: Path) -> Path | None:
    """Returns the folder of the inventory: the one that was asked for, or the one beside the releases."""
    beside = releases / INVENTORY
    return asked or (beside if beside.is_dir() else None)
