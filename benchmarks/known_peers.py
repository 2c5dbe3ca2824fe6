"""The peers there are, by name, and how the command line names one: `NAME=PYTHON [OPTION ...]`.

PYTHON is that of the environment which the script says how to make; options go to the script as they stand,
such as `--checkout PATH` where the model is in a checkout of one's own. A name may be given once a run.
"""

import argparse
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from forecart.model.settings import ModelSettings

SCRIPTS: Final = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class KnownPeer:
    """A script of `benchmarks/peers` with options.

    Attributes:
        script: its file.
        options: of the script, before those of the command line.
        has_rounds: it learns on in a second round, and takes the shape of a transformer.
    """

    script: str
    options: tuple[str, ...] = ()
    has_rounds: bool = True


KNOWN_PEERS: Final = {
    "rectools_esasrec": KnownPeer("rectools_sasrec.py"),
    "rectools_hstu": KnownPeer("rectools_sasrec.py", ("--model", "hstu")),
    "rectools_sasrec": KnownPeer("rectools_sasrec.py", ("--layers", "sasrec")),
    "replay_sasrec": KnownPeer("replay_sasrec.py"),
    "pmixer_sasrec": KnownPeer("pmixer_sasrec.py"),
    "asash_gsasrec": KnownPeer("asash_gsasrec.py"),
    "implicit_als": KnownPeer("implicit_neighbours.py", ("--model", "als"), has_rounds=False),
    "implicit_bm25": KnownPeer("implicit_neighbours.py", ("--model", "bm25"), has_rounds=False),
}


def read_python_of(name: str) -> Callable[[str], str]:
    """Returns a reader of `NAME=PYTHON` where there is one peer only."""

    def read(text: str) -> str:
        given, _, python = text.partition("=")
        if given != name or not python:
            raise argparse.ArgumentTypeError(f"a peer is named {name}=PYTHON, {text!r} arrived")
        return python

    return read


@dataclass(frozen=True)
class AskedPeer:
    """A known peer as the command line names it: its Python and further options."""

    name: str
    python: str
    options: tuple[str, ...] = ()

    @property
    def known(self) -> KnownPeer:
        """What is known of it."""
        return KNOWN_PEERS[self.name]

    def command(self, *, model: ModelSettings | None = None, round_cpu_s: float | None = None) -> list[str]:
        """Returns Python, script and options; files are still to be added.

        Args:
            model: whose width, depth, heads and length it takes, before options of the command line; the
                defaults of its script without.
            round_cpu_s: what a round takes, where there is more than one.
        """
        words = [self.python, str(SCRIPTS / self.known.script), *self.known.options]
        if self.known.has_rounds and model is not None:
            words += shape_options(model)
        if self.known.has_rounds and round_cpu_s is not None:
            words += ["--round-cpu-s", str(round_cpu_s)]
        return [*words, *self.options]


def shape_options(model: ModelSettings) -> list[str]:
    """Returns width, depth, heads and length of our model as options of a peer's script."""
    shape = {
        "--width": model.width,
        "--num-layers": model.num_layers,
        "--num-heads": model.num_heads,
        "--length": model.history_length,
    }
    return [word for option, value in shape.items() for word in (option, str(value))]


def read_peer(text: str) -> AskedPeer:
    """Returns the peer that `NAME=PYTHON [OPTION ...]` names.

    Raises:
        argparse.ArgumentTypeError: there is no such peer, or no Python.
    """
    name, _, rest = text.partition("=")
    words = shlex.split(rest)
    if name not in KNOWN_PEERS or not words:
        raise argparse.ArgumentTypeError(
            f"a peer is NAME=PYTHON [OPTION ...], {text!r} arrived; NAME is one of {', '.join(KNOWN_PEERS)}"
        )
    return AskedPeer(name, words[0], tuple(words[1:]))


def add_peers(parser: argparse.ArgumentParser) -> None:
    """Adds the repeatable `--peer`."""
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        type=read_peer,
        metavar="NAME=PYTHON [OPTION ...]",
        help=f"a system to stand beside, may be repeated; NAME is one of {', '.join(KNOWN_PEERS)}",
    )


def check_names(parser: argparse.ArgumentParser, peers: Sequence[AskedPeer]) -> None:
    """Ends the program where a peer is named twice: its lists would be written over."""
    names = [peer.name for peer in peers]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        parser.error(f"a peer is named once, {', '.join(twice)} arrived more often")
