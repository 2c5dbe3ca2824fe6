"""`forecart init`: from a stranger's log to a configuration."""

from pathlib import Path
from typing import Annotated

import typer

from forecart.cli.proposal import propose
from forecart.cli.terminal import JsonOption, QuietOption, examples, print_json
from forecart.errors import ConfigError
from forecart.events.guess import guess_config
from forecart.object_store import expand, to_place


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog=examples(
            "forecart init events.csv",
            "forecart init log.parquet products.csv --output shop.toml",
            "forecart init events.csv && forecart run forecart.toml",
            "forecart init 's3://bucket/log/*.parquet'",
        )
    )(init)


def init(
    events: Annotated[
        str,
        typer.Argument(metavar="EVENTS", help="The log: Parquet, CSV(.gz) or JSONL(.gz); a path or a URL."),
    ],
    catalogue: Annotated[
        str | None,
        typer.Argument(metavar="CATALOGUE", help="The product feed, in one of the same formats."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The configuration to write.")] = Path(
        "forecart.toml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a configuration for a log, saying what was guessed.

    Guesses which column is the user, the time, the event type, the advertiser and the product, what counts
    as a conversion, and where to cut past from future. Read the file before you trust it: every guess stands
    in it and can be changed.
    """
    if output.exists() and not force:
        raise ConfigError(f"{output} is there already: name another file with --output, or add --force")
    log, feed = to_place(events), None if catalogue is None else to_place(catalogue)
    guess = guess_config(expand([log])[0], feed)
    config, text = propose(guess, log, feed, output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    if not quiet:
        for sentence in guess.sentences:
            typer.echo(f"guessed: {sentence}", err=True)
        typer.echo(f"next: forecart run {output}", err=True)
    if as_json:
        print_json({"config": output, "guessed": guess.sentences, "values": config.model_dump(mode="json")})
    else:
        typer.echo(str(output))
