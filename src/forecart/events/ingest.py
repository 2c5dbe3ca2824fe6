"""A source to the event store: every row accepted, found a duplicate, filtered or rejected, and counted as
one of them.

One pass over the chunks validates rows and spills them to their user's partition on disk (`spilling.py`); a
second makes each partition into its final file. Files of the log and partitions are tasks of an engine. The
result is a function of the set of rows: neither their order nor their repetition changes a byte. A log with
too many rejected rows stops the run before anything is marked complete.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

from forecart import columns as c
from forecart.artifacts import MANIFEST, complete_stage, write_atomically, write_parquet
from forecart.engine.contract import Engine, Given, Work
from forecart.engine.local import LocalEngine
from forecart.errors import DataError
from forecart.events.catalogue import read_catalogue
from forecart.events.partitions import drop_repeated_ids, drop_second_deliveries, read_spilled, spilled_path
from forecart.events.quarantine import Counts
from forecart.events.schema import EventsConfig, Source
from forecart.events.spilling import Reading, collect_rejected, spill_source

CATALOGUE_FILE: Final = "catalogue.parquet"
QUARANTINE_FILE: Final = "quarantine.parquet"
# Where the rejected rows of a log that was refused go, when a finished store stands there.
REFUSED_FILE: Final = "refused.parquet"
_SPILL_PREFIX: Final = ".spill-"


def ingest_events(  # noqa: PLR0913
    source: Source,
    folder: Path,
    *,
    config: EventsConfig,
    key: str = "",
    report: Callable[[int], None] | None = None,
    engine: Engine | None = None,
    reopen: Callable[[], Source] | None = None,
) -> dict[str, Any]:
    """Writes the event store of `source` into `folder` and returns the facts of its manifest.

    Args:
        source: the opened log; its catalogue is read first.
        folder: an earlier store in it stays as it is until the log is read and accepted.
        config: what is accepted and how many partitions there are.
        key: the hash of the inputs, kept in the manifest (`artifacts.is_stage_complete`).
        report: called with the number of rows read so far.
        engine: whose workers do it; this process does when not given.
        reopen: opens the same log in a worker; without it the log is read in this process.

    Raises:
        DataError: more than `max_rejected_share` of the events or of the catalogue was rejected (the
            rejected rows are written all the same), or no event was accepted.
    """
    engine = engine or LocalEngine()
    folder.mkdir(parents=True, exist_ok=True)
    _remove_spills(folder)
    with tempfile.TemporaryDirectory(dir=folder.absolute(), prefix=_SPILL_PREFIX) as name:
        catalogue, quarantined = read_catalogue(source.catalogue()), Path(name) / QUARANTINE_FILE
        reading = Reading(source, catalogue.frame, config)
        counts, spilled = spill_source(reading, Path(name), engine=engine, reopen=reopen, report=report)
        collect_rejected(catalogue.rejected, spilled, quarantined)
        for count, what in ((counts, "events"), (catalogue.counts, "catalogue rows")):
            if count.rejected_share > config.max_rejected_share:
                rejected = folder / (REFUSED_FILE if (folder / MANIFEST).exists() else QUARANTINE_FILE)
                write_atomically(rejected, lambda path: _move(quarantined, path))
                raise _too_many_rejected(count, rejected, config.max_rejected_share, what=what)
        _clear(folder)
        write_atomically(folder / QUARANTINE_FILE, lambda path: _move(quarantined, path))
        write_parquet(folder / CATALOGUE_FILE, catalogue.frame)
        finishing = _Finishing(tuple(spilled), folder.absolute(), config)
        facts = _write_partitions(folder, finishing, counts, engine)
    if not counts.accepted:
        raise DataError(f"a log must hold at least one event to keep, none of {counts.rows_read} rows was")
    facts["catalogue"] = catalogue.counts.to_facts()
    complete_stage(folder, key, facts)
    return facts


@dataclass(frozen=True)
class _Finishing:
    """Where partitions come from and go to."""

    spilled: tuple[Path, ...]
    folder: Path
    config: EventsConfig


@dataclass(frozen=True)
class _Finished:
    """What the final file of a partition holds; times where it holds any event."""

    num_rows: int
    num_events: int
    num_users: int
    times: list[datetime]


def _write_partitions(folder: Path, finishing: _Finishing, counts: Counts, engine: Engine) -> dict[str, Any]:
    """Writes the final file of every partition and returns the facts of the store but its catalogue's."""
    times: list[datetime] = []
    num_users = 0
    work = Work("writing event partitions", Given(finishing), finish_partition, here=finishing)
    for done in engine.run(work, range(finishing.config.num_partitions)):
        finished = done.value
        counts.accepted += finished.num_events
        counts.duplicates += finished.num_rows - finished.num_events
        num_users += finished.num_users
        times += finished.times
        for spilled in finishing.spilled:
            spilled_path(spilled, done.number).unlink()
    return {
        "counts": counts.to_facts(),
        "num_users": num_users,
        "first_occurred_at": min(times).isoformat() if times else None,
        "last_occurred_at": max(times).isoformat() if times else None,
    }


def finish_partition(finishing: _Finishing, number: int) -> _Finished:
    """Writes the final file of a partition: each event once, in store order."""
    rows = read_spilled(finishing.spilled, number)
    events = drop_repeated_ids(rows)
    if finishing.config.delivers_twice:
        events = drop_second_deliveries(events, window_h=finishing.config.fingerprint_window_h)
    write_parquet(finishing.folder / f"part-{number:05d}.parquet", events)
    bounds = (events[c.OCCURRED_AT].min(), events[c.OCCURRED_AT].max()) if events.height else ()
    return _Finished(
        rows.height, events.height, events[c.USER_ID].n_unique(), [cast(datetime, at) for at in bounds]
    )


def _too_many_rejected(counts: Counts, rejected: Path, max_share: float, *, what: str) -> DataError:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts.rejected.most_common())
    return DataError(
        f"at most {max_share:.1%} of the {what} may be rejected, {counts.rejected_share:.1%} were "
        f"({counts.rejected.total():,} of {counts.rows_read:,}: {reasons}); see {rejected}, "
        "then mend the source or its column mapping, or raise max_rejected_share"
    )


def _move(source: Path, target: Path) -> None:
    shutil.move(source, target)


def _clear(folder: Path) -> None:
    """Removes an earlier store, its marker first."""
    (folder / MANIFEST).unlink(missing_ok=True)
    names = (CATALOGUE_FILE, QUARANTINE_FILE, REFUSED_FILE)
    for path in (*folder.glob("part-*.parquet"), *(folder / name for name in names)):
        path.unlink(missing_ok=True)


def _remove_spills(folder: Path) -> None:
    """Removes what an interrupted run left behind."""
    for path in folder.glob(f"{_SPILL_PREFIX}*"):
        shutil.rmtree(path)
