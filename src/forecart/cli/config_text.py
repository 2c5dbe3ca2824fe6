"""A configuration as TOML that teaches: every key with its value and, above it, what it means.

Takes a configuration; gives text that parses back to the same configuration. The words come from the
docstrings of the fields, so that they are written once.
"""

import re
import textwrap
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

_COLUMNS: Final = 100
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def render_config(config: BaseModel) -> str:
    """Returns the whole configuration as commented TOML."""
    return "\n".join(_render_section(config, ())) + "\n"


def _render_section(section: BaseModel, path: tuple[str, ...]) -> Iterator[str]:
    if path:
        yield f"[{'.'.join(path)}]"
    sections = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            sections.append((name, value, field.description))
            continue
        yield from comment(field.description)
        yield f"# {name} is not set" if value is None else f"{name} = {to_toml(value)}"
    for name, value, description in sections:
        yield ""
        yield from comment(description or _summary(value))
        yield from _render_section(value, (*path, name))


def _summary(section: BaseModel) -> str:
    return (type(section).__doc__ or "").partition("\n")[0]


def comment(text: str | None) -> list[str]:
    """Returns a text as lines of comment."""
    plain = " ".join((text or "").split())
    return textwrap.wrap(plain, _COLUMNS, initial_indent="# ", subsequent_indent="# ", break_long_words=False)


def to_toml(value: Any) -> str:
    """Returns a value as TOML: text, numbers, truth, moments, lists and inline tables of them, sections too.

    Raises:
        TypeError: TOML has no such value.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return f'"{"".join(_escape(character) for character in str(value))}"'
    if isinstance(value, datetime | date):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, list | tuple):
        return f"[{', '.join(to_toml(entry) for entry in value)}]"
    if isinstance(value, BaseModel):
        value = {key: entry for key, entry in value.model_dump().items() if entry is not None}
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{to_key(key)} = {to_toml(entry)}" for key, entry in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    raise TypeError(f"TOML has no {type(value).__name__}")


def to_key(name: str) -> str:
    """Returns a key as TOML, in quotes where it needs them."""
    return name if _BARE_KEY.fullmatch(name) else to_toml(name)


def _escape(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    is_control = ord(character) < 32 or ord(character) == 127
    return f"\\u{ord(character):04x}" if is_control else character
