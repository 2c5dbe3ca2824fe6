"""The contracts of the events stage: its configuration sections, its tables, and what an adapter hands over.

A source is two streams of raw tables ("chunks"), events and catalogue, with canonical column names and
whatever types the files had, plus `source` and `offset`, and the rules by which the rows are read. Two more
columns are understood: `defect` (the reader's reason why a line is no row) and `filtered` (the adapter's
reason why a row is not wanted).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import polars as pl
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    field_validator,
    model_validator,
)

from forecart import columns as c
from forecart.errors import ForecartError
from forecart.events.synthetic.world import SyntheticConfig
from forecart.object_store import ObjectPath, Place, to_place

DEFECT: Final = "defect"
FILTERED: Final = "filtered"

TIME: Final = pl.Datetime("us", "UTC")

EVENT_SCHEMA: Final[dict[str, pl.DataType]] = {
    c.EVENT_ID: pl.String(),
    c.USER_ID: pl.String(),
    c.EVENT_TYPE: pl.String(),
    c.ADVERTISER_ID: pl.String(),
    c.ITEM_ID: pl.String(),
    c.OCCURRED_AT: TIME,
    c.ARRIVED_AT: TIME,
    c.ORDINAL: pl.Int64(),
    c.VALUE: pl.Float64(),
    c.CURRENCY: pl.String(),
    c.QUANTITY: pl.Float64(),
    c.COUNTRY: pl.String(),
}
CATALOGUE_SCHEMA: Final[dict[str, pl.DataType]] = {
    c.ITEM_ID: pl.String(),
    c.ADVERTISER_ID: pl.String(),
    c.TITLE: pl.String(),
    c.CATEGORY: pl.String(),
    c.PRICE: pl.Float64(),
    c.AVAILABILITY: pl.String(),
    c.EMBEDDING: pl.List(pl.Float32()),
}
QUARANTINE_SCHEMA: Final[dict[str, pl.DataType]] = {
    c.SOURCE: pl.String(),
    c.OFFSET: pl.Int64(),
    c.REASON: pl.String(),
    c.RAW: pl.String(),
}
EVENT_COLUMNS: Final = (*EVENT_SCHEMA, c.CONTEXT, c.CONSENT)
RAW_CHARS: Final = 4096
"""A quarantined row keeps this many characters of what arrived."""

Adapter = Literal["complete_journey", "tmall_2014", "rees46", "files", "synthetic"]
TimeUnit = Literal["auto", "iso", "s", "ms", "us", "ns"]


@dataclass(frozen=True)
class RowRules:
    """How the raw values of one source are read."""

    event_types: dict[str, str] = field(default_factory=dict)
    """The source's value -> canonical event type; empty: the values are canonical already."""
    ignored_event_types: tuple[str, ...] = ()
    """The source's values whose rows are filtered, and counted, rather than rejected."""
    time_unit: TimeUnit = "auto"
    """What a number in a time column counts; `auto` reads ISO 8601 and seconds, `iso` refuses numbers."""
    time_format: str | None = None
    """A strptime pattern for text times that are not ISO 8601, such as `%d/%m/%Y %H:%M`."""


@dataclass(frozen=True)
class Source:
    """An opened log: each call of `chunks` or `catalogue` streams it again from its start."""

    chunks: Callable[[], Iterator[pl.DataFrame]]
    catalogue: Callable[[], Iterator[pl.DataFrame]] = lambda: iter(())
    rules: RowRules = RowRules()
    blocks: tuple[Callable[[], Iterator[pl.DataFrame]], ...] = ()
    """What `chunks` streams one after the other, each to be read apart; empty where it is one stream."""

    @classmethod
    def of_blocks(
        cls,
        blocks: Iterable[Callable[[], Iterator[pl.DataFrame]]],
        *,
        catalogue: Callable[[], Iterator[pl.DataFrame]] = lambda: iter(()),
        rules: RowRules = RowRules(),
    ) -> Self:
        """Returns the log that these blocks are, such as its files."""
        each = tuple(blocks)
        return cls(lambda: chain.from_iterable(block() for block in each), catalogue, rules, each)


def _read_place(value: Any) -> Place:
    if not isinstance(value, (str, Path, ObjectPath)):
        raise ValueError("a path or a URL is expected")
    try:
        return to_place(value) if isinstance(value, str) else value
    except ForecartError as error:  # pydantic says where in the configuration it stands
        raise ValueError(str(error)) from None


LogPlace = Annotated[
    Place,
    PlainValidator(_read_place, json_schema_input_type=str),
    PlainSerializer(str, return_type=str, when_used="json"),
]


class SourceConfig(BaseModel):
    """Where the log comes from and how its columns are called."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    adapter: Adapter = "files"
    """Which loader reads the log; `files` is your own data."""
    events: list[LogPlace] = Field(default_factory=list)
    """The event files, Parquet, CSV(.gz) or JSONL(.gz), read in this order; `s3://log/*.csv` by name."""
    catalogue: LogPlace | None = None
    """The product feed; Google Merchant column names are understood as they are."""
    data_folder: Path | None = None
    """For `complete_journey`: a folder with its Parquet files; without it the installed package is read."""
    synthetic: SyntheticConfig | None = None
    """For `synthetic`: the world to generate."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Canonical event column -> the name it has in the files; a name that agrees need not be given."""
    catalogue_columns: dict[str, str] = Field(default_factory=dict)
    """Canonical catalogue column -> the name it has in the feed."""
    constants: dict[str, str] = Field(default_factory=dict)
    """Canonical event column -> one value for every row, for a column the files lack."""
    event_types: dict[str, str] = Field(default_factory=dict)
    """The source's event type -> canonical event type; empty when they agree already."""
    ignored_event_types: list[str] = Field(default_factory=list)
    """The source's event types to leave out; their rows are counted as filtered."""
    time_unit: TimeUnit = "auto"
    """What a number in a time column counts; `auto` reads ISO 8601 and seconds since the epoch."""
    time_format: str | None = None
    """A strptime pattern, where times are text but not ISO 8601."""
    separator: str = Field(default=",", min_length=1, max_length=1)
    """What separates the fields of a CSV line; one record is one line."""

    @field_validator("event_types")
    @classmethod
    def _refuse_unknown_types(cls, value: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(value.values()) - set(c.EVENT_TYPES))
        if unknown:
            raise ValueError(f"event_types must map to one of {', '.join(c.EVENT_TYPES)}; {unknown} are not")
        return value

    @field_validator("columns", "constants")
    @classmethod
    def _refuse_unknown_event_columns(cls, value: dict[str, str]) -> dict[str, str]:
        return _refuse_unknown_columns(value, (*EVENT_COLUMNS, c.TITLE, c.CATEGORY, c.PRICE))

    @field_validator("catalogue_columns")
    @classmethod
    def _refuse_unknown_catalogue_columns(cls, value: dict[str, str]) -> dict[str, str]:
        return _refuse_unknown_columns(value, tuple(CATALOGUE_SCHEMA))

    @model_validator(mode="after")
    def _need_files(self) -> "SourceConfig":
        if self.adapter in ("files", "rees46", "tmall_2014") and not self.events:
            raise ValueError(f"adapter `{self.adapter}` needs at least one path in `events`, none was given")
        return self


class EventsConfig(BaseModel):
    """What the ingest accepts and how it lays the store out."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    num_partitions: int = Field(default=8, ge=1, le=4096)
    """Files of the store; one partition must fit in memory, so about one per GB of log or more."""
    max_rejected_share: float = Field(default=0.02, ge=0.0, le=1.0)
    """A log with a larger share of rejected rows stops the run; its quarantine is written all the same."""
    delivers_twice: bool = False
    """The log holds each event up to twice under different ids, as from a pixel and a server."""
    fingerprint_window_h: float = Field(default=48.0, gt=0.0)
    """With `delivers_twice`: two equal events at most this far apart are one."""
    require_consent: bool = False
    """Rows without a consent value are dropped too, not only those that deny it."""


def _refuse_unknown_columns(value: dict[str, str], known: tuple[str, ...]) -> dict[str, str]:
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise ValueError(f"keys must be canonical columns ({', '.join(known)}); {unknown} are not")
    return value
