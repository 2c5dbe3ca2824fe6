"""Rejected rows as they came, with reason, source and offset, streamed to one Parquet file.

What is rejected must be found again: the offset is the row's number in its file, so that after a fix of the
source, or of the column mapping, the run reads the same rows again and they are no longer here.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import polars as pl
import pyarrow.parquet as pq

from forecart import columns as c
from forecart.events.schema import DEFECT, FILTERED, QUARANTINE_SCHEMA, RAW_CHARS

_NOT_SHOWN: Final = (c.SOURCE, c.OFFSET, c.REASON, DEFECT, FILTERED)


def to_quarantine(rejected: pl.DataFrame) -> pl.DataFrame:
    """Returns raw rows with a `reason` as quarantine rows; without a `raw` column as JSON."""
    if c.RAW in rejected.columns:
        raw = pl.col(c.RAW)
    else:
        shown = [name for name in rejected.columns if name not in _NOT_SHOWN]
        raw = pl.struct(
            pl.col(name).map_batches(_to_text, return_dtype=pl.String) for name in shown
        ).struct.json_encode()
    return rejected.select(
        pl.col(c.SOURCE).cast(pl.String),
        pl.col(c.OFFSET).cast(pl.Int64),
        pl.col(c.REASON).cast(pl.String),
        raw.cast(pl.String).str.slice(0, RAW_CHARS).alias(c.RAW),
    )


def _to_text(values: pl.Series) -> pl.Series:
    if values.dtype.is_nested():
        return pl.Series(
            values.name, [None if v is None else str(v)[:RAW_CHARS] for v in values.to_list()], pl.String
        )
    return values.cast(pl.String, strict=False)


def count_reasons(quarantined: pl.DataFrame) -> dict[str, int]:
    """Returns the number of rows by reason, sorted by reason."""
    return dict(quarantined[c.REASON].value_counts().sort(c.REASON).iter_rows())


@dataclass
class Counts:
    """What became of the rows: `rows_read = accepted + duplicates + filtered + rejected`."""

    rows_read: int = 0
    accepted: int = 0
    duplicates: int = 0
    filtered: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)

    def add(self, others: Self) -> None:
        """Adds what became of other rows."""
        self.rows_read += others.rows_read
        self.accepted += others.accepted
        self.duplicates += others.duplicates
        self.filtered.update(others.filtered)
        self.rejected.update(others.rejected)

    @property
    def rejected_share(self) -> float:
        """The share of the rows read that were rejected; 0 for an empty log."""
        return self.rejected.total() / self.rows_read if self.rows_read else 0.0

    def to_facts(self) -> dict[str, Any]:
        """Returns the counts as JSON values."""
        return {
            "rows_read": self.rows_read,
            "accepted": self.accepted,
            "duplicates": self.duplicates,
            "filtered": dict(sorted(self.filtered.items())),
            "rejected": dict(sorted(self.rejected.items())),
        }


class QuarantineWriter:
    """Appends quarantine rows to a Parquet file, a batch at a time, in the order they come."""

    def __init__(self, path: Path) -> None:
        self._schema = pl.DataFrame(schema=QUARANTINE_SCHEMA).to_arrow().schema
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def append(self, quarantined: pl.DataFrame) -> None:
        """Adds rows, in the order of `QUARANTINE_SCHEMA`."""
        if quarantined.height:
            self._writer.write_table(quarantined.to_arrow().cast(self._schema))
