"""The inventory of an ad server: read from a folder, changed live, read by requests as a snapshot.

`campaigns`, `ad_groups`, `ads` and perhaps `advertisers` are Parquet or JSON-lines files. A row that breaks
a rule is kept out, counted and told with its file and offset. An update makes a new snapshot and swaps one
reference, so that a request that is under way keeps the one it began with, and the next request sees the
change.
"""

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import polars as pl

from forecart.ads.rows import INPUTS, REMOVED, Ad, AdGroup, Advertiser, Campaign, parse_row
from forecart.ads.snapshot import Snapshot, compile_snapshot
from forecart.errors import DataError
from forecart.sequences.vocabulary import Vocabulary

_KINDS: Final[dict[str, Any]] = {
    "advertiser": Advertiser,
    "campaign": Campaign,
    "ad_group": AdGroup,
    "ad": Ad,
}
_FILES: Final = {"campaign": "campaigns", "ad_group": "ad_groups", "ad": "ads"}
_ADVERTISERS: Final = "advertisers"
_MAX_TOLD: Final = 1000
_REMEMBERED_BYTES: Final = 256


@dataclass(frozen=True)
class Rejected:
    """A row or an update that was kept out.

    Attributes:
        source: file.
        offset: of the row, from 0.
        reason: which rule it broke.
    """

    source: str
    offset: int
    reason: str


class Inventory:
    """Campaigns, ad groups and ads, and the snapshot of them that requests read.

    Args:
        advertisers: vocabulary that numbers advertisers, of the release that is served.
        items: vocabulary that numbers products.
    """

    def __init__(self, advertisers: Vocabulary, items: Vocabulary) -> None:
        self._vocabularies = advertisers, items
        self._rows: dict[str, dict[str, Any]] = {kind: {} for kind in _KINDS}
        self._status_unlisted: str | None = "active"
        self._lock = threading.Lock()
        self.rejected: list[Rejected] = []
        self.num_rejected = 0
        self.snapshot = self._compile(0)

    @classmethod
    def read(cls, folder: Path, *, advertisers: Vocabulary, items: Vocabulary) -> "Inventory":
        """Returns the inventory of a folder.

        Where it has a file of advertisers, one that is not in it is not active; without, all are.

        Raises:
            DataError: a file is missing or cannot be read at all.
        """
        inventory = cls(advertisers, items)
        files = dict(_FILES)
        if _find_file(folder, _ADVERTISERS) is not None:
            files["advertiser"], inventory._status_unlisted = _ADVERTISERS, None
        for kind, name in files.items():
            path = _find_file(folder, name)
            if path is None:
                raise DataError(f"an inventory has {name}.parquet or {name}.jsonl, neither is in {folder}")
            for offset, values in _read_rows(path):
                inventory._add(kind, values, source=path.name, offset=offset)
        inventory.snapshot = inventory._compile(1)
        return inventory

    def update(self, updates: Iterable[Mapping[str, Any]], *, source: str = "update") -> int:
        """Applies updates, in their order, as one change; returns how many were applied.

        An update names what it changes and how: `{"ad": "a7", "set": {"status": "paused"}}`, with `campaign`,
        `ad_group` or `ad`; `{"campaign": "c1", "set": {"spend_usd": 90.5}}`; `{"ad": "a8", "add": {...}}`
        with the other fields of a row; `{"ad": "a7", "remove": true}`. An `advertiser` with a campaign takes
        `set` of its status. One that breaks a rule is kept out and told.
        """
        return self.update_lines(enumerate(updates), source=source)

    def update_lines(self, lines: Iterable[tuple[int, Any]], *, source: str) -> int:
        """Applies updates like `update`, each with the number of its line, from 0, to be told by."""
        with self._lock:
            applied = sum(self._apply(one, source=source, offset=offset) for offset, one in lines)
            if applied:
                self.snapshot = self._compile(self.snapshot.version + 1)
        return applied

    def _compile(self, version: int) -> Snapshot:
        advertisers, items = self._vocabularies
        groups, ads = self._rows["ad_group"], self._rows["ad"]
        campaigns = {key: self._standing(campaign) for key, campaign in self._rows["campaign"].items()}
        return compile_snapshot(campaigns, groups, ads, advertisers=advertisers, items=items, version=version)

    def _standing(self, campaign: Campaign) -> Campaign:
        """Returns a campaign as its advertiser lets it stand: without a status where that is not active."""
        owner = self._rows["advertiser"].get(campaign.advertiser_id)
        status = self._status_unlisted if owner is None else owner.status
        return campaign if status == "active" else replace(campaign, status=None)

    def _add(self, kind: str, values: Any, *, source: str, offset: int) -> bool:
        try:
            if isinstance(values, DataError):
                raise values
            row = parse_row(_KINDS[kind], values)
            key: str = getattr(row, f"{kind}_id")
            if not _is_gone(self._rows[kind].get(key)):
                raise DataError(f"{kind}_id is unique, {key!r:.80} is there already")
        except DataError as error:
            self._reject(Rejected(source, offset, str(error)))
            return False
        self._rows[kind][key] = row
        return True

    def _apply(self, update: Any, *, source: str, offset: int) -> bool:
        try:
            kind, key, verb = _read_update(update)
            if kind == "advertiser" and verb != "set":
                raise DataError(f"an advertiser takes set of its status, {verb} arrived: pause it")
            if verb == "add":
                return self._add(kind, {f"{kind}_id": key, **update["add"]}, source=source, offset=offset)
            row = self._find(kind, key)
            if verb == "set":
                self._rows[kind][key] = _change(row, update["set"])
            elif kind == "campaign":
                del self._rows[kind][key]
            else:  # what was shown of it counts towards caps of those above
                self._rows[kind][key] = replace(row, status=REMOVED)
        except DataError as error:
            self._reject(Rejected(source, offset, str(error)))
            return False
        return True

    def _find(self, kind: str, key: str) -> Any:
        """Returns the row that an update is about."""
        row = self._rows[kind].get(key)
        if row is None and kind == "advertiser":
            campaigns = self._rows["campaign"].values()
            if any(campaign.advertiser_id == key for campaign in campaigns):
                return Advertiser(key, self._status_unlisted)
        if _is_gone(row):
            raise DataError(f"an update changes what is there, there is no {kind} {key!r:.80}")
        return row

    def _reject(self, rejected: Rejected) -> None:
        self.num_rejected += 1
        if len(self.rejected) < _MAX_TOLD:
            self.rejected.append(rejected)


class UpdateFollower:
    """Reads on in a file of updates, one JSON object a line, whenever it is polled.

    A last line without its end is left for the next poll. A file that is another one than before (replaced,
    shorter, or not with the bytes that were read last) is read from its beginning.

    Args:
        path: of the file, which need not be there yet.
        inventory: that is changed.
    """

    def __init__(self, path: Path, inventory: Inventory) -> None:
        self._path, self._inventory = path, inventory
        self._file: tuple[int, int] | None = None
        self._num_bytes, self._num_lines, self._last_read = 0, 0, b""

    def poll(self) -> int:
        """Applies what has been added; returns how many updates were applied."""
        try:
            with self._path.open("rb") as handle:
                whole, end, _ = self._read_on(handle).rpartition(b"\n")
        except FileNotFoundError:
            return 0
        if not end:
            return 0
        lines = whole.split(b"\n")
        numbered = [
            (self._num_lines + nth, _read_line(line)) for nth, line in enumerate(lines) if line.strip()
        ]
        self._num_lines += len(lines)
        self._num_bytes += len(whole) + len(end)
        self._last_read = (self._last_read + whole + end)[-_REMEMBERED_BYTES:]
        return self._inventory.update_lines(numbered, source=self._path.name)

    def _read_on(self, handle: BinaryIO) -> bytes:
        """Returns what was not read before."""
        stat = os.fstat(handle.fileno())
        file = stat.st_dev, stat.st_ino
        handle.seek(self._num_bytes - len(self._last_read))
        if file != self._file or handle.read(len(self._last_read)) != self._last_read:
            self._file = file
            self._num_bytes, self._num_lines, self._last_read = 0, 0, b""
            handle.seek(0)
        return handle.read()


def _read_update(update: Any) -> tuple[str, str, str]:
    if isinstance(update, DataError):
        raise update
    kinds = [kind for kind in _KINDS if isinstance(update, Mapping) and kind in update]
    verbs = [verb for verb in ("add", "set", "remove") if isinstance(update, Mapping) and verb in update]
    if len(kinds) != 1 or len(verbs) != 1 or len(update) != 2:
        raise DataError(
            "an update names one advertiser, campaign, ad_group or ad and one of add, set and remove, "
            f"{str(update)!r:.80} arrived"
        )
    kind, verb = kinds[0], verbs[0]
    if not isinstance(update[kind], str) or (verb != "remove" and not isinstance(update[verb], Mapping)):
        raise DataError(f"an id is a text and {verb} holds fields, {str(update)!r:.80} arrived")
    if verb == "remove" and update[verb] is not True:
        raise DataError(f"remove is true, {update[verb]!r:.80} arrived")
    return kind, update[kind], verb


def _is_gone(row: Any) -> bool:
    return row is None or row.status == REMOVED


def _change(row: Any, values: Mapping[str, Any]) -> Any:
    """Returns a row with some fields set, null ones too: parsed with the others left as they are.

    What was spent on a day says nothing without the day, so that setting the one forgets the other.
    """
    wanted = {name: value for name, value in values.items() if not name.endswith("_id")}
    if len(wanted) < len(values):
        raise DataError(f"ids do not change, {sorted(set(values) - set(wanted))[0]!r} was to be set")
    names = {
        field: value for field, value in asdict(row).items() if field.endswith("_id") and value is not None
    }
    if isinstance(row, Ad):
        names["bid_usd"] = row.bid_usd
    parsed = asdict(parse_row(type(row), {**names, **wanted}))
    fields = [INPUTS.get(name, name) for name in wanted]
    if "daily_spend_usd" in wanted and "daily_spend_on" not in wanted:
        fields.append("daily_spend_on")
    return replace(row, **{name: parsed[name] for name in fields})


def _find_file(folder: Path, name: str) -> Path | None:
    paths = (folder / f"{name}{suffix}" for suffix in (".parquet", ".jsonl"))
    return next((path for path in paths if path.is_file()), None)


def _read_rows(path: Path) -> Iterator[tuple[int, Any]]:
    return _read_parquet(path) if path.suffix == ".parquet" else _read_json_lines(path)


def _read_parquet(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} must be a Parquet file, it is not: {error}") from None
    yield from enumerate(table.iter_rows(named=True))


def _read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    lines = (line for line in path.read_bytes().splitlines())
    yield from ((offset, _read_line(line)) for offset, line in enumerate(lines) if line.strip())


def _read_line(line: bytes) -> Any:
    """Returns the object of a line, or the error that says why there is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return DataError(f"a line is a JSON object, {line[:80]!r} arrived")
    return value if isinstance(value, dict) else DataError(f"a line is a JSON object, {line[:80]!r} arrived")
