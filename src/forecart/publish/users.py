"""The users of a release: who is in it, and each user's record.

A vocabulary of user ids beside one file of records in the same order, both mapped into memory: a lookup is a
search in the vocabulary and a slice of the file, from any number of processes at once.
"""

import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from forecart import artifacts
from forecart.errors import ArtifactError
from forecart.publish.records import RecordLayout, hash_user, seal, view_bytes
from forecart.sequences.vocabulary import FIRST_INDEX, Vocabulary

_VOCABULARY: Final = "vocabulary"
_RECORDS: Final = "records.bin"
_BLOCK_USERS: Final = 4096


def write_users(
    folder: Path,
    users: Vocabulary,
    blocks: Iterable[npt.NDArray[Any]],
    layout: RecordLayout,
) -> None:
    """Writes the table, block by block, so that a population need not fit into memory.

    Args:
        folder: of the table.
        users: whose records come, in the order of their indices.
        blocks: records of `layout`, without the name of their user and not sealed yet.
        layout: of the records.

    Raises:
        ArtifactError: there are more or fewer records than users.
    """
    num_written = 0

    def name(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        first = FIRST_INDEX + num_written
        ids = users.ids(np.arange(first, min(first + len(block), len(users))))
        block["user"][: len(ids)] = [hash_user(user_id) for user_id in ids]
        return block

    def write(temporary: Path) -> None:
        nonlocal num_written
        with temporary.open("wb") as handle:
            for block in blocks:
                handle.write(view_bytes(seal(name(block))))
                num_written += len(block)

    users.save(folder / _VOCABULARY)
    artifacts.write_atomically(folder / _RECORDS, write)
    if num_written != users.num_ids:
        raise ArtifactError(f"a release has a record for each of {users.num_ids} users, {num_written} came")


@dataclass(frozen=True, eq=False)
class UserTable:
    """The table of a release, open for reading.

    Attributes:
        users: ids of the users.
        layout: of the records.
        records: the bytes of all records in the order of the ids; None where there is no user.
    """

    users: Vocabulary
    layout: RecordLayout
    records: mmap.mmap | None

    @classmethod
    def open(cls, folder: Path, layout: RecordLayout) -> "UserTable":
        """Maps a table into memory.

        Raises:
            ArtifactError: a file is missing, or the files do not belong together.
        """
        users, path = Vocabulary.load(folder / _VOCABULARY), folder / _RECORDS
        wanted = users.num_ids * layout.dtype.itemsize
        try:
            with path.open("rb") as handle:
                size = os.fstat(handle.fileno()).st_size
                mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) if size else None
        except FileNotFoundError:
            raise ArtifactError(f"records were expected at {path}, none are there") from None
        if size != wanted:
            raise ArtifactError(f"{path} must hold {wanted} bytes, it holds {size}: publish it again")
        return cls(users, layout, mapped)

    def read(self, user_id: str) -> bytes | None:
        """Returns the record of a user, None for a user who is not in the release."""
        index = self.users.find(user_id)
        if index < FIRST_INDEX or self.records is None:
            return None
        start = (index - FIRST_INDEX) * self.layout.dtype.itemsize
        return self.records[start : start + self.layout.dtype.itemsize]

    def blocks(self) -> Iterator[tuple[list[str], npt.NDArray[Any]]]:
        """Returns ids and records of some users after others, in the order of their indices."""
        for first in range(FIRST_INDEX, len(self.users), _BLOCK_USERS):
            index = np.arange(first, min(first + _BLOCK_USERS, len(self.users)))
            start, size = (first - FIRST_INDEX) * self.layout.dtype.itemsize, self.layout.dtype.itemsize
            assert self.records is not None
            raw = self.records[start : start + len(index) * size]
            yield self.users.ids(index), np.frombuffer(raw, self.layout.dtype)
            # What has been read is not read again: its pages need not stay in this process.
            self.records.madvise(mmap.MADV_DONTNEED)
