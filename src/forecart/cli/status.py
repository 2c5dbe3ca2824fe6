"""`forecart status`: how far a run is, its last day, and what is served; for people and for monitors."""

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from forecart import artifacts
from forecart.cli.release import DEFAULT_ROOT, RootOption, StoreOption, opened_store
from forecart.cli.terminal import JsonOption, examples, print_json, to_printable
from forecart.days import DAY_FILE, DAYS, is_worked_on, list_days
from forecart.errors import ArtifactError
from forecart.object_store import ObjectPath, Place, to_place
from forecart.publish.pointer import Pointer
from forecart.publish.release import read_manifest
from forecart.publish.releases import Releases

LATE: Final = 1
"""The exit code where nothing is served, or a history that is too old."""
_HOUR_S: Final = 3600
_WORK: Final = {True: "a process works on it", False: "nothing works on it", None: "kept in an object store"}
_STAGES: Final = {
    "events": "events",
    "sequences": "sequences",
    "evaluation": "evaluation",
    "advertisers": "candidates/advertisers",
    "products": "candidates/products",
}


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog=examples(
            "forecart status runs/events --releases releases",
            "forecart status runs/events --releases releases --max-age-hours 36   # exits with 1 when late",
        )
    )(status)


def status(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder or URL of a run.")],
    releases: RootOption = DEFAULT_ROOT,
    store: StoreOption = None,
    max_age_hours: Annotated[
        float | None, typer.Option(min=0, help="Exit with 1 where what is served is older, or nothing is.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say how far a run is, what its last day did, and what is served.

    Reads only; may be asked at any time, also while a day runs.
    """
    with opened_store(releases, store) as opened:
        pointer = opened.pointer()
    found = {
        "run": describe_run(to_place(run)),
        "served": describe_served(releases, pointer, now_s=time.time()),
    }
    print_json(found) if as_json else typer.echo("\n".join(tell(found)))
    if max_age_hours is not None and is_late(found["served"], max_age_s=max_age_hours * _HOUR_S):
        raise typer.Exit(LATE)


def describe_run(run: Place) -> dict[str, Any]:
    """Returns which stages are complete, whether a process works on the run, and its last day.

    Whether one works on a run in an object store is not known there: None.

    Raises:
        ArtifactError: there is no run.
        StoreError: the object store does not answer.
    """
    if isinstance(run, ObjectPath):
        return _describe_kept(run)
    if not (run / artifacts.CONFIG).is_file():
        raise ArtifactError(
            f"{run} must be the folder of a run, it has no {artifacts.CONFIG}: name another one"
        )
    days = list_days(run)
    return {
        "folder": run,
        "is_worked_on": is_worked_on(run),
        "complete": [name for name, path in _STAGES.items() if (run / path / artifacts.MANIFEST).is_file()],
        "day": artifacts.read_json(days[-1] / DAY_FILE) if days else None,
    }


def _describe_kept(run: ObjectPath) -> dict[str, Any]:
    sizes = run.sizes()
    if artifacts.CONFIG not in sizes:
        raise ArtifactError(f"{run} must be a run, it has no {artifacts.CONFIG}: name another one")
    days = sorted(name for name in sizes if name.startswith(f"{DAYS}/") and name.endswith(f"/{DAY_FILE}"))
    day = (run / days[-1]).read_bytes() if days else None
    return {
        "folder": run,
        "is_worked_on": None,
        "complete": [name for name, path in _STAGES.items() if f"{path}/{artifacts.MANIFEST}" in sizes],
        "day": None if day is None else json.loads(day),
    }


def describe_served(root: Path, pointer: Pointer | None, *, now_s: float) -> dict[str, Any] | None:
    """Returns the pointer, and how old the history of its release is; None where nothing is served."""
    if pointer is None:
        return None
    as_of_s = read_manifest(Releases(root).path(pointer.release_id)).as_of_us / 1e6
    as_of = datetime.fromtimestamp(as_of_s, UTC).isoformat(timespec="seconds")
    return {**asdict(pointer), "as_of": as_of, "age_s": round(now_s - as_of_s)}


def is_late(served: dict[str, Any] | None, *, max_age_s: float) -> bool:
    """Whether nothing is served, or a history that is older, or from a time to come."""
    return served is None or not 0 <= served["age_s"] <= max_age_s


def tell(found: dict[str, Any]) -> list[str]:
    """Returns the lines that people read."""
    run, served = found["run"], found["served"]
    work = _WORK[run["is_worked_on"]]
    lines = [f"run     {run['folder']}: {work}; complete: {', '.join(run['complete']) or 'nothing'}"]
    if run["day"] is None:
        lines.append("day     none yet: forecart run CONFIG --as-of MOMENT")
    else:
        levels = {name: facts for name, facts in run["day"].items() if isinstance(facts, dict)}
        shown = (
            f"{one['num_encoded']:,} of {one['num_users']:,} users' {name} anew"
            for name, one in levels.items()
        )
        lines.append(f"day     {run['day']['as_of']}: {', '.join(shown)}")
    if served is None:
        lines.append("served  nothing: forecart release publish RUN")
    else:
        age = f"{served['age_s'] / _HOUR_S:,.1f} hours old"
        move = f"{served['move']} at {to_printable(served['moved_at'][:19])}"
        lines.append(f"served  {served['release_id']}: history up to {served['as_of']}, {age}; {move}")
    return lines
