"""From the events of a run to vocabularies, histories and the facts of each item, all as of one moment.

Takes the `events` folder and a moment `read_until_us`; gives a `sequences` folder. Events that arrived at or
after that moment are never read, so the folder is the same bytes whether they exist or not. The log is gone
through twice, a partition a task: once for the ids and when they first arrived, once for the histories.
The catalogue is static by declaration: all of it is read, whatever the moment.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from forecart import artifacts, columns
from forecart.engine.contract import Engine, Given, Work, in_order
from forecart.engine.local import LocalEngine
from forecart.errors import ArtifactError, DataError
from forecart.sequences.countries import encode_countries
from forecart.sequences.histories import (
    LENGTHS,
    Histories,
    Placed,
    Places,
    Vocabularies,
    place_events,
    write_histories,
)
from forecart.sequences.vocabulary import FIRST_INDEX, PADDING_INDEX, UNKNOWN_INDEX, Vocabulary

CATEGORY_SEPARATOR: Final = " > "

_SPACES: Final = ("users", "advertisers", "items", "categories")
_NUM_EVENTS: Final = "num_events"
# The order of arrival; the last two settle ties the same way whatever the partitions are.
_ARRIVAL_ORDER: Final = [columns.ARRIVED_AT, columns.OCCURRED_AT, columns.ORDINAL, columns.EVENT_ID]
_HISTORY_COLUMNS: Final = [
    columns.USER_ID,
    columns.EVENT_TYPE,
    columns.ADVERTISER_ID,
    columns.ITEM_ID,
    columns.OCCURRED_AT,
    columns.ARRIVED_AT,
    columns.VALUE,
    columns.QUANTITY,
]
# Raised when the same inputs give other files: since 3 users have a country.
_FORMAT: Final = 3
_SURVEY_COLUMNS: Final = [
    columns.USER_ID,
    columns.ADVERTISER_ID,
    columns.ITEM_ID,
    columns.COUNTRY,
    *_ARRIVAL_ORDER,
]


@dataclass(frozen=True, eq=False)
class Sequences:
    """A finished `sequences` folder, mapped into memory. N items by item_index (0 padding, 1 unknown).

    Attributes:
        histories: the events of every user.
        users: the vocabulary of user ids.
        advertisers: the vocabulary of advertiser ids.
        items: the vocabulary of item ids.
        categories: the vocabulary of category path prefixes, "a" and "a > b" for an item of "a > b".
        item_advertiser: [N], advertiser_index of each item.
        item_category: [N, 2], category index of the top level and of the whole path; 1 where unknown.
        item_price: [N], NaN where no catalogue read so far has one.
        user_country: [U], of the latest event that names one (`countries.py`); 0 where none does.
        manifest: counts, vocabularies and `read_until_us`.
    """

    histories: Histories
    users: Vocabulary
    advertisers: Vocabulary
    items: Vocabulary
    categories: Vocabulary
    item_advertiser: npt.NDArray[np.int32]
    item_category: npt.NDArray[np.int32]
    item_price: npt.NDArray[np.float32]
    user_country: npt.NDArray[np.uint16]
    manifest: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Maps a finished folder into memory.

        Raises:
            ArtifactError: the folder is not complete or a file is missing.
        """
        manifest = artifacts.read_json(folder / artifacts.MANIFEST)
        return cls(
            histories=Histories.load(folder / "histories"),
            **{name: Vocabulary.load(folder / "vocabularies" / name) for name in _SPACES},
            item_advertiser=artifacts.read_npy(folder / "item_advertiser.npy"),
            item_category=artifacts.read_npy(folder / "categories.npy"),
            item_price=artifacts.read_npy(folder / "item_price.npy"),
            user_country=artifacts.read_npy(folder / "user_country.npy"),
            manifest=manifest,
        )


def sequences_key(events_folder: Path, *, read_until_us: int, previous: Path | None = None) -> str:
    """Returns the key that a `sequences` folder built from these inputs is marked with.

    Raises:
        ArtifactError: `events_folder` or `previous` is not a finished stage.
    """
    inputs = [artifacts.read_json(path / artifacts.MANIFEST) for path in (events_folder, previous) if path]
    files = [one["files"] for one in inputs]
    return artifacts.hash_value({"inputs": files, "read_until_us": read_until_us, "format": _FORMAT})


def build_sequences(
    events_folder: Path,
    folder: Path,
    *,
    read_until_us: int,
    previous: Path | None = None,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Writes vocabularies, histories and item facts to `folder` and returns its manifest.

    Indices: the catalogue's ids first, sorted, then the ids of events by first arrival (ties by id); so the
    vocabularies of an earlier moment are prefixes of those of a later one. An item that the catalogue lacks
    takes its advertiser from its first event.

    Args:
        events_folder: a finished `events` folder.
        folder: where the output goes; an unfinished or older one is overwritten.
        read_until_us: events that arrived at or after this moment are not read.
        previous: a `sequences` folder whose vocabularies are continued, so that its ids keep their indices.
        engine: whose workers read the partitions; this process does when not given.

    Raises:
        ArtifactError: an input folder is not a finished stage, or its events are out of order.
        DataError: no event arrived before `read_until_us`.
    """
    key = sequences_key(events_folder, read_until_us=read_until_us, previous=previous)
    (folder / artifacts.MANIFEST).unlink(missing_ok=True)
    before = _load_previous(previous) if previous else None
    catalogue = _read_catalogue(events_folder)
    parts, engine = _list_parts(events_folder, read_until_us), engine or LocalEngine()
    seen = _survey(parts, engine)
    spaces = _build_vocabularies(catalogue, seen, before)
    for name, vocabulary in spaces.items():
        vocabulary.save(folder / "vocabularies" / name)
    facts = _item_facts(catalogue, first_events=seen.items, spaces=spaces, before=before)
    for name, values in facts.items():
        artifacts.write_npy(folder / f"{name}.npy", values)
    user_index = spaces["users"].index(seen.users[columns.USER_ID])
    country = np.zeros(len(spaces["users"]), np.uint16)
    country[user_index] = encode_countries(seen.users[columns.COUNTRY])
    artifacts.write_npy(folder / "user_country.npy", country)
    length = np.zeros(len(spaces["users"]), np.int64)
    length[user_index] = seen.users[_NUM_EVENTS].to_numpy()
    places = Places.of(Vocabularies(spaces["users"], spaces["advertisers"], spaces["items"]), length)
    artifacts.write_npy(folder / "histories" / LENGTHS, length)
    work = Work("building histories", ReopenedPlaces(folder.absolute(), key), place_part, here=places)
    placed = (done.value for done in engine.run(work, parts))
    write_histories(placed, folder / "histories", places=places)
    manifest = {
        "format": _FORMAT,
        "read_until_us": read_until_us,
        "num_events": int(length.sum()),
        "vocabularies": {name: vocabulary.describe() for name, vocabulary in spaces.items()},
    }
    artifacts.complete_stage(folder, key, manifest)
    return manifest


def _load_previous(folder: Path) -> Sequences:
    before = Sequences.load(folder)
    if before.manifest.get("format") != _FORMAT:
        raise ArtifactError(
            f"vocabularies are continued from sequences of format {_FORMAT}, {folder} is of format "
            f"{before.manifest.get('format')}: build them again"
        )
    return before


@dataclass(frozen=True)
class Part:
    """A partition of the events, up to a moment."""

    path: Path
    read_until_us: int

    def read(self, names: list[str]) -> pl.DataFrame:
        """Returns columns of its events."""
        is_read = pl.col(columns.ARRIVED_AT) < pl.lit(self.read_until_us).cast(pl.Datetime("us", "UTC"))
        return pl.scan_parquet(self.path).filter(is_read).select(names).collect()


def _list_parts(events_folder: Path, read_until_us: int) -> list[Part]:
    paths = sorted(events_folder.absolute().glob("part-*.parquet"))
    if not paths:
        raise ArtifactError(
            f"event partitions (part-*.parquet) were expected in {events_folder}, none are there"
        )
    return [Part(path, read_until_us) for path in paths]


@dataclass(frozen=True)
class ReopenedPlaces:
    """Opens what events are placed by in a worker, from an unfinished `sequences` folder of a key."""

    folder: Path
    key: str

    def __call__(self) -> Places:
        """Returns vocabularies and lengths."""
        spaces = [Vocabulary.load(self.folder / "vocabularies" / name) for name in _SPACES[:3]]
        return Places.of(Vocabularies(*spaces), artifacts.read_npy(self.folder / "histories" / LENGTHS))


def place_part(places: Places, part: Part) -> Placed:
    """Returns the events of a partition as they are in the histories."""
    return place_events(part.read(_HISTORY_COLUMNS), places)


def _read_catalogue(events_folder: Path) -> pl.DataFrame:
    names = [columns.ITEM_ID, columns.ADVERTISER_ID, columns.CATEGORY, columns.PRICE]
    category, price = pl.col(columns.CATEGORY), pl.col(columns.PRICE).cast(pl.Float32)
    catalogue = pl.read_parquet(events_folder / "catalogue.parquet", columns=names)
    return catalogue.sort(columns.ITEM_ID).with_columns(
        pl.when(category != "").then(category),
        pl.when(price.is_finite() & (price > 0)).then(price),
    )


@dataclass(frozen=True)
class _Seen:
    """The ids of the events read: users and advertisers with first arrival, items with their first event."""

    users: pl.DataFrame
    advertisers: pl.DataFrame
    items: pl.DataFrame


def survey_part(_: None, part: Part) -> _Seen:
    """Returns the ids of the events of a partition."""
    events = part.read(_SURVEY_COLUMNS)
    first_arrival = pl.col(columns.ARRIVED_AT).min()
    country = pl.col(columns.COUNTRY).sort_by(_ARRIVAL_ORDER).drop_nulls().last()
    users = events.group_by(columns.USER_ID).agg(first_arrival, pl.len().alias(_NUM_EVENTS), country)
    item = events.filter(pl.col(columns.ITEM_ID).is_not_null())
    item = item.select(columns.ITEM_ID, columns.ADVERTISER_ID, *_ARRIVAL_ORDER)
    return _Seen(
        users,
        events.group_by(columns.ADVERTISER_ID).agg(first_arrival),
        _first_of(None, item, columns.ITEM_ID, _ARRIVAL_ORDER),
    )


def _survey(parts: list[Part], engine: Engine) -> _Seen:
    users: list[pl.DataFrame] = []
    advertisers: pl.DataFrame | None = None
    items: pl.DataFrame | None = None
    for seen in in_order(engine.run(Work("surveying events", Given(None), survey_part), parts)):
        users.append(seen.users)
        advertisers = _first_of(advertisers, seen.advertisers, columns.ADVERTISER_ID, [columns.ARRIVED_AT])
        items = _first_of(items, seen.items, columns.ITEM_ID, _ARRIVAL_ORDER)
    all_users = pl.concat(users)
    if all_users.is_empty() or advertisers is None or items is None:
        raise DataError(
            f"an event that arrived before {parts[0].read_until_us} us was expected, none did: "
            "set a later cut"
        )
    if all_users[columns.USER_ID].is_duplicated().any():
        raise ArtifactError("a user's events must be in one partition, some are in two: ingest them again")
    return _Seen(all_users, advertisers, items)


def _first_of(known: pl.DataFrame | None, found: pl.DataFrame, id_: str, order: list[str]) -> pl.DataFrame:
    """Returns the first row, in `order`, of each id of both frames."""
    both = found if known is None else pl.concat([known, found])
    return both.sort(order).unique(id_, keep="first", maintain_order=True)


def _build_vocabularies(
    catalogue: pl.DataFrame, seen: _Seen, before: Sequences | None
) -> dict[str, Vocabulary]:
    catalogue_advertisers = catalogue[columns.ADVERTISER_ID].unique().sort()
    ids = {
        "users": _by_first_arrival(seen.users, columns.USER_ID),
        "advertisers": pl.concat(
            [catalogue_advertisers, _by_first_arrival(seen.advertisers, columns.ADVERTISER_ID)]
        ),
        "items": pl.concat([catalogue[columns.ITEM_ID], _by_first_arrival(seen.items, columns.ITEM_ID)]),
        "categories": _category_prefixes(catalogue[columns.CATEGORY]),
    }
    if before is None:
        return {name: Vocabulary.build(series) for name, series in ids.items()}
    return {name: getattr(before, name).append(series) for name, series in ids.items()}


def _by_first_arrival(seen: pl.DataFrame, id_: str) -> pl.Series:
    return seen.sort(columns.ARRIVED_AT, id_)[id_]


def _category_prefixes(paths: pl.Series) -> pl.Series:
    levels = paths.drop_nulls().unique().str.split(CATEGORY_SEPARATOR)
    depths = range(1, max(levels.list.len().to_list(), default=0) + 1)
    prefixes = [levels.list.head(depth).list.join(CATEGORY_SEPARATOR) for depth in depths]
    both = pl.concat([pl.Series([], dtype=pl.String), *(prefix.rename("") for prefix in prefixes)])
    return both.filter(both != "").unique().sort()


def _item_facts(
    catalogue: pl.DataFrame,
    *,
    first_events: pl.DataFrame,
    spaces: dict[str, Vocabulary],
    before: Sequences | None,
) -> dict[str, npt.NDArray[Any]]:
    """Returns what is known of each item; the catalogue wins over `before`, and `before` over events."""
    items, advertisers = spaces["items"], spaces["advertisers"]
    advertiser = np.full(len(items), UNKNOWN_INDEX, np.int32)
    category = np.full((len(items), 2), UNKNOWN_INDEX, np.int32)
    price = np.full(len(items), np.nan, np.float32)
    from_events = items.index(first_events[columns.ITEM_ID])
    advertiser[from_events] = advertisers.index(first_events[columns.ADVERTISER_ID])
    if before is not None:
        known = slice(FIRST_INDEX, len(before.items))
        advertiser[known] = before.item_advertiser[known]
        category[known] = before.item_category[known]
        price[known] = before.item_price[known]
    listed = items.index(catalogue[columns.ITEM_ID])
    advertiser[listed] = advertisers.index(catalogue[columns.ADVERTISER_ID])
    category[listed] = _category_indices(catalogue[columns.CATEGORY], spaces["categories"])
    listed_price = _floats(catalogue[columns.PRICE])
    price[listed] = np.where(np.isnan(listed_price), price[listed], listed_price)
    advertiser[PADDING_INDEX], category[PADDING_INDEX] = PADDING_INDEX, PADDING_INDEX
    return {"item_advertiser": advertiser, "categories": category, "item_price": price}


def _floats(series: pl.Series) -> npt.NDArray[np.float32]:
    values: npt.NDArray[np.float32] = series.fill_null(float("nan")).to_numpy()
    return values


def _category_indices(paths: pl.Series, categories: Vocabulary) -> npt.NDArray[np.int32]:
    """Returns [n, 2], the index of each path's top level and of the whole path; 1 where there is none."""
    top = paths.str.split(CATEGORY_SEPARATOR).list.first()
    both = np.stack([categories.index(top), categories.index(paths)], axis=1)
    return np.maximum(both, UNKNOWN_INDEX)
