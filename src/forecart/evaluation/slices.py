"""Parts of the positives that are looked at apart: by size of the candidate, by the user's past, unseen ones.

A slice is a mask over the positives. Its table has the same lists as the whole and only the slice's positives
as relevant: recall in it is the share of these that the lists found, whatever else the lists hold.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from forecart.baselines.conversions import Conversions
from forecart.sequences.split import Labels

HEAD_SHARE: Final = 0.5
TORSO_SHARE: Final = 0.9
BoolArray = npt.NDArray[np.bool_]


def build_slices(labels: Labels, known: Conversions, *, cold_below: int = 20) -> dict[str, BoolArray]:
    """Returns the slices of record, each a mask over the positives, [nnz].

    `head`, `torso`, `tail`: the candidates that have the first half of all known conversions, the next 40 %,
    the rest. `without_dominant`: all but the candidate with the most. `repeat`, `novel`: of the user.
    `cold_users`: users with fewer than `cold_below` known conversions. `unseen`: no known conversion.

    Args:
        labels: the positives.
        known: conversions that arrived before the training cut-off: what the frozen model could learn from.
        cold_below: conversions.
    """
    count_N = np.bincount(known.candidate, minlength=known.shape[1])
    band_N = candidate_bands(count_N)
    count_U = np.bincount(known.user, minlength=known.shape[0])
    slices = {name: band_N[labels.candidate] == band for band, name in enumerate(("head", "torso", "tail"))}
    slices["without_dominant"] = labels.candidate != count_N.argmax()
    slices["repeat"] = labels.is_repeat
    slices["novel"] = ~labels.is_repeat
    slices["cold_users"] = count_U[labels.user_index[labels.rows()]] < cold_below
    slices["unseen"] = count_N[labels.candidate] == 0
    return slices


def candidate_bands(count_N: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """Returns 0 head, 1 torso, 2 tail for each candidate, [N].

    Candidates by count, the most first, equals by index. One belongs to the head while those before it have
    less than half of all conversions, to the torso while they have less than 90 %; one without any conversion
    to the tail.
    """
    order = np.argsort(-count_N, kind="stable")
    before = np.cumsum(count_N[order]) - count_N[order]
    total = count_N.sum()
    band_N = np.empty(len(count_N), np.uint8)
    is_tail = (before >= TORSO_SHARE * total) | (count_N[order] == 0)
    band_N[order] = np.where(is_tail, 2, np.where(before < HEAD_SHARE * total, 0, 1))
    return band_N
