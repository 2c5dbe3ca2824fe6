"""From candidates to their eligible ads: of each advertiser its best bids, of each product its ads.

Takes lists of candidates, best first; gives places of ads in the snapshot, each with the score and the rank
of the candidate it came by. What is not eligible is never counted, so that the next one takes its place.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from forecart.ads.snapshot import Snapshot
from forecart.sequences.vocabulary import FIRST_INDEX

ADS_PER_ADVERTISER: Final = 3


@dataclass(frozen=True, eq=False)
class CandidateAds:
    """The ads of one source, n of them.

    Attributes:
        source: where they come from, such as `advertisers`.
        place: of the ad in the snapshot.
        score: of the candidate it came by.
        rank: of that candidate in its list, from 1.
    """

    source: str
    place: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]
    rank: npt.NDArray[np.int64]


def expand_advertisers(
    snapshot: Snapshot,
    is_eligible_A: npt.NDArray[np.bool_],
    index: npt.NDArray[np.int32],
    score: npt.NDArray[np.float32],
    *,
    source: str,
    ads_per_advertiser: int = ADS_PER_ADVERTISER,
) -> CandidateAds:
    """Returns the eligible ads of advertisers, at most so many of each, the best bid first.

    Args:
        snapshot: of the inventory.
        is_eligible_A: which ads may be shown.
        index: [n] advertisers, best first.
        score: [n].
        source: what the ads are called after.
        ads_per_advertiser: at most.
    """
    start, end = snapshot.start_N[index], snapshot.start_N[index + 1]
    return _expand(is_eligible_A, start, end - start, score, source=source, most=ads_per_advertiser)


def expand_items(
    snapshot: Snapshot,
    is_eligible_A: npt.NDArray[np.bool_],
    index: npt.NDArray[np.int32],
    score: npt.NDArray[np.float32],
    *,
    source: str,
) -> CandidateAds:
    """Returns the eligible ads of products, of each the best bid; the arguments are as above.

    Padding and unknown are no product: ads of none, or of one that no list knows, do not come by them.
    """
    order_A = snapshot.by_item_A
    items = snapshot.item_A[order_A]
    start, end = np.searchsorted(items, index), np.searchsorted(items, index, side="right")
    end = np.where(index < FIRST_INDEX, start, end)
    found = _expand(is_eligible_A[order_A], start, end - start, score, source=source, most=1)
    return CandidateAds(source, order_A[found.place], found.score, found.rank)


def _expand(
    is_eligible_A: npt.NDArray[np.bool_],
    start: npt.NDArray[np.int64],
    length: npt.NDArray[np.int64],
    score: npt.NDArray[np.float32],
    *,
    source: str,
    most: int,
) -> CandidateAds:
    owner = np.repeat(np.arange(len(start)), length)
    first = np.cumsum(length) - length
    place = np.arange(len(owner)) - first[owner] + start[owner]
    is_eligible = is_eligible_A[place]
    owner, place = owner[is_eligible], place[is_eligible]
    # The n-th eligible one of its owner, from 0: owners stand together.
    nth = np.arange(len(owner)) - np.searchsorted(owner, owner)
    kept = nth < most
    return CandidateAds(source, place[kept], score[owner[kept]], owner[kept] + 1)
