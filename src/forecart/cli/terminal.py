"""What every command does alike: options, results on standard output, a mistake as one line and exit 2."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from typer.core import TyperGroup

from forecart.engine.choice import EngineName
from forecart.errors import ForecartError
from forecart.observe import ConsoleReporter, Reporter, SilentReporter

MISTAKE: Final = 2
INTERRUPTED: Final = 130
_PIPE_COLUMNS: Final = 120

ConfigArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="Path of a TOML file, or nano, demo or default.")
]
OutputOption = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="PATH", help="Folder or URL of the run.  [default: runs/NAME]"),
]
WorkOption = Annotated[
    Path | None,
    typer.Option(
        "--work-dir", help="With a URL: folder to work on the run in.  [default: below the user's cache]"
    ),
]
RunOption = Annotated[str, typer.Option("--run", "-r", metavar="PATH", help="Folder or URL of the run.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on standard error.")]
EngineOption = Annotated[
    EngineName, typer.Option(help="Where data is prepared and candidates are listed: the same bytes on both.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(min=0, help="Tasks at once, a core each; 0: every core.  [default: 1, on ray every core]"),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="With --engine ray: the cluster; else one on this machine."),
]
DEFAULT_RUN: Final = "runs/demo"


class ErrorsAsLines(TyperGroup):
    """The root of all commands: what the user or the machine got wrong becomes one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; a `ForecartError` or a file that fails exits with 2, an interruption with 130."""
        try:
            return super().invoke(ctx)
        except ForecartError as error:
            typer.echo(f"error: {to_printable(' '.join(str(error).split()))}", err=True)
            raise typer.Exit(MISTAKE) from None
        except OSError as error:
            if error.filename is None:
                raise
            typer.echo(f"error: {to_printable(str(error.filename))}: {error.strerror}", err=True)
            raise typer.Exit(MISTAKE) from None
        except KeyboardInterrupt:
            typer.echo("interrupted: the same command again continues where this one stopped", err=True)
            raise typer.Exit(INTERRUPTED) from None


def examples(*lines: str) -> str:
    """Returns the examples of a command for its `epilog`, not to be wrapped."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


@contextmanager
def told(*, quiet: bool) -> Iterator[Reporter]:
    """Gives what long work tells of itself to, on standard error unless `quiet`."""
    if quiet:
        yield SilentReporter()
        return
    with ConsoleReporter() as reporter:
        yield reporter


def make_console() -> Console:
    """Returns the console of results: as wide as the terminal, or wide enough for a pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_COLUMNS)


def to_printable(text: str) -> str:
    """Returns a text of somebody else's with what could steer a terminal or break a line replaced."""
    return "".join(character if character.isprintable() else "?" for character in text)


def print_json(value: Any) -> None:
    """Prints a value as indented JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
