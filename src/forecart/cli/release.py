"""`forecart release`: publish a run, see what is served, go back, check a release, take a user out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from forecart.cli.terminal import (
    JsonOption,
    QuietOption,
    examples,
    make_console,
    print_json,
    to_printable,
    told,
)
from forecart.errors import ConfigError, NotFoundError
from forecart.observe import Reporter
from forecart.publish.pointer import Pointer
from forecart.publish.publisher import KEEP, Publisher
from forecart.publish.release import read_manifest
from forecart.publish.releases import Releases
from forecart.publish.run_parts import read_run
from forecart.publish.store import Store
from forecart.publish.stores import open_store
from forecart.publish.suppression import Reason
from forecart.run_mirror import local_run

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

DEFAULT_ROOT: Final = Path("releases")
INVENTORY: Final = "inventory"
"""Below the folder of releases: the ads that are served with them."""
TTL_DAYS: Final = 14.0
"""Longer than a daily run carries a list, which `require_ttl_beyond` checks."""
_DAY_S: Final = 86_400
_US: Final = 1_000_000
# A publisher has time: it waits where a reader would answer from its fallback.
_PUBLISH_TIMEOUT_S: Final = 10.0

RootOption = Annotated[Path, typer.Option("--releases", help="Folder of the releases.")]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", help="URL of a Redis or Valkey server, or of a bucket.  [default: the releases' own files]"
    ),
]


@app.callback()
def release() -> None:
    """Versions of the candidates that an ad server reads."""


@app.command(
    epilog=examples(
        "forecart release publish runs/demo",
        "forecart release publish runs/demo --store redis://localhost:6379/0",
        "forecart release publish s3://bucket/runs/demo --store s3://bucket/releases",
    )
)
def publish(  # noqa: PLR0913  (the options of the command)
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder or URL of a finished run.")],
    releases: RootOption = DEFAULT_ROOT,
    store: StoreOption = None,
    ttl_days: Annotated[float, typer.Option(min=0.01, help="How long a list is served.")] = TTL_DAYS,
    keep: Annotated[int, typer.Option(min=2, help="Releases to keep.")] = KEEP,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a release of a run's candidates and serve it.

    Builds the release beside those there are, checks it in a process of its own (every byte, then the quality
    gate: users, numbers, recall, personal lists, nobody suppressed), loads the store and moves the pointer.
    The same run again changes nothing; whatever fails, what was served before still is. Prints the id.
    """
    with told(quiet=quiet) as reporter:
        pointer = publish_run(
            local_run(run), releases, store, keep=keep, ttl_days=ttl_days, reporter=reporter
        )
    _print_pointer(pointer, as_json=as_json)


def publish_run(  # noqa: PLR0913  (the options of the command)
    run: Path,
    releases: Path,
    store: str | None,
    *,
    day: Path | None = None,
    keep: int = KEEP,
    ttl_days: float = TTL_DAYS,
    reporter: Reporter,
) -> Pointer:
    """Publishes a run, or a day of it, and returns the pointer; see `Publisher.publish`."""
    with opened_store(releases, store) as opened:
        publisher = Publisher(
            releases,
            opened,
            keep=keep,
            report=lambda done, total: reporter.progress("loading the store", done, total),
        )
        return publisher.publish(
            lambda suppressed: read_run(run, day=day, suppressed=suppressed, ttl_s=int(ttl_days * _DAY_S))
        )


def require_ttl_beyond(max_carry_days: int) -> None:
    """Checks that a list is served longer than a daily run carries it.

    Raises:
        ConfigError: it would expire before it is made anew.
    """
    if max_carry_days >= TTL_DAYS:
        raise ConfigError(
            f"a list is served for {TTL_DAYS:g} days and must be carried for fewer to be published, "
            f"candidates.max_carry_days = {max_carry_days} arrived"
        )


@app.command(epilog=examples("forecart release rollback", "forecart release rollback ID"))
def rollback(
    release_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="Which one.  [default: the one before]")
    ] = None,
    releases: RootOption = DEFAULT_ROOT,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve the release before, or one that is named. Prints the id.

    What is gone back from is withdrawn: nobody is answered from it any more. Once more without an ID goes
    further back, to the next older history that was not withdrawn itself, and never forward.
    """
    with opened_store(releases, store) as opened:
        pointer = Publisher(releases, opened).roll_back(release_id)
    _print_pointer(pointer, as_json=as_json)


@app.command("list", epilog=examples("forecart release list", "forecart release list --json"))
def list_releases(
    releases: RootOption = DEFAULT_ROOT, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """Print the releases there are, and which one is served."""
    with opened_store(releases, store) as opened:
        pointer = opened.pointer()
    rows = [_describe(Releases(releases), one, pointer) for one in Releases(releases).ids()]
    if as_json:
        print_json({"current": pointer and asdict(pointer), "releases": rows})
        return
    table = Table("release", "history up to", "users", "Recall@10", "served")
    for row in rows:
        recall = row["metrics"].get("next_advertiser.recall_at_10")
        shown = "" if recall is None else f"{recall:.4f}"
        served = f"since {to_printable(pointer.moved_at[:19])}" if pointer and row["is_served"] else ""
        table.add_row(row["release_id"], row["as_of"], f"{row['num_users']:,}", shown, served)
    make_console().print(table)


@app.command(epilog=examples("forecart release verify", "forecart release verify ID"))
def verify(
    release_id: Annotated[str | None, typer.Argument(metavar="ID", help="Which one.  [default: all]")] = None,
    releases: RootOption = DEFAULT_ROOT,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read releases again, every byte, and exit with 2 where one is not what was written.

    Without an ID also where the pointer, of the folder or of a server, names a release that is not there.
    """
    ids = [release_id] if release_id else Releases(releases).ids()
    for one in ids:
        Releases(releases).verify(one, anew=True)
    if release_id is None:
        with opened_store(releases, store) as opened:
            _require_named(opened.pointer(), releases, ids)
    print_json({"whole": ids}) if as_json else typer.echo("\n".join(f"{one} is whole" for one in ids))


@app.command(
    epilog=examples("forecart release suppress USER", "forecart release suppress USER --reason deletion")
)
def suppress(
    user: Annotated[str, typer.Argument(metavar="USER", help="A user id.")],
    reason: Annotated[Reason, typer.Option(help="Why.")] = "opt_out",
    releases: RootOption = DEFAULT_ROOT,
    store: StoreOption = None,
) -> None:
    """Answer a user with nothing personal any more: at once, in every release, and for good."""
    with opened_store(releases, store) as opened:
        opened.suppress(user, reason)
    typer.echo("suppressed")


@contextmanager
def opened_store(root: Path, url: str | None) -> Iterator[Store]:
    """Gives the store of a folder of releases, or of a server."""
    store = open_store(root, url, timeout_s=_PUBLISH_TIMEOUT_S)
    try:
        yield store
    finally:
        store.close()


def _require_named(pointer: Pointer | None, releases: Path, ids: list[str]) -> None:
    named = [] if pointer is None else [pointer.release_id, pointer.stand_in_id]
    if lost := [one for one in named if one is not None and one not in ids]:
        raise NotFoundError(
            f"what the pointer names must be in {releases}, {' and '.join(lost)} is not: publish again"
        )


def _describe(releases: Releases, release_id: str, pointer: Pointer | None) -> dict[str, Any]:
    manifest = read_manifest(releases.path(release_id))
    return {
        "release_id": release_id,
        "as_of": datetime.fromtimestamp(manifest.as_of_us / _US, UTC).isoformat(timespec="seconds"),
        "num_users": manifest.num_users,
        "metrics": manifest.metrics,
        "is_served": pointer is not None and pointer.release_id == release_id,
    }


def _print_pointer(pointer: Pointer, *, as_json: bool) -> None:
    print_json(asdict(pointer)) if as_json else typer.echo(pointer.release_id)
