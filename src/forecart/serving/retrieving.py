"""Products near a user's vector, out of those that have an ad for this request.

What a user's own list lacks: it was made of all products, and of some of them there is no ad, or none that
may be shown. Nothing of what a user did before is in these scores but what the vector says.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from forecart.ads.snapshot import Snapshot
from forecart.retrieval.index.contract import Eligible, fold_queries
from forecart.sequences.vocabulary import FIRST_INDEX
from forecart.serving.ladder import Reading
from forecart.serving.rungs import RETRIEVED, Rung

NUM_RETRIEVED: Final = 100


def retrieve_products(reading: Reading, snapshot: Snapshot, mask_A: npt.NDArray[np.bool_]) -> Rung | None:
    """Returns the products that fit the user best; None without a user's record, or without products.

    Args:
        reading: what the request is answered from.
        snapshot: the inventory.
        mask_A: which of its ads may be shown.
    """
    opened, record = reading.opened, reading.record
    if opened is None or record is None or opened.release.item_index is None:
        return None
    has_ad_N = np.zeros(len(opened.release.items), np.bool_)
    has_ad_N[snapshot.item_A[mask_A]] = True
    has_ad_N[:FIRST_INDEX] = False
    query_1D = fold_queries(record.vector[None].astype(np.float32))
    found = opened.release.item_index.search(query_1D, NUM_RETRIEVED, eligible=Eligible(has_ad_N))
    num = int(np.count_nonzero(found.candidate[0] >= FIRST_INDEX))
    is_repeat = np.zeros(num, np.bool_)  # whether it is one is in no vector
    return Rung("retrieved", RETRIEVED, found.candidate[0, :num], found.score[0, :num], is_repeat)
