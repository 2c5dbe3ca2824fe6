"""Markup that is escaped by construction: every string becomes text unless it already is `Html`.

Ids and titles come from other people's logs, so nothing in the report concatenates strings into markup:
elements are made with `tag`, whose children and attributes are escaped here, in one place.
"""

import html
import re
from collections.abc import Iterable
from typing import Final

_VOID: Final = frozenset({"br", "hr", "meta"})
# What a page cannot hold: control characters, and halves of a surrogate pair, which UTF-8 refuses.
_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class Html(str):
    """Text that is markup already and is inserted as it is."""

    __slots__ = ()


Child = str | int | None
Attribute = str | int | float | bool | None


def escape(text: str) -> Html:
    """Returns the text as markup that shows it; what no page can hold becomes a replacement character."""
    if isinstance(text, Html):
        return text
    return Html(html.escape(_UNPRINTABLE.sub("\ufffd", text), quote=True))


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Html:
    """Returns an element.

    Args:
        name: of the element.
        children: `Html` as it is, other text escaped; None is left out.
        attributes: `class_` is `class`, `data_tip` is `data-tip`; None and False are left out, True is an
            attribute without a value, a float has two decimals.
    """
    opening = "".join([f"<{name}", *(_attribute(key, value) for key, value in attributes.items()), ">"])
    return Html(opening) if name in _VOID else Html(f"{opening}{join(children)}</{name}>")


def join(children: Iterable[Child], separator: str = "") -> Html:
    """Returns the children one after the other, escaped where they are not `Html`; None is left out."""
    return Html(escape(separator).join(escape(str(child)) if not isinstance(child, Html) else child
                                       for child in children if child is not None))  # fmt: skip


def untrusted(text: object, *, limit: int = 160) -> Html:
    """Returns an id or a title of the log: cut to `limit` characters and isolated from the text around it."""
    return tag("bdi", clip(str(text), limit))


def clip(text: str, limit: int) -> str:
    """Returns the text, or its beginning and an ellipsis where it is longer than `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f' {name}="{escape(text)}"'
