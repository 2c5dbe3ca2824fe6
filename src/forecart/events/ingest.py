"""A source to the event store: every row accepted, found a duplicate, filtered or rejected, and counted as
one of them.

One pass over the chunks validates rows and spills them to their user's partition on disk; a second makes
each partition into its final file. The result is a function of the set of rows: neither their order nor
their repetition changes a byte. A log with too many rejected rows stops the run before anything is marked
complete.
"""

import shutil
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

import polars as pl

from forecart import columns as c
from forecart.artifacts import MANIFEST, complete_stage, write_atomically, write_parquet
from forecart.errors import DataError
from forecart.events.catalogue import Catalogue, fill_advertisers, read_catalogue
from forecart.events.filters import filter_events, hide_unread_consent
from forecart.events.partitions import PartitionSpill, drop_repeated_ids, drop_second_deliveries
from forecart.events.quarantine import Counts, QuarantineWriter, count_reasons, to_quarantine
from forecart.events.schema import DEFECT, EventsConfig, Source
from forecart.events.validation import validate_events

CATALOGUE_FILE: Final = "catalogue.parquet"
QUARANTINE_FILE: Final = "quarantine.parquet"
# Where the rejected rows of a log that was refused go, when a finished store stands there.
REFUSED_FILE: Final = "refused.parquet"
_SPILL_PREFIX: Final = ".spill-"


def ingest_events(
    source: Source,
    folder: Path,
    *,
    config: EventsConfig,
    key: str = "",
    report: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Writes the event store of `source` into `folder` and returns the facts of its manifest.

    Args:
        source: the opened log; its catalogue is read first.
        folder: an earlier store in it stays as it is until the log is read and accepted.
        config: what is accepted and how many partitions there are.
        key: the hash of the inputs, kept in the manifest (`artifacts.is_stage_complete`).
        report: called after every chunk with the number of rows read so far.

    Raises:
        DataError: more than `max_rejected_share` of the events or of the catalogue was rejected (the
            rejected rows are written all the same), or no event was accepted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_spills(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_SPILL_PREFIX) as name:
        ingest = _Ingest(source, config, Path(name))
        ingest.spill(report)
        for counts, what in ((ingest.counts, "events"), (ingest.catalogue.counts, "catalogue rows")):
            if counts.rejected_share > config.max_rejected_share:
                rejected = folder / (REFUSED_FILE if (folder / MANIFEST).exists() else QUARANTINE_FILE)
                write_atomically(rejected, lambda path: _move(ingest.quarantine_path, path))
                raise _too_many_rejected(counts, rejected, config.max_rejected_share, what=what)
        _clear(folder)
        write_atomically(folder / QUARANTINE_FILE, lambda path: _move(ingest.quarantine_path, path))
        write_parquet(folder / CATALOGUE_FILE, ingest.catalogue.frame)
        facts = ingest.write_partitions(folder)
    if not ingest.counts.accepted:
        raise DataError(
            f"a log must hold at least one event to keep, none of {ingest.counts.rows_read} rows was"
        )
    complete_stage(folder, key, facts)
    return facts


class _Ingest:
    """The state of one pass: the catalogue, the partitions on disk, and the counts."""

    def __init__(self, source: Source, config: EventsConfig, spilled: Path) -> None:
        self._source = source
        self._config = config
        self._partitions = PartitionSpill(spilled, config.num_partitions)
        self.quarantine_path = spilled / QUARANTINE_FILE
        self.counts = Counts()
        self.catalogue = Catalogue.empty()

    def spill(self, report: Callable[[int], None] | None) -> None:
        """Reads the source once: good rows to their partition, bad ones to quarantine."""
        with self._partitions, QuarantineWriter(self.quarantine_path) as quarantine:
            self.catalogue = read_catalogue(self._source.catalogue())
            quarantine.append(self.catalogue.rejected)
            for chunk in self._source.chunks():
                good, rejected = self._judge(chunk)
                self._partitions.append(good)
                quarantine.append(rejected)
                if report is not None:
                    report(self.counts.rows_read)

    def _judge(self, chunk: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        kept, filtered = filter_events(chunk, config=self._config, rules=self._source.rules)
        broken, whole = _split_defects(kept)
        broken = hide_unread_consent(broken, config=self._config)
        good, refused = validate_events(fill_advertisers(whole, self.catalogue.frame), self._source.rules)
        rejected = pl.concat([to_quarantine(broken), to_quarantine(refused)])
        self.counts.rows_read += chunk.height
        self.counts.filtered.update(filtered)
        self.counts.rejected.update(count_reasons(rejected))
        return good, rejected.sort(c.OFFSET)

    def write_partitions(self, folder: Path) -> dict[str, Any]:
        """Writes the final file of every partition and returns the facts of the store."""
        times: list[datetime] = []
        num_users = 0
        for number in range(self._config.num_partitions):
            events = self._finish(self._partitions.read(number))
            write_parquet(folder / f"part-{number:05d}.parquet", events)
            num_users += events[c.USER_ID].n_unique()
            if events.height:
                times += [
                    cast(datetime, events[c.OCCURRED_AT].min()),
                    cast(datetime, events[c.OCCURRED_AT].max()),
                ]
        return {
            "counts": self.counts.to_facts(),
            "catalogue": self.catalogue.counts.to_facts(),
            "num_users": num_users,
            "first_occurred_at": min(times).isoformat() if times else None,
            "last_occurred_at": max(times).isoformat() if times else None,
        }

    def _finish(self, rows: pl.DataFrame) -> pl.DataFrame:
        events = drop_repeated_ids(rows)
        if self._config.delivers_twice:
            events = drop_second_deliveries(events, window_h=self._config.fingerprint_window_h)
        self.counts.accepted += events.height
        self.counts.duplicates += rows.height - events.height
        return events


def _split_defects(chunk: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sets apart the lines that the reader could not read, with its reason."""
    if DEFECT not in chunk.columns:
        return chunk.clear().with_columns(pl.lit(None, dtype=pl.String).alias(c.REASON)), chunk
    broken = chunk.filter(pl.col(DEFECT).is_not_null()).with_columns(pl.col(DEFECT).alias(c.REASON))
    return broken, chunk.filter(pl.col(DEFECT).is_null())


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
