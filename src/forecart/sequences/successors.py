"""What follows what in everyone's sequences: counts that fade with distance, and vectors made from them.

Takes rows of (user, candidate) in the order of each user's sequence, or a `PairLog`; gives a sparse matrix,
or a vector per candidate in which those that stand near each other in sequences lie near each other.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from forecart.sequences.pair_log import PairLog

NUM_PLACES: Final = 10
DECAY: Final = 0.8
_LEAST_LENGTH: Final = 1e-3


def count_successors(
    user: npt.NDArray[np.int32],
    candidate: npt.NDArray[np.int32],
    *,
    num_candidates: int,
    num_places: int = NUM_PLACES,
    decay: float = DECAY,
) -> Any:
    """Returns W as a CSR matrix [N, N]: W(i, j) = sum of decay^(d - 1) over pairs d places apart, i before j.

    Args:
        user: [R], the rows of a user stand together, in order.
        candidate: [R].
        num_candidates: N.
        num_places: the largest d; memory grows with it, up to R entries for each.
        decay: of a place.
    """
    import scipy.sparse as sp  # type: ignore[import-untyped, unused-ignore]

    weight_NN = sp.csr_matrix((num_candidates, num_candidates), dtype=np.float64)
    for distance in range(1, num_places + 1):
        first = np.flatnonzero(user[distance:] == user[:-distance])
        weights = np.full(len(first), decay ** (distance - 1))
        pairs = (candidate[first], candidate[first + distance])
        weight_NN = weight_NN + sp.csr_matrix((weights, pairs), shape=weight_NN.shape)
    return weight_NN


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

    row = np.flatnonzero(log.arrived_us < as_of_us)
    row = row[np.lexsort((log.arrived_us[row], log.occurred_us[row], log.user[row]))]
    weight_NN = count_successors(log.user[row], log.candidate[row], num_candidates=log.num_candidates)
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
