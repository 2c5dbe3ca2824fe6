"""Lists of an earlier day that still hold: of users of whom nothing has arrived since.

Takes the candidate table of the day before; says for each user of a part whether the list is carried, and
gives the rows and vectors that are. A list is made anew where an event of the user has arrived, where it is
too old, and where it names what may no longer be listed, so that no list gets shorter by being carried.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from forecart import artifacts, columns
from forecart.retrieval.candidate_files import part_name, user_vectors_name
from forecart.sequences.histories import Histories
from forecart.sequences.vocabulary import FIRST_INDEX, Vocabulary


@dataclass(frozen=True, eq=False)
class CarriedPart:
    """What is carried of the n users of a part.

    Attributes:
        is_carried: [n].
        lists: rows of the carried users.
        vectors: [number of carried users, D], in their order.
    """

    is_carried: npt.NDArray[np.bool_]
    lists: pl.DataFrame
    vectors: npt.NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class Carry:
    """The table of an earlier day, and what must not be carried from it.

    Attributes:
        folder: of the table: parts of the same users as today's.
        made_after_us: lists as of an earlier moment are made anew.
        has_news_U: users of whom something has arrived since, by user index.
        is_eligible_N: what may be listed today.
        users: vocabulary of users.
        candidates: vocabulary of the level.
        id_column: of the candidates.
    """

    folder: Path
    made_after_us: int
    has_news_U: npt.NDArray[np.bool_]
    is_eligible_N: npt.NDArray[np.bool_]
    users: Vocabulary
    candidates: Vocabulary
    id_column: str

    def read_part(self, number: int, user_index: npt.NDArray[np.int32]) -> CarriedPart | None:
        """Returns what is carried of the users of a part; None where the earlier day had no such part.

        Args:
            number: of the part.
            user_index: [n] of its users, ascending.
        """
        path = self.folder / part_name(number)
        if not path.exists():
            return None
        before = pl.read_parquet(path)
        row = self.users.index(before[columns.USER_ID]) - user_index[0]
        is_stale = ~self.is_eligible_N[self.candidates.index(before[self.id_column])]
        is_stale |= before[columns.AS_OF].dt.timestamp("us").to_numpy() < self.made_after_us
        vectors = artifacts.read_npy(self.folder / user_vectors_name(number))
        is_carried = ~self.has_news_U[user_index]
        is_carried[len(vectors) :] = False
        is_carried[row[is_stale]] = False
        # Who had no list may have one today.
        is_carried &= np.bincount(row, minlength=len(user_index)) > 0
        kept = before.filter(pl.Series(is_carried[row], dtype=pl.Boolean))
        return CarriedPart(is_carried, kept, vectors[is_carried[: len(vectors)]])


def find_news(histories: Histories, *, since_us: int) -> npt.NDArray[np.bool_]:
    """Returns which users have an event that arrived at or after a moment, by user index: [U]."""
    has_news = np.zeros(len(histories.length), np.bool_)
    some = np.flatnonzero(histories.length)
    # Histories are in the order of arrival.
    has_news[some] = histories.arrived_us[histories.start[some] + histories.length[some] - 1] >= since_us
    has_news[:FIRST_INDEX] = False
    return has_news
