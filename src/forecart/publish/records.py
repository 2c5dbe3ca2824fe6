"""A user's record: everything of a user that is served, as bytes of one fixed size.

Takes arrays of candidates; gives the bytes that every store keeps, and reads them back. A record carries
whose it is, the release it belongs to, the embedding space of its vector, the moment up to which the history
was read, and a checksum over all of it, so that a reader can refuse what is damaged, of another release, or
of another user: a connection that lost count of its answers gives good records to the wrong people.
"""

import hashlib
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from forecart.errors import SkewError, StoreError

Kind = Literal["advertiser", "item"]
PADDING: Final = 0
"""Candidate index of a place that a short list leaves empty; lists end there."""
_CRC_BYTES: Final = 4
_HEADER: Final = struct.Struct("<IIHHQQq")
"""The fields before the lists; structured types are slow to take apart one record at a time."""


@dataclass(frozen=True)
class RecordLayout:
    """The sizes that fix a record's bytes.

    Attributes:
        num_advertisers: places in the list of advertisers, K.
        num_items: places in the list of products, P.
        width: of the user's vector, D; 0 where there is none.
    """

    num_advertisers: int
    num_items: int
    width: int

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """The record as a structured type: little-endian, and without gaps, whose bytes nobody would set."""
        k, p, d = self.num_advertisers, self.num_items, self.width
        fields: list[Any] = [
            ("crc32", "<u4"),
            ("user", "<u4"),
            ("num_advertisers", "<u2"),
            ("num_items", "<u2"),
            ("release", "<u8"),
            ("space", "<u8"),
            ("as_of_us", "<i8"),
            ("advertiser_index", "<i4", (k,)),
            ("advertiser_score", "<f4", (k,)),
            ("item_index", "<i4", (p,)),
            ("item_score", "<f4", (p,)),
            ("vector", "<f2", (d,)),
            ("is_repeat_advertiser", "?", (k,)),
            ("is_repeat_item", "?", (p,)),
        ]
        return np.dtype(fields)

    @cached_property
    def places(self) -> dict[str, tuple[np.dtype[Any], int]]:
        """By field: the type of its elements and where it begins."""
        fields: Any = self.dtype.fields
        return {name: (field[0].base, field[1]) for name, field in fields.items()}

    @cached_property
    def list_places(self) -> dict[str, list[tuple[np.dtype[Any], int]]]:
        """By kind of candidate: the places of what `CandidateList` has, in its order."""
        return {
            kind: [self.places[name] for name in (f"{kind}_index", f"{kind}_score", f"is_repeat_{kind}")]
            for kind in ("advertiser", "item")
        }

    def empty(self, num_users: int) -> npt.NDArray[Any]:
        """Returns records with nothing in them, [num_users]."""
        return np.zeros(num_users, self.dtype)

    def describe(self) -> dict[str, int]:
        """Returns the sizes as plain values."""
        return {
            "num_advertisers": self.num_advertisers,
            "num_items": self.num_items,
            "width": self.width,
        }


@dataclass(slots=True, eq=False)
class CandidateList:
    """A user's candidates, best first.

    Attributes:
        index: [n] int32, in the vocabulary of the release.
        score: [n] float32.
        is_repeat: [n] bool, the user converted with it before.
    """

    index: npt.NDArray[np.int32]
    score: npt.NDArray[np.float32]
    is_repeat: npt.NDArray[np.bool_]


@dataclass(slots=True, eq=False)
class UserRecord:
    """A record that was found whole. Its lists are read when they are asked for: a request seldom needs all.

    Attributes:
        as_of_us: up to when the user's history was read, microseconds since the epoch.
        payload: the bytes of the record.
        layout: of the bytes.
        num_advertisers: length of the list of advertisers.
        num_items: length of the list of products.
    """

    as_of_us: int
    payload: bytes
    layout: RecordLayout
    num_advertisers: int
    num_items: int

    @property
    def advertisers(self) -> CandidateList:
        """The list of advertisers."""
        return CandidateList(*self.read("advertiser"))

    @property
    def items(self) -> CandidateList:
        """The list of products."""
        return CandidateList(*self.read("item"))

    @property
    def vector(self) -> npt.NDArray[np.float16]:
        """[D], the user's vector in the embedding space of the release."""
        dtype, offset = self.layout.places["vector"]
        return np.frombuffer(self.payload, dtype, self.layout.width, offset)

    def read(self, kind: Kind) -> list[npt.NDArray[Any]]:
        """Returns the columns of a list, those of `CandidateList`."""
        num = self.num_advertisers if kind == "advertiser" else self.num_items
        return [np.frombuffer(self.payload, dtype, num, at) for dtype, at in self.layout.list_places[kind]]


def hash_name(name: str) -> int:
    """Returns the 64 bits by which a record names its release or embedding space."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def hash_user(user_id: str) -> int:
    """Returns the 32 bits by which a record names its user: fast, since every lookup needs them."""
    return zlib.crc32(user_id.encode())


def view_bytes(records: npt.NDArray[Any]) -> "memoryview[int]":
    """Returns the bytes of records, which must stand one after the other, without a copy."""
    view: Any = records.view(np.uint8).reshape(-1)
    return memoryview(view)


def seal(records: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Writes the checksum of every record into it and returns the same array."""
    records["crc32"] = checksums(records)
    return records


def checksums(records: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """Returns the checksum that every record should carry, [n]."""
    size, raw = records.dtype.itemsize, view_bytes(records)
    starts = range(_CRC_BYTES, len(raw), size)
    end = size - _CRC_BYTES
    return np.array([zlib.crc32(raw[start : start + end]) for start in starts], np.uint32)


def open_record(payload: bytes, layout: RecordLayout, *, user: int, release: int, space: int) -> UserRecord:
    """Returns a record read from its bytes.

    Args:
        payload: what a store answered.
        layout: of the release.
        user: hash of the user that was asked for (`hash_user`).
        release: hash of the id of the release that is asked for (`hash_name`).
        space: likewise of its embedding space.

    Raises:
        StoreError: the bytes are no record of this layout, damaged, or the record of another user.
        SkewError: the record belongs to another release or embedding space.
    """
    if len(payload) != layout.dtype.itemsize:
        raise StoreError(f"a record has {layout.dtype.itemsize} bytes, {len(payload)} arrived")
    crc32, of_user, num_advertisers, num_items, in_release, in_space, as_of_us = _HEADER.unpack_from(payload)
    if zlib.crc32(memoryview(payload)[_CRC_BYTES:]) != crc32:
        raise StoreError("the checksum of a record must be that of its bytes, it is not: it is damaged")
    if of_user != user:
        raise StoreError("a record must be of the user that was asked for, one of another user arrived")
    if in_release != release or in_space != space:
        raise SkewError("a record must be of the release that is served, one of another release arrived")
    return UserRecord(as_of_us, payload, layout, num_advertisers, num_items)
