"""`forecart config`: what a configuration says, with everything it leaves to the defaults."""

import typer

import forecart
from forecart.cli.config_text import render_config
from forecart.cli.terminal import ConfigArgument, JsonOption, examples, print_json

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def config() -> None:
    """Configurations."""


@app.command(
    epilog=examples(
        "forecart config show default",
        "forecart config show forecart.toml --json",
        "forecart config show nano > mine.toml     # a file to start from",
    )
)
def show(config: ConfigArgument, as_json: JsonOption = False) -> None:
    """Print a configuration in full, defaults included, with what each key means.

    What is printed is itself a configuration that means the same.
    """
    resolved = forecart.load_config(config)
    if as_json:
        print_json(resolved.model_dump(mode="json"))
    else:
        typer.echo(render_config(resolved), nl=False)
