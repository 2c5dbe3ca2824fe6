"""What the towers and the event encoder know of candidates without learning it.

Holds tensors; made by `training/trained_model.py` from the arrays of `sequences/candidate_features.py`.
"""

from dataclasses import dataclass
from typing import Final

from torch import Tensor

from forecart.sequences.split import Level


@dataclass(frozen=True)
class StaticFeatures:
    """What the towers are built on; none of it is a weight.

    Attributes:
        advertiser_AF: static features of advertisers, read by the event encoder.
        item_IF: static features of items, likewise.
        candidate_NF: static features of the candidates, co-conversion columns first.
        num_collaborative: how many columns of `candidate_NF` those are.
        advertiser_N: the advertiser of each candidate; 0 for none.
        level: whether the candidates are advertisers or items.
    """

    advertiser_AF: Tensor
    item_IF: Tensor
    candidate_NF: Tensor
    num_collaborative: int
    advertiser_N: Tensor
    level: Level


@dataclass(frozen=True)
class CandidateStart:
    """What is learned per candidate starts here; None starts as a new model does.

    Attributes:
        id_ND: rows of a table of ids; all zeros for a candidate that starts at random.
        bias_N: of a learned prior.
    """

    id_ND: Tensor | None = None
    bias_N: Tensor | None = None


NO_START: Final = CandidateStart()
