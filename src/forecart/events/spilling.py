"""The first pass over a log: its blocks read, rows judged, good ones spilled by user, bad ones set apart.

A block is what a source can read apart from the rest, such as a file. Some blocks in a row are one task, with
a folder of its own for what it spills and rejects; put together in the order of the blocks they are what one
pass over everything leaves.
"""

from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from forecart import columns as c
from forecart.engine.contract import Engine, Work
from forecart.engine.local import LocalEngine
from forecart.events.catalogue import fill_advertisers
from forecart.events.filters import filter_events, hide_unread_consent
from forecart.events.partitions import PartitionSpill
from forecart.events.quarantine import Counts, QuarantineWriter, count_reasons, to_quarantine
from forecart.events.schema import DEFECT, EventsConfig, Source
from forecart.events.validation import validate_events

_TASKS_PER_WORKER: Final = 4
_REJECTED_FILE: Final = "rejected.parquet"
_CATALOGUE_FILE: Final = "catalogue.parquet"


@dataclass(frozen=True, eq=False)
class Reading:
    """What a worker has open to read blocks.

    Attributes:
        source: the log.
        catalogue: names the advertisers of products.
        config: what is accepted.
        report: called after every chunk with the number of rows that the task has read.
    """

    source: Source
    catalogue: pl.DataFrame
    config: EventsConfig
    report: Callable[[int], None] | None = None


@dataclass(frozen=True)
class ReopenedReading:
    """Opens a log in a worker: where its paths start from, and where its catalogue has been left."""

    reopen: Callable[[], Source]
    working_folder: Path
    spilled: Path
    config: EventsConfig

    def __call__(self) -> Reading:
        """Returns the log and its catalogue."""
        with chdir(self.working_folder):
            source = self.reopen()
        return Reading(source, pl.read_parquet(self.spilled / _CATALOGUE_FILE), self.config)


@dataclass(frozen=True)
class BlockOrder:
    """Blocks to be read, from `first` to before `last`; `folder` is new for each."""

    first: int
    last: int
    folder: Path
    working_folder: Path


def spill_source(
    reading: Reading,
    spilled: Path,
    *,
    engine: Engine,
    reopen: Callable[[], Source] | None,
    report: Callable[[int], None] | None,
) -> tuple[Counts, list[Path]]:
    """Reads a log once; returns what became of its rows so far, and the folders they are in, in their order.

    Args:
        reading: the log.
        spilled: where the folders go.
        engine: whose workers read, where the log has several blocks and `reopen` is given.
        reopen: opens the same log in a worker.
        report: called with the number of rows read so far.
    """
    num_blocks = max(len(reading.source.blocks), 1)
    num_tasks = 1
    if reopen is not None and engine.num_workers > 1:
        num_tasks = min(num_blocks, engine.num_workers * _TASKS_PER_WORKER)
        reading.catalogue.write_parquet(spilled / _CATALOGUE_FILE)
    here = Path.cwd()
    bounds = np.linspace(0, num_blocks, num_tasks + 1).astype(int).tolist()
    orders = [
        BlockOrder(first, last, spilled / f"block-{first:05d}", here) for first, last in pairwise(bounds)
    ]
    is_told_within = num_tasks == 1
    work = Work(
        name="reading events",
        open=ReopenedReading(reopen or _not_reopened, here, spilled, reading.config),
        do=spill_blocks,
        here=replace(reading, report=report) if is_told_within else None,
    )
    counts = Counts()
    for done in (LocalEngine() if is_told_within else engine).run(work, orders):
        counts.add(done.value)
        if report is not None and not is_told_within:
            report(counts.rows_read)
    return counts, [order.folder for order in orders]


def _not_reopened() -> Source:
    raise AssertionError("one task is done where the log is open")


def spill_blocks(reading: Reading, order: BlockOrder) -> Counts:
    """Reads some blocks: good rows to their partition, bad ones to a file; returns what became of them."""
    counts = Counts()
    order.folder.mkdir(exist_ok=True)
    blocks = reading.source.blocks[order.first : order.last] or (reading.source.chunks,)
    with (
        chdir(order.working_folder),
        PartitionSpill(order.folder, reading.config.num_partitions) as partitions,
        QuarantineWriter(order.folder / _REJECTED_FILE) as quarantine,
    ):
        for chunk in chain.from_iterable(block() for block in blocks):
            good, rejected = _judge(chunk, reading, counts)
            partitions.append(good)
            quarantine.append(rejected)
            if reading.report is not None:
                reading.report(counts.rows_read)
    return counts


def collect_rejected(first: pl.DataFrame, folders: list[Path], path: Path) -> None:
    """Writes the rejected rows of all folders to one file, after those of `first`, batch by batch."""
    with QuarantineWriter(path) as quarantine:
        quarantine.append(first)
        for folder in folders:
            with pq.ParquetFile(folder / _REJECTED_FILE) as file:
                for number in range(file.num_row_groups):
                    quarantine.append(pl.DataFrame(pl.from_arrow(file.read_row_group(number))))


def _judge(chunk: pl.DataFrame, reading: Reading, counts: Counts) -> tuple[pl.DataFrame, pl.DataFrame]:
    kept, filtered = filter_events(chunk, config=reading.config, rules=reading.source.rules)
    broken, whole = _split_defects(kept)
    broken = hide_unread_consent(broken, config=reading.config)
    good, refused = validate_events(fill_advertisers(whole, reading.catalogue), reading.source.rules)
    rejected = pl.concat([to_quarantine(broken), to_quarantine(refused)])
    counts.rows_read += chunk.height
    counts.filtered.update(filtered)
    counts.rejected.update(count_reasons(rejected))
    return good, rejected.sort(c.OFFSET)


def _split_defects(chunk: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sets apart the lines that the reader could not read, with its reason."""
    if DEFECT not in chunk.columns:
        return chunk.clear().with_columns(pl.lit(None, dtype=pl.String).alias(c.REASON)), chunk
    broken = chunk.filter(pl.col(DEFECT).is_not_null()).with_columns(pl.col(DEFECT).alias(c.REASON))
    return broken, chunk.filter(pl.col(DEFECT).is_null())
