"""Places in an object store, named by URLs such as `s3://bucket/runs/x`, and what is done with bytes there.

Goes through fsspec, which comes with the extra `s3` and is imported when a URL is first used. Endpoint and
credentials are those of the environment (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, profiles, `FSSPEC_S3_...`):
a URL that carries any is refused, because URLs are written into configurations and manifests. An object is
there whole or not at all; nothing is ever appended to one.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar, cast
from urllib.parse import urlsplit

from forecart.errors import ConfigError, DataError, ForecartError, StoreError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Name = TypeVar("Name")
Result = TypeVar("Result")
_WILD: Final = "*?["
_NUM_THREADS: Final = 4
_BUFFER_BYTES: Final = 1 << 20
_EXTRAS: Final = {"s3": "forecart[s3]"}
"""Which extra brings the client of a scheme; of another one the client's own package must be installed."""


@dataclass(frozen=True)
class ObjectPath:
    """An object, or what the names of several begin with; the part of `pathlib.Path` that readers need.

    Attributes:
        url: scheme, bucket and name.
    """

    url: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if not parts.scheme or not parts.netloc:
            raise ConfigError(f"a URL of an object names scheme and bucket, {self.url!r:.80} does not")
        if "@" in parts.netloc:
            raise ConfigError("a URL must not carry credentials: give them in the environment of the process")

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "ObjectPath":
        return ObjectPath(f"{self.url.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last part of its name."""
        return self._pure.name

    @property
    def suffix(self) -> str:
        """The ending of its name."""
        return self._pure.suffix

    @property
    def stem(self) -> str:
        """The last part of its name without the ending."""
        return self._pure.stem

    @property
    def is_wild(self) -> bool:
        """Whether it is a pattern."""
        return any(character in self.url for character in _WILD)

    def resolve(self) -> "ObjectPath":
        """Returns itself: a URL is relative to nothing."""
        return self

    def is_file(self) -> bool:
        """Whether there is such an object."""
        with self._reached():
            return bool(self._system.isfile(self._key))

    def open(self, mode: str = "rb") -> BinaryIO:
        """Opens it for reading, a piece at a time."""
        with self._reached():
            source = self._system.open(self._key, mode)
        return cast(BinaryIO, io.BufferedReader(_Reader(self, source), _BUFFER_BYTES))

    def read_bytes(self) -> bytes | None:
        """Returns the bytes, None where there is no such object."""
        try:
            with self._reached():
                return bytes(self._system.cat_file(self._key))
        except FileNotFoundError:
            return None

    def write_bytes(self, data: bytes) -> None:
        """Puts bytes in place of what is there."""
        with self._reached():
            self._system.pipe_file(self._key, data)

    def create(self, data: bytes) -> bool:
        """Puts bytes where nothing is yet, and says whether nothing was: on S3 one of two succeeds."""
        try:
            with self._reached():
                self._system.pipe_file(self._key, data, mode="create")
        except FileExistsError:
            return False
        return True

    def upload(self, path: Path) -> None:
        """Puts the bytes of a file in place of what is there."""
        with self._reached():
            self._system.put_file(str(path), self._key)

    def download(self, path: Path) -> None:
        """Writes the bytes to a file.

        Raises:
            FileNotFoundError: there is no such object.
        """
        with self._reached():
            self._system.get_file(self._key, str(path))

    def remove(self) -> None:
        """Removes it; one that is not there is nothing to remove."""
        try:
            with self._reached():
                self._system.rm_file(self._key)
        except FileNotFoundError:
            return

    def sizes(self) -> dict[str, int]:
        """Returns the bytes of every object below it, by what its name has after this one, sorted."""
        try:
            with self._reached():
                found = self._system.find(self._key, detail=True)
        except FileNotFoundError:
            return {}
        start = len(self._key.rstrip("/")) + 1
        return {name[start:]: int(found[name]["size"]) for name in sorted(found) if len(name) > start}

    def find(self) -> list["ObjectPath"]:
        """Returns the objects that the pattern fits, by name."""
        with self._reached():
            names = sorted(self._system.glob(self._key))
        return [ObjectPath(self._system.unstrip_protocol(name)) for name in names]

    def describe(self) -> tuple[str, int, str]:
        """Returns URL, size and what changes with the content.

        Raises:
            FileNotFoundError: there is no such object.
        """
        with self._reached():
            facts = self._system.info(self._key)
        mark = next(
            (facts[name] for name in ("ETag", "etag", "md5Hash", "LastModified") if name in facts), ""
        )
        return self.url, int(facts["size"] or 0), str(mark)

    @cached_property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(urlsplit(self.url).path)

    @cached_property
    def _system(self) -> Any:
        return _open_system(self.url)

    @cached_property
    def _key(self) -> str:
        return str(self._system._strip_protocol(self.url))

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Turns what a client says of a store that does not answer into one error."""
        try:
            yield
        except (FileNotFoundError, FileExistsError, ForecartError):
            raise
        # Every client has exceptions of its own, which nothing here may import.
        except Exception as error:
            raise StoreError(
                f"the store of {self.url} must answer, it does not: {type(error).__name__}: {error}"
            ) from None


class _Reader(io.RawIOBase):
    """An open object whose store may fail at every read."""

    def __init__(self, place: ObjectPath, source: Any) -> None:
        self._place, self._source = place, source

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        with self._place._reached():
            data = self._source.read(len(view))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._source.seek(offset, whence))

    def tell(self) -> int:
        return int(self._source.tell())

    def close(self) -> None:
        self._source.close()
        super().close()


Place = Path | ObjectPath
"""A file of the disk or an object of a store."""


def is_url(text: str) -> bool:
    """Whether a text names a place in an object store, and not on the disk."""
    return "://" in text and not text.startswith("file://")


def to_place(given: str | Place) -> Place:
    """Returns what a person wrote as a place."""
    if isinstance(given, Path | ObjectPath):
        return given
    return ObjectPath(given) if is_url(given) else Path(given.removeprefix("file://"))


def expand(places: Iterable[Place]) -> list[Place]:
    """Returns files and objects with every pattern of a store replaced by what it fits, sorted by name.

    Raises:
        DataError: it fits nothing.
    """
    found: list[Place] = []
    for place in places:
        if isinstance(place, Path) or not place.is_wild:
            found.append(place)
            continue
        objects = place.find()
        if not objects:
            raise DataError(f"a pattern must fit at least one object, {place} fits none")
        found += objects
    return found


def describe_objects(places: Iterable[Place | None]) -> list[tuple[str, int, str]]:
    """Returns URL, size and mark of the objects among these that exist, so that one that grew is seen."""
    found = []
    for place in expand(one for one in places if isinstance(one, ObjectPath)):
        if isinstance(place, ObjectPath) and place.is_file():
            found.append(place.describe())
    return found


def for_each(act: Callable[[Name], Result], names: Iterable[Name]) -> list[Result]:
    """Does something to every name, a few at a time; returns what came of each, or raises the first error."""
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        return list(threads.map(act, names))


def measure(place: Place) -> int:
    """Returns the bytes of a file or an object."""
    return place.stat().st_size if isinstance(place, Path) else place.describe()[1]


def _open_system(url: str) -> Any:
    scheme = urlsplit(url).scheme
    try:
        import fsspec

        # Listings are never remembered: another machine may have written since.
        return fsspec.url_to_fs(url, use_listings_cache=False)[0]
    except ImportError as error:
        missing = error.name or "a client"
        package = _EXTRAS.get(scheme, missing)
        raise ForecartError(
            f"{scheme}:// needs {missing}, which is not installed; run: pip install '{package}'"
        ) from None
    except ValueError as error:
        raise ConfigError(f"a place is a path or a URL such as s3://bucket/name: {error}") from None
