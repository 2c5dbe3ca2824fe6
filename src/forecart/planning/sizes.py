"""Bytes of the artifacts whose formats fix them: arrays without headers, records of one size.

Takes counts; gives bytes that a test holds against the files of a run. What is compressed has no exact size:
that is measured (`laws.py`).
"""

from typing import Final

import numpy as np

from forecart.publish.records import RecordLayout
from forecart.sequences.histories import EVENT_DTYPES

_INT64: Final = 8
_INT32: Final = 4
_HASH: Final = 8
_FLOAT16: Final = 2
_FLOAT32: Final = 4

BYTES_AN_EVENT: Final[int] = sum(np.dtype(dtype).itemsize for dtype in EVENT_DTYPES.values())
"""Of the histories on disk."""
BYTES_A_HISTORY: Final = 2 * _INT64
"""Start and length of a user."""
BYTES_AN_ITEM_FACT: Final = _INT32 + 2 * _INT32 + _FLOAT32
"""Advertiser, two categories and the price of an item."""


def vocabulary_bytes(num_ids: float, bytes_an_id: float) -> float:
    """Returns the bytes of a vocabulary: offset, text, hash and index of each id."""
    return num_ids * (_INT64 + bytes_an_id + _HASH + _INT32) + _INT64


def histories_bytes(num_events: float, num_users: float) -> float:
    """Returns the bytes of the histories; `num_users` with padding and unknown."""
    return num_events * BYTES_AN_EVENT + num_users * BYTES_A_HISTORY


def user_vectors_bytes(num_users: float, width: int) -> float:
    """Returns the bytes of the vectors beside the candidate tables."""
    return num_users * width * _FLOAT16


def candidate_vectors_bytes(num_candidates: float, width: int) -> float:
    """Returns the bytes of the vectors and the prior that an index is made of."""
    return num_candidates * (width * _FLOAT16 + _FLOAT32)


def scored_vectors_bytes(num_candidates: float, width: int) -> float:
    """Returns the bytes of the candidates' vectors in memory where everyone's lists are made."""
    return num_candidates * width * _FLOAT32


def records_bytes(num_users: float, layout: RecordLayout) -> float:
    """Returns the bytes of the records of everyone in a store."""
    return num_users * layout.dtype.itemsize
