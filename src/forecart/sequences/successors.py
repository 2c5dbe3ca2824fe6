"""What follows what in everyone's sequences: counts that fade with distance, and what is made from them.

Takes rows of (user, candidate) in the order of each user's sequence, or a `PairLog`; gives sparse matrices, a
vector per candidate in which those that stand near each other in sequences lie near each other, and the
successor term of a score: what followed, for everyone, such conversions as a user's latest (docs/adr/0009).
"""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from forecart.sequences.pair_log import PairLog, run_starts

NUM_PLACES: Final = 10
NUM_LATEST: Final = 20
DECAY: Final = 0.8
ROW_POWER: Final = 0.7
_LEAST_LENGTH: Final = 1e-3


def count_successors(
    user: npt.NDArray[np.int32],
    candidate: npt.NDArray[np.int32],
    occurred_us: npt.NDArray[np.int64] | None = None,
    *,
    num_candidates: int,
    num_places: int = NUM_PLACES,
    decay: float = DECAY,
) -> Any:
    """Returns W as a CSR matrix [N, N]: W(i, j) = sum of decay^(d - 1) over pairs d places apart, i before j.

    Args:
        user: [R], the rows of a user stand together, in order.
        candidate: [R].
        occurred_us: [R], rows of a user at one time are one place, so that none of them follows another and
            their order does not matter; without it each row is a place.
        num_candidates: N.
        num_places: the largest d; memory grows with it, up to R entries for each, and with the square of how
            many rows a place has.
        decay: of a place.
    """
    import scipy.sparse as sp  # type: ignore[import-untyped, unused-ignore]

    is_new = _place_starts(user, occurred_us)
    user_P, place = user[is_new], np.cumsum(is_new) - 1
    member_PN = sp.csr_matrix((np.ones(len(user)), (place, candidate)), shape=(len(user_P), num_candidates))
    weight_NN = sp.csr_matrix((num_candidates, num_candidates), dtype=np.float64)
    for distance in range(1, num_places + 1):
        first = np.flatnonzero(user_P[distance:] == user_P[:-distance])
        weight_NN = weight_NN + decay ** (distance - 1) * (member_PN[first].T @ member_PN[first + distance])
    return weight_NN.tocsr()


def _place_starts(user: npt.NDArray[Any], occurred_us: npt.NDArray[np.int64] | None) -> npt.NDArray[np.bool_]:
    return np.ones(len(user), bool) if occurred_us is None else run_starts(user, occurred_us)


def transition_weights(weight_NN: Any, row_power: float = ROW_POWER) -> Any:
    """Returns T as a CSR matrix [N, N]: T(i, j) = W(i, j) / (W(i, .)^p W(., j)^(1 - p)), p = `row_power`.

    Args:
        weight_NN: W of `count_successors`.
        row_power: with less than one what follows everything counts for less.
    """
    import scipy.sparse as sp  # type: ignore[import-untyped, unused-ignore]

    return (
        sp.diags(_inverse_power(weight_NN.sum(axis=1), row_power))
        @ weight_NN
        @ sp.diags(_inverse_power(weight_NN.sum(axis=0), 1 - row_power))
    ).tocsr()


def _inverse_power(total: Any, power: float) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = np.asarray(total, np.float64).ravel()
    return np.where(values > 0, np.maximum(values, 1e-12) ** -power, 0.0)


def read_latest(
    user: npt.NDArray[Any],
    occurred_us: npt.NDArray[np.int64] | None = None,
    *,
    num_latest: int = NUM_LATEST,
    decay: float = DECAY,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Returns the rows of each user's latest places and decay^(places before the last one) of each row.

    Args:
        user: [R], the rows of a user stand together, in order.
        occurred_us: [R], as in `count_successors`.
        num_latest: places of a user.
        decay: of a place.
    """
    is_new = _place_starts(user, occurred_us)
    user_P, place = user[is_new], np.cumsum(is_new) - 1
    start = np.flatnonzero(run_starts(user_P))
    length = np.diff(start, append=len(user_P))
    back_P = np.repeat(start + length, length) - 1 - np.arange(len(user_P))
    row = np.flatnonzero(back_P[place] < num_latest)
    return row, decay ** back_P[place[row]].astype(np.float64)


class SuccessorSettings(BaseModel):
    """The successor term of the score. Closed: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    weight: float = Field(default=0.0, ge=0)
    """Of the term, in units of the cosine; 0 leaves it out."""
    floor: PositiveFloat = 0.03
    """Sums of transitions far below it add nothing, far above it their logarithm counts."""


@dataclass(frozen=True, eq=False)
class SuccessorTerm:
    """What is added to the score of candidates that followed, in all sequences, a user's latest conversions.

    term(j) = weight log(1 + S(j) / floor), S(j) = sum over the user's latest times r = 1 .. 20, and over the
    candidates i converted with at that time, of .8^(r - 1) T(i, j), T of `transition_weights`; conversions at
    one time are one place. It remembers what a tower of a few numbers per candidate cannot: which two rare
    candidates followed each other. Two rows of a checkout with one candidate count once.

    Attributes:
        log: what users did.
        transition_NN: T, CSR.
        settings: weight and floor.
    """

    log: PairLog
    transition_NN: Any
    settings: SuccessorSettings

    @classmethod
    def build(cls, log: PairLog, *, learn_until_us: int, settings: SuccessorSettings) -> Self:
        """Counts the transitions of conversions that arrived before `learn_until_us`."""
        user, event = log.known_before(learn_until_us)
        visit = np.flatnonzero(log.is_visit[event])
        visit = visit[np.lexsort((log.histories.occurred_us[event[visit]], user[visit]))]
        user, event = user[visit], event[visit]
        weight_NN = count_successors(
            user, log.candidate[event], log.histories.occurred_us[event], num_candidates=log.num_candidates
        )
        return cls(log, transition_weights(weight_NN).astype(np.float32), settings)

    def read(self, user_index: npt.NDArray[np.int32], cut_us: int) -> Any:
        """Returns the terms of users as of a cut, a COO matrix [B, N] float32; empty without conversions."""
        import scipy.sparse as sp  # type: ignore[import-untyped, unused-ignore]

        occurred_us = self.log.histories.occurred_us
        position, event = self.log.events_before(user_index, np.full(len(user_index), cut_us))
        visit = np.flatnonzero(self.log.is_visit[event])
        order = visit[np.lexsort((occurred_us[event[visit]], position[visit]))]
        position, event = position[order], event[order]
        latest, decayed = read_latest(position, occurred_us[event])
        shape = (len(user_index), self.log.num_candidates)
        cells = (position[latest], self.log.candidate[event[latest]])
        query_BN = sp.csr_matrix((decayed.astype(np.float32), cells), shape=shape)
        term_BN = (query_BN @ self.transition_NN).tocoo()
        term_BN.data = np.float32(self.settings.weight) * np.log1p(term_BN.data / self.settings.floor)
        return term_BN


def read_neighbour_vectors(log: PairLog, *, as_of_us: int, width: int) -> npt.NDArray[np.float32]:
    """Returns [N, width]: vectors whose products say what stands near what, from events before `as_of_us`.

    With W of `count_successors` and S = W + W', these are the leading eigenvectors of the positive part of
    log(S(i, j) S(., .) / (S(i, .) S(., j))), scaled by the square root of their eigenvalues and to a mean
    length of one. Columns that the matrix has no positive eigenvalue for are zeros, and so are candidates
    that never stood beside another one, or only beside a few that no leading eigenvector tells of.

    Source:
        Levy and Goldberg 2014: word2vec factorises the same matrix, shifted.
    """
    from scipy.sparse.linalg import eigsh  # type: ignore[import-untyped, unused-ignore]

    user, event = log.known_before(as_of_us)
    order = np.lexsort((log.histories.arrived_us[event], log.histories.occurred_us[event], user))
    user, event = user[order], event[order]
    weight_NN = count_successors(user, log.candidate[event], num_candidates=log.num_candidates)
    near = (weight_NN + weight_NN.T).tocoo()
    total_N = np.asarray(near.sum(axis=1)).ravel()
    near.data = np.log(near.data * total_N.sum() / (total_N[near.row] * total_N[near.col]))
    near.data = np.maximum(near.data, 0)
    vectors = np.zeros((log.num_candidates, width), np.float32)
    rank = min(width, int(np.count_nonzero(total_N)) - 1)
    if rank < 1 or not near.data.any():
        return vectors
    start = np.random.default_rng(0).standard_normal(log.num_candidates)
    eigenvalue, found = eigsh(near.tocsr(), k=rank, which="LA", v0=start)
    found *= np.sqrt(np.maximum(eigenvalue, 0))
    length_N = np.linalg.norm(found, axis=1)
    mean_length = length_N[total_N > 0].mean()
    # Zero but for rounding: without neighbours, or among a few whose eigenvalues are not leading.
    found[length_N < _LEAST_LENGTH * mean_length] = 0
    vectors[:, :rank] = found / max(mean_length, 1e-12)
    return vectors
