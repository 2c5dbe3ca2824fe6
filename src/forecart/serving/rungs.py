"""Lists that a request may be answered from, and how far down the ladder (`serving/ladder.py`) each is."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from forecart.publish.release import Fallback
from forecart.retrieval.candidate_files import EVERYONE

Level = Literal["advertisers", "products"]
LEVELS: Final[tuple[Level, ...]] = ("advertisers", "products")
Source = Literal[
    "advertisers",
    "products",
    "previous_release",
    "retrieved",
    "fallback_country",
    "fallback_global",
    "none",
]
OWN, RETRIEVED, COUNTRY, GLOBAL = range(4)
"""How far down the ladder a list is: the user's own, products near the user's vector, what is popular."""


@dataclass(slots=True, eq=False)
class Rung:
    """A list of candidates, best first, where it is from, and how far down."""

    source: Source
    depth: int
    index: npt.NDArray[np.int32]
    score: npt.NDArray[np.float32]
    is_repeat: npt.NDArray[np.bool_]


def list_popular(fallback: Fallback, level: Level) -> dict[str, tuple[Rung, ...]]:
    """Returns the lists for everybody by the country that asks; `EVERYONE` is any without a list."""
    lists = fallback.advertisers if level == "advertisers" else fallback.products

    def rung(country: str, source: Source, depth: int) -> Rung:
        index, score = lists[country]
        return Rung(source, depth, index, score, np.zeros(len(index), np.bool_))

    everywhere = (rung(EVERYONE, "fallback_global", GLOBAL),) if EVERYONE in lists else ()
    countries = [country for country in lists if country != EVERYONE]
    return {EVERYONE: everywhere} | {
        country: (rung(country, "fallback_country", COUNTRY), *everywhere) for country in countries
    }
