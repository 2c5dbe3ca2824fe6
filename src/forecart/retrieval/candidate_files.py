"""Names of the files of the candidate tables, for who writes them and for who reads them without torch."""

from typing import Final

PARTS: Final = "part-*.parquet"
USER_VECTORS: Final = "vectors-*.npy"
PIECES: Final = "*-[0-9]*"
"""Both: what a listing that was stopped goes on from."""
VECTORS: Final = "candidate_vectors.npy"
PRIOR: Final = "candidate_prior.npy"
FALLBACK: Final = "fallback.parquet"
EVERYONE: Final = "*"
"""In the place of a country: the fallback list of all of them."""


def part_name(number: int) -> str:
    """Returns the name of a part: lists of some users."""
    return f"part-{number:05d}.parquet"


def user_vectors_name(number: int) -> str:
    """Returns the name of the vectors of the users of a part."""
    return f"vectors-{number:05d}.npy"
