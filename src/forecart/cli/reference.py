"""`docs/cli.md`: the help of every command, so that the document cannot say anything else.

python -m forecart.cli.reference > docs/cli.md
"""

from typing import Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command

from forecart.cli import app

_COLUMNS: Final = 100
_HEAD: Final = """\
# Command line

The help of every command, written by `python -m forecart.cli.reference`. Results go to standard output,
commentary to standard error; a mistake is one line and exit code 2, an interruption exit code 130, and the
same command again continues.
"""


def write_reference() -> str:
    """Returns the document."""
    return _HEAD + "".join(_describe(get_command(app), "forecart", None))


def _describe(command: Any, name: str, parent: Any) -> list[str]:
    """Returns the parts of a command and of those below it; the types are typer's own copy of click's."""
    with typer.Context(command, info_name=name, parent=parent, terminal_width=_COLUMNS) as context:
        help_text = command.get_help(context)
        parts = [f"\n## {context.command_path}\n```text\n{help_text.rstrip()}\n```\n"]
        if isinstance(command, TyperGroup):
            for child in command.list_commands(context):
                parts += _describe(command.get_command(context, child), child, context)
    return parts


if __name__ == "__main__":
    typer.echo(write_reference(), nl=False)
