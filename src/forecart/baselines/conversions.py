"""The conversions known at a cut, as flat arrays and as a sparse matrix of users by candidates.

Every baseline, and the pools of the evaluation, start here, so that what is known at a cut is decided in one
place: each user's prefix of rows that arrived before it. Rows without a known candidate (index 0 or 1) are no
conversion with anyone and are left out.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp  # type: ignore[import-untyped, unused-ignore]

from forecart.errors import ConfigError
from forecart.sequences.histories import Histories
from forecart.sequences.split import DAY_US
from forecart.sequences.vocabulary import FIRST_INDEX


@dataclass(frozen=True, eq=False)
class Conversions:
    """R conversion rows before a cut, by user and within a user by arrival.

    Attributes:
        user: [R], user_index.
        candidate: [R], advertiser_index or item_index, at least 2.
        occurred_us: [R].
        cut_us: the cut.
        shape: (number of users U, number of candidates N), both index spaces with padding and unknown.
    """

    user: npt.NDArray[np.int32]
    candidate: npt.NDArray[np.int32]
    occurred_us: npt.NDArray[np.int64]
    cut_us: int
    shape: tuple[int, int]

    @property
    def age_days(self) -> npt.NDArray[np.float64]:
        """How long before the cut each row occurred, [R]."""
        return (self.cut_us - self.occurred_us) / DAY_US

    def where(self, is_kept_R: npt.NDArray[np.bool_]) -> "Conversions":
        """Returns only the marked rows."""
        return self.at(np.flatnonzero(is_kept_R))

    def at(self, row: npt.NDArray[np.int64]) -> "Conversions":
        """Returns these rows, in this order."""
        return Conversions(
            self.user[row], self.candidate[row], self.occurred_us[row], self.cut_us, self.shape
        )

    def baskets(self) -> "Conversions":
        """Returns one row per distinct (user, candidate, time): two rows of a checkout are one basket."""
        order = np.lexsort((self.occurred_us, self.candidate, self.user))
        ordered = self.at(order)
        is_new = np.ones(len(order), bool)
        is_new[1:] = (
            (np.diff(ordered.user) != 0)
            | (np.diff(ordered.candidate) != 0)
            | (np.diff(ordered.occurred_us) != 0)
        )
        return ordered.where(is_new)

    def pair_sums(self, value_R: npt.NDArray[np.float64] | None = None) -> Any:
        """Returns the sum of the values (the number of rows) per user and candidate, a CSR matrix [U, N]."""
        value = np.ones(len(self.user)) if value_R is None else value_R
        return sp.csr_matrix((value, (self.user, self.candidate)), shape=self.shape)

    def user_share(self, *, last_days: float | None = None) -> npt.NDArray[np.float64]:
        """Returns the share of users who converted with each candidate, [N]; of all users with a conversion.

        Args:
            last_days: counts only conversions this recent; the share is still of all users.
        """
        num_known = max(int(np.count_nonzero(np.bincount(self.user))), 1)
        recent = self if last_days is None else self.where(self.age_days <= last_days)
        num_users_N: npt.NDArray[np.int64] = recent.pair_sums().getnnz(axis=0)
        share_N: npt.NDArray[np.float64] = num_users_N / num_known
        return share_N


def read_conversions(
    histories: Histories,
    *,
    cut_us: int,
    level: str,
    num_candidates: int,
    conversion_codes: frozenset[int],
) -> Conversions:
    """Returns the conversions that arrived before the cut.

    Args:
        histories: all events.
        cut_us: microseconds since the epoch; a row that arrived at the cut is after it.
        level: `advertiser` or `item`.
        num_candidates: N; a candidate that has no index below it is of a later vocabulary and left out.
        conversion_codes: the event types that count.

    Raises:
        ConfigError: there is no such level.
    """
    row, user = _rows_before(histories, cut_us)
    candidate = _candidates_of(histories, level)[row]
    is_conversion = np.isin(histories.event_type[row], sorted(conversion_codes))
    is_conversion &= (candidate >= FIRST_INDEX) & (candidate < num_candidates)
    return Conversions(
        user=user[is_conversion],
        candidate=candidate[is_conversion],
        occurred_us=histories.occurred_us[row[is_conversion]],
        cut_us=cut_us,
        shape=(histories.num_users, num_candidates),
    )


@dataclass(frozen=True, eq=False)
class ConversionLog:
    """What a baseline is fitted on: all events, and what is known of them at a cut.

    Attributes:
        histories: all events, later ones too: they must not matter.
        cut_us: microseconds since the epoch.
        level: `advertiser` or `item`.
        num_candidates: N, the size of the index space, padding and unknown included.
        conversion_codes: the event types that count as conversions.
        learn_until_us: popularity and weights between candidates know nothing that arrived later
            (`read_learned`); the cut when None. A user's own rows are known to the cut (`read`).
    """

    histories: Histories
    cut_us: int
    level: str
    num_candidates: int
    conversion_codes: frozenset[int]
    learn_until_us: int | None = None

    def read(self, codes: frozenset[int] | None = None) -> Conversions:
        """Returns the conversions, or the rows of these event types, that arrived before the cut.

        Raises:
            ConfigError: there is no such level.
        """
        return read_conversions(
            self.histories,
            cut_us=self.cut_us,
            level=self.level,
            num_candidates=self.num_candidates,
            conversion_codes=self.conversion_codes if codes is None else codes,
        )

    def read_learned(self) -> Conversions:
        """Returns the conversions that arrived before `learn_until_us`."""
        if self.learn_until_us is None or self.learn_until_us >= self.cut_us:
            return self.read()
        return replace(self, cut_us=self.learn_until_us).read()


def _rows_before(histories: Histories, cut_us: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Returns each event that arrived before the cut and its user."""
    all_users = np.arange(histories.num_users, dtype=np.int32)
    length = histories.end_at(all_users, cut_us) - histories.start
    user = np.repeat(all_users, length)
    first_row = np.cumsum(length) - length
    return np.arange(len(user)) + np.repeat(histories.start - first_row, length), user


def _candidates_of(histories: Histories, level: str) -> npt.NDArray[np.int32]:
    if level == "advertiser":
        return histories.advertiser
    if level == "item":
        return histories.item
    raise ConfigError(f"a level is 'advertiser' or 'item', got {level!r}")


def dense_rows(matrix: Any, user_index: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Returns rows of a sparse matrix as a dense one, [B, N]."""
    dense: npt.NDArray[np.float32] = matrix[user_index].astype(np.float32).toarray()
    return dense
