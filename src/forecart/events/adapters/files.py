"""Your own log: any number of Parquet, CSV and JSONL files, and a product feed, with a column mapping.

Columns that have their canonical name already need no mapping; a column that the files lack can be given as
one constant. Rows without an event id are told apart by file and row, and then the row also breaks ties in
time. When there is no feed but the log carries titles, categories or prices, the catalogue is drawn from the
log.
"""

from collections.abc import Iterator
from functools import partial

import polars as pl

from forecart import columns as c
from forecart.errors import DataError
from forecart.events.catalogue import find_catalogue_columns
from forecart.events.derived_catalogue import derive_catalogue
from forecart.events.readers import find_mapping, read_column_names, read_table
from forecart.events.schema import EVENT_COLUMNS, RowRules, Source, SourceConfig
from forecart.object_store import Place

_NEEDED = (c.USER_ID, c.OCCURRED_AT, c.EVENT_TYPE)
_DESCRIBING = (c.TITLE, c.CATEGORY, c.PRICE)
_ROWS_PER_FILE = 1 << 40


def open_files(config: SourceConfig) -> Source:
    """Opens the files that the configuration names.

    Raises:
        DataError: a file is missing, or has no column for the user, the time or the event type.
    """
    for path in config.events:
        _check_needed(path, _find_columns(path, config), config)
    return Source.of_blocks(
        [partial(_read_file, config, number) for number in range(len(config.events))],
        catalogue=lambda: _read_catalogue(config),
        rules=_read_rules(config),
    )


def _read_rules(config: SourceConfig) -> RowRules:
    return RowRules(
        event_types=config.event_types,
        ignored_event_types=tuple(config.ignored_event_types),
        time_unit=config.time_unit,
        time_format=config.time_format,
    )


def _find_columns(path: Place, config: SourceConfig, *, describing: bool = False) -> dict[str, str]:
    available = read_column_names(path, separator=config.separator)
    known = (*EVENT_COLUMNS, *_DESCRIBING) if describing else EVENT_COLUMNS
    columns = {name: source for name, source in config.columns.items() if name in known}
    found = find_mapping(available, columns, known)
    return {
        name: source for name, source in found.items() if name not in config.constants and name != c.CONTEXT
    }


def _check_needed(path: Place, columns: dict[str, str], config: SourceConfig) -> None:
    missing = [name for name in _NEEDED if name not in columns and name not in config.constants]
    if missing:
        names = ", ".join(read_column_names(path, separator=config.separator))
        raise DataError(
            f"a log needs {', '.join(missing)}, {path.name} has {names}; "
            "map them in `columns` or give `constants`"
        )


def _read_file(config: SourceConfig, number: int) -> Iterator[pl.DataFrame]:
    path = config.events[number]
    columns = _find_columns(path, config)
    for chunk in read_table(path, columns, separator=config.separator):
        yield add_row_ids(chunk.with_columns(_constants(config)), file_number=number)


def _constants(config: SourceConfig) -> list[pl.Expr]:
    return [pl.lit(value).alias(name) for name, value in config.constants.items()]


def add_row_ids(chunk: pl.DataFrame, *, file_number: int) -> pl.DataFrame:
    """Returns the chunk with an event id and an ordinal made of file and row, where it has no event id."""
    if c.EVENT_ID in chunk.columns:
        return chunk
    event_id = pl.format("{}-{}", pl.lit(file_number), pl.col(c.OFFSET)).alias(c.EVENT_ID)
    ordinal = (pl.col(c.OFFSET) + file_number * _ROWS_PER_FILE).alias(c.ORDINAL)
    return chunk.with_columns([event_id] if c.ORDINAL in chunk.columns else [event_id, ordinal])


def _read_catalogue(config: SourceConfig) -> Iterator[pl.DataFrame]:
    if config.catalogue is not None:
        available = read_column_names(config.catalogue, separator=config.separator)
        columns = find_catalogue_columns(available, config.catalogue_columns)
        yield from read_table(config.catalogue, columns, separator=config.separator)
        return
    described = [_find_columns(path, config, describing=True) for path in config.events]
    if all(c.ITEM_ID in columns and set(_DESCRIBING) & set(columns) for columns in described):
        yield from derive_catalogue(_read_described(config), rules=_read_rules(config))


def _read_described(config: SourceConfig) -> Iterator[pl.DataFrame]:
    for path in config.events:
        columns = _find_columns(path, config, describing=True)
        for chunk in read_table(path, columns, separator=config.separator):
            yield chunk.with_columns(_constants(config))
