"""A log of small objects in a store, numbered from 1: whoever adds the next one first has added it.

An object store cannot append to an object or compare before it replaces one, but it can refuse to create what
is there already (on S3 a PUT with `If-None-Match: *`). So what changes is never replaced: number n+1 is
created, of two who try one succeeds, and a reader asks for the one after the last that it knows.
"""

from typing import Final

from forecart.object_store import ObjectPath, for_each

_DIGITS: Final = 12


class NumberedLog:
    """The objects `000000000001`, `000000000002`, ... below a place.

    Args:
        place: what their names begin with.
    """

    def __init__(self, place: ObjectPath) -> None:
        self._place = place
        self.last = 0
        """Number of the last one that was read."""

    def add(self, number: int, data: bytes) -> bool:
        """Adds the one of a number, and says whether nobody else had."""
        return self._at(number).create(data)

    def append(self, data: bytes) -> None:
        """Adds one after the last, whoever else adds meanwhile."""
        number = self.last + 1
        while not self.add(number, data):
            number += 1

    def read_new(self) -> list[bytes]:
        """Returns those added since the last call, in order."""
        found = [] if self.last else self._read_listed()
        while (data := self._at(self.last + 1).read_bytes()) is not None:
            found.append(data)
            self.last += 1
        return found

    def skip_to_last(self) -> None:
        """Passes over all but the last one, so that the next `read_new` begins with that."""
        self.last = max(max(self._numbers(), default=0) - 1, self.last, 0)

    def _read_listed(self) -> list[bytes]:
        """Returns what is there at the beginning, several at a time: it may be much."""
        numbers = self._numbers()
        found = for_each(lambda number: self._at(number).read_bytes(), numbers)
        self.last = max(numbers, default=0)
        return [data for data in found if data is not None]

    def _numbers(self) -> list[int]:
        return [int(name) for name in self._place.sizes() if name.isdigit() and len(name) == _DIGITS]

    def _at(self, number: int) -> ObjectPath:
        return self._place / f"{number:0{_DIGITS}d}"
