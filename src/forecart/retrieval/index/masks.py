"""A mask as an inverted file takes it, and the choice between reading lists and scanning what is eligible."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from forecart.retrieval.index.contract import Floats, StoredVectors

_MAX_SCANNED: Final = 1 << 24
_MAX_LISTED: Final = 1 << 25
"""Numbers in the eligible candidates' vectors that are kept in memory with their mask: 64 MB, as float32 to
be scanned, or as float16 in lists of their own."""
_ELIGIBLE_FIRST: Final = 16
"""Times K."""
_MAX_CHANCE: Final = 2.0


@dataclass(eq=False)
class MaskedLists:
    """A mask over the candidates of an inverted file.

    Attributes:
        place_M: of the eligible candidates, ascending.
        bits: the mask, a bit a place.
        list_L: the lists that hold any of them.
        share: of the candidates in those lists.
        is_even: whether the mask is as if drawn at random in every list; else the lists nearest to a user may
            be those that hold least.
        lists: faiss's, that are read under this mask; None before the first time.
        quantizer: faiss's, of the centroids of `list_L`; likewise.
    """

    place_M: npt.NDArray[np.int64]
    bits: npt.NDArray[np.uint8]
    list_L: npt.NDArray[np.int64]
    share: float
    is_even: bool
    lists: Any = None
    quantizer: Any = None
    _vector_MD: Floats | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls, is_eligible_N: npt.NDArray[np.bool_], list_of_N: npt.NDArray[np.int32], num_lists: int
    ) -> "MaskedLists":
        """Returns a mask over places, prepared."""
        place_M = np.flatnonzero(is_eligible_N)
        num_L = np.bincount(list_of_N, minlength=num_lists)
        num_eligible_L = np.bincount(list_of_N[place_M], minlength=num_lists)
        list_L = np.flatnonzero(num_eligible_L)
        share = len(place_M) / max(len(list_of_N), 1)
        # Pearson's: the number in a list differs from the expected as much as by chance.
        expected_L = np.maximum(num_L * share * (1 - share), 1e-9)
        by_chance = ((num_eligible_L - num_L * share) ** 2 / expected_L)[num_L > 0].mean() if share else 0.0
        return cls(
            place_M=place_M,
            bits=np.packbits(is_eligible_N, bitorder="little"),
            list_L=list_L,
            share=len(place_M) / max(int(num_L[list_L].sum()), 1),
            is_even=bool(by_chance < _MAX_CHANCE),
        )

    def count_first(self, top_k: int) -> int:
        """Returns how many lists hold enough that is eligible to say how far others need be looked at."""
        num_lists = len(self.list_L)
        return min(-(-_ELIGIBLE_FIRST * top_k * num_lists // max(len(self.place_M), 1)), num_lists)

    def has_own_lists(self, width: int) -> bool:
        """Says whether the eligible candidates are few enough to be kept in lists of their own."""
        return len(self.place_M) * width <= _MAX_LISTED

    def read(self, stored: StoredVectors) -> npt.NDArray[Any]:
        """Returns the eligible candidates' vectors; kept for the next search where they are few."""
        if self._vector_MD is not None:
            return self._vector_MD
        vector_MD: npt.NDArray[Any] = stored.vector_ND[self.place_M]
        if vector_MD.size <= _MAX_SCANNED:
            vector_MD = self._vector_MD = vector_MD.astype(np.float32)
        return vector_MD


@dataclass(frozen=True)
class Effort:
    """Which lists are read for a user.

    Attributes:
        num_first: the nearest, in any case.
        num_probes: so many of the nearest, as long as they are near enough for how good was what the first
            ones have.
        margin: a list is near enough if its centroid's score is that of the last listed less this, or more.
    """

    num_first: int
    num_probes: int
    margin: float


def choose_effort(measured: dict[str, Any], masked: MaskedLists | None, top_k: int) -> Effort | None:
    """Returns which lists are to be read, or None where scanning everything eligible is cheaper.

    The times are those measured at building. Lists are read as the next narrower mask needed that was
    measured; under a mask narrower than all of them everything eligible is scanned.

    Args:
        measured: of the index.
        masked: the mask; None for none.
        top_k: K; lists are read in proportion where it is larger than what was measured.
    """
    share = 1.0 if masked is None else masked.share
    levels = [level for level in measured["levels"] if level["share"] <= share]
    if not levels:
        return None
    level = max(levels, key=lambda one: one["share"])
    longer = max(1.0, top_k / measured["top_k"])
    num_first = level["num_first"]
    if masked is not None and not masked.is_even:
        num_first, level = masked.count_first(measured["top_k"]), measured["uneven"]
    if masked is not None:
        scan_us = measured["scan_us"] + measured["scan_us_each"] * len(masked.place_M)
        if scan_us <= level["search_us"] * longer:
            return None
    num_first, num_probes = (int(np.ceil(num * longer)) for num in (num_first, level["num_probes"]))
    return Effort(num_first, num_probes, level["margin"])
