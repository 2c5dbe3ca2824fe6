"""A guess about a log as a commented configuration, with settings for the size of the log.

Takes a guess and the paths; gives the text of a TOML file that has been read back, so that what is written
runs.
"""

import os
import re
from pathlib import Path
from typing import Any, Final

from forecart import columns
from forecart.cli.config_text import comment, to_key, to_toml
from forecart.cli.terminal import to_printable
from forecart.config import RunConfig, parse_config
from forecart.events.guess import Guess
from forecart.object_store import ObjectPath, Place, expand, measure

SMALL_BYTES: Final = 20_000_000
_BYTES_PER_PARTITION: Final = 250_000_000
_ONE_ADVERTISER: Final = "all"

_TEMPLATE: Final = """\
# A proposal by `forecart init` for {log}. Change what is wrong; a key that is not here has the
# value that `forecart config show default` prints and explains.
#
# What was guessed:
{sentences}

name = {name}
seed = 1

# Where the log is. Paths are relative to this file.
[source]
{source}

# The store on disk: one partition must fit in memory.
[events]
num_partitions = {num_partitions}

# What is predicted: conversions, with their weights, in the {window_days} days after a cut-off.
[labels]
positives = {positives}
window_days = {window_days}
cuts_per_user = 16

# The weights learn from nothing that arrived at `as_of` or later. At each test cut, lists made of what was
# known by then are held against the {window_days} days that follow. `validate_before` keeps the days before
# `as_of` out of training too and measures every epoch on them.
[split]
as_of = {as_of}
test_cuts = [{test_cuts}]
validate_before = true

# Which advertisers will a user convert with next?
[next_advertiser]
{advertisers}
# Which products will a user convert with next?
[next_product]
{products}"""
_OFF: Final = """\
# The log names none, or no more than one.
is_enabled = false
"""
_ADVERTISERS: Final = """\
baselines = [
    "popularity_7d", "popularity_all", "frequency_popularity", "decayed_popularity", "basket_popularity",
]
{settings}"""
_PRODUCTS: Final = """\
baselines = ["popularity_7d", "frequency_popularity_7d", "basket_popularity"]
{settings}
# A catalogue may be too large to score in every step: negatives are sampled.
[next_product.training.loss]
kind = "sampled"
"""
_SMALL: Final = """
# A small log: a small model, more passes, and the best of them kept.
[{target}.model]
width = 32
num_layers = 1
{id_embedding}
[{target}.training]
num_epochs = 8
batch_rows = 64
warmup_steps = 10
patience = 2
cut_stride_days = {stride_days}
"""
_LARGE: Final = """
[{target}.model]
{id_embedding}
[{target}.training]
cut_stride_days = {stride_days}
"""
_ID_EMBEDDING: Final = """\
# `hashed` learns a vector for each id; `none` knows a product by its content alone, new ones too.
id_embedding = "{value}"
"""


def propose(guess: Guess, events: Place, catalogue: Place | None, output: Path) -> tuple[RunConfig, str]:
    """Returns the configuration and its text.

    Args:
        guess: what was found out about the log.
        events: the log.
        catalogue: the product feed, if there is one.
        output: the file the text is for, which paths in it are relative to.
    """
    paths = {"events": [_relative(events, output)]}
    source = guess.source | paths | ({"catalogue": _relative(catalogue, output)} if catalogue else {})
    num_bytes = sum(measure(one) for one in expand([events]))
    text = _TEMPLATE.format(
        log=to_printable(events.name),
        sentences="\n".join(line for sentence in guess.sentences for line in _bullet(sentence)),
        name=to_toml(_to_name(events)),
        source=_render_source(source),
        num_partitions=max(1 if num_bytes < SMALL_BYTES else 8, -(-num_bytes // _BYTES_PER_PARTITION)),
        positives=to_toml(guess.label["positives"]),
        window_days=guess.label["window_days"],
        as_of=guess.cuts["test"][0],
        test_cuts=", ".join(guess.cuts["test"]),
        advertisers=_render_advertisers(guess, num_bytes),
        products=_render_products(guess, num_bytes),
    )
    return parse_config(text, where=str(output), folder=output.parent), text


def _render_advertisers(guess: Guess, num_bytes: int) -> str:
    if guess.source["constants"].get(columns.ADVERTISER_ID) == _ONE_ADVERTISER:
        return _OFF
    return _ADVERTISERS.format(settings=_settings("next_advertiser", guess, num_bytes))


def _render_products(guess: Guess, num_bytes: int) -> str:
    if columns.ITEM_ID not in guess.source["columns"]:
        return _OFF
    return _PRODUCTS.format(settings=_settings("next_product", guess, num_bytes))


def _settings(target: str, guess: Guess, num_bytes: int) -> str:
    """A small log gets a small model and more passes; a short one gets training cuts closer together."""
    window_days = guess.label["window_days"]
    is_short = len(guess.cuts["test"]) == 1
    stride_days = max(1, window_days // 3) if is_short else window_days
    has_content = "catalogue" in guess.source or {columns.TITLE, columns.CATEGORY} & set(
        guess.source["columns"]
    )
    value = "none" if target == "next_product" and has_content else "hashed"
    template = _SMALL if num_bytes < SMALL_BYTES else _LARGE
    return template.format(
        target=target, stride_days=stride_days, id_embedding=_ID_EMBEDDING.format(value=value)
    )


def _render_source(source: dict[str, Any]) -> str:
    """Scalars first, as TOML has it, then the tables, one line a column."""
    lines = [
        f"{key} = {to_toml(value)}" for key, value in source.items() if not isinstance(value, dict) and value
    ]
    for key, words in _TABLES.items():
        if source.get(key):
            lines += ["", f"# {words}", f"[source.{key}]"]
            lines += [f"{to_key(name)} = {to_toml(value)}" for name, value in source[key].items()]
    return "\n".join(lines)


_TABLES: Final = {
    "columns": "what forecart calls a column = what the file calls it",
    "catalogue_columns": "the same for the catalogue",
    "constants": "one value for every row, for what the file does not say",
    "event_types": f"what the file calls an event = one of {', '.join(columns.EVENT_TYPES)}",
}


def _bullet(sentence: str) -> list[str]:
    lines = comment(to_printable(sentence))
    return [f"# - {line[2:]}" if number == 0 else f"#   {line[2:]}" for number, line in enumerate(lines)]


def _relative(path: Place, output: Path) -> str:
    """Returns the path as seen from the file's folder where it lies below it, else in full."""
    if isinstance(path, ObjectPath):
        return str(path)
    full, folder = path.resolve(), output.parent.resolve()
    return full.relative_to(folder).as_posix() if full.is_relative_to(folder) else os.fspath(full)


def _to_name(events: Place) -> str:
    """Returns the log's name with what a run's name may not hold taken out."""
    stem = events.name.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_") or "run"
