"""The country of a user as a number: two letters (ISO 3166-1 alpha-2) in 16 bits, 0 where none is known."""

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

NO_COUNTRY: Final = 0
_FIRST: Final = ord("A") - 1
_BASE: Final = 32


def encode_countries(countries: pl.Series) -> npt.NDArray[np.uint16]:
    """Returns the number of each of these countries, two capital letters or null."""
    # Two bytes each, so that the letters are columns; null is two spaces.
    letters = np.frombuffer("".join(countries.fill_null("  ")).encode("ascii"), np.uint8).reshape(-1, 2)
    place = np.where(letters == ord(" "), 0, letters - _FIRST).astype(np.uint16)
    return place[:, 0] * np.uint16(_BASE) + place[:, 1]


def decode_country(number: int) -> str:
    """Returns the two letters of a number that is not 0."""
    return chr(_FIRST + number // _BASE) + chr(_FIRST + number % _BASE)
