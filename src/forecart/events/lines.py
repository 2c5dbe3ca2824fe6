"""Text files as blocks of whole lines, in bounded memory, every line with its number.

A record is one line: a quote that is never closed, a broken byte or a field of ten megabytes spoils its own
line and no other. An over-long line is cut to a stump on the way in, so that a file without line ends does
not fill the memory.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final, cast

import numpy as np
import polars as pl
import pyarrow as pa

from forecart import columns as c
from forecart.errors import DataError
from forecart.events.schema import DEFECT, RAW_CHARS
from forecart.object_store import Place

LINE: Final = "line"
MAX_LINE_BYTES: Final = 1 << 20
_BLOCK_BYTES: Final = 16 << 20
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def read_line_blocks(path: Place, *, block_bytes: int = _BLOCK_BYTES) -> Iterator[bytes]:
    """Yields a file (gunzipped when its name ends in .gz) as blocks that end with a line.

    A line longer than `MAX_LINE_BYTES` arrives shortened, but still longer than that.

    Raises:
        DataError: the file is missing, or its gzip stream is damaged.
    """
    carry = b""
    with _open_bytes(path) as handle:
        while block := _read_block(handle, block_bytes, path):
            whole, newline, rest = (carry + block).rpartition(b"\n")
            if newline:
                yield whole + newline
            carry = rest if len(rest) <= MAX_LINE_BYTES else rest[: MAX_LINE_BYTES + 1]
    if carry:
        yield carry + b"\n"


@contextmanager
def _open_bytes(path: Place) -> Iterator[BinaryIO]:
    if not path.is_file():
        raise DataError(f"a file was expected at {path}, none is there")
    with path.open("rb") as file:
        yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if path.suffix == ".gz" else file


def _read_block(handle: BinaryIO, num_bytes: int, path: Place) -> bytes:
    try:
        return handle.read(num_bytes)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} must be a whole gzip file, it is damaged ({error}); copy it again") from None


def read_lines(path: Place, *, block_bytes: int = _BLOCK_BYTES) -> Iterator[pl.DataFrame]:
    """Yields tables of `offset` (the line's number), `line`, `defect` and `raw`; blank lines are left out.

    `line` is null where `defect` says why it cannot be read, and only there `raw` shows its start.
    """
    first = 0
    for block in read_line_blocks(path, block_bytes=block_bytes):
        if first == 0:
            block = block.removeprefix(_BYTE_ORDER_MARK)
        lines = _split(block)
        yield _mark_defects(lines, first)
        first += len(lines)


def _split(block: bytes) -> pa.LargeBinaryArray:
    """Cuts a block at its line ends without copying it; the line ends stay."""
    ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")) + 1
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(ends), [None, pa.py_buffer(offsets), pa.py_buffer(block)]
    )


def _mark_defects(lines: pa.LargeBinaryArray, first: int) -> pl.DataFrame:
    frame = pl.Series("bytes", lines).to_frame()
    frame = frame.with_columns(_decode(frame["bytes"]))
    is_too_long = pl.col("bytes").bin.size() > MAX_LINE_BYTES
    defect = (
        pl.when(is_too_long)
        .then(pl.lit("field_too_long"))
        .when(pl.col(LINE).is_null())
        .then(pl.lit("invalid_utf8"))
    )
    frame = frame.select(
        pl.int_range(first, first + pl.len(), dtype=pl.Int64).alias(c.OFFSET),
        pl.when(~is_too_long).then(LINE).str.strip_chars_end("\r\n").alias(LINE),
        defect.alias(DEFECT),
        "bytes",
    )
    frame = frame.with_columns(_show_raw(frame)).drop("bytes")
    return frame.filter(pl.col(DEFECT).is_not_null() | (pl.col(LINE).str.strip_chars(" \t") != ""))


def _decode(lines: pl.Series) -> pl.Series:
    """Returns lines as text, null where the bytes are no UTF-8."""
    try:  # Most blocks are sound: one cast of the whole is enough.
        return lines.cast(pl.String).alias(LINE)
    except pl.exceptions.ComputeError:
        return pl.Series(LINE, [_decode_line(line) for line in lines], dtype=pl.String)


def _decode_line(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


def _show_raw(frame: pl.DataFrame) -> pl.Series:
    """Returns the start of every defective line, null for the others."""
    shown: list[str | None] = [None] * frame.height
    for row in frame[DEFECT].is_not_null().arg_true():
        start = cast(bytes, frame["bytes"][row])[: RAW_CHARS * 4]
        shown[row] = start.decode("utf-8", "backslashreplace").rstrip("\r\n")[:RAW_CHARS]
    return pl.Series(c.RAW, shown, dtype=pl.String)
