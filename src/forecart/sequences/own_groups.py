"""The user's statistics for what a candidate belongs to: has the category been bought lately, and how often.

Takes the pair statistics of some users and the groups of their candidates; gives more features per pair. A
household that bought yoghurt yesterday needs none today, whichever brand it was. Two kinds of group: the
`category` (of an advertiser: the one most of its products are in), and the `family`: the advertiser of an
item, the top-level category of an advertiser.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from forecart.sequences.build import Sequences
from forecart.sequences.population import NEVER_DAYS, FloatArray
from forecart.sequences.split import Level
from forecart.sequences.vocabulary import UNKNOWN_INDEX

GROUPS: Final = ("category", "family")
_MEASURES: Final = (
    "log_{}_visits",
    "log_{}_visits_30d",
    "log_{}_visits_120d",
    "log_days_since_{}",
    "{}_due",
    "log_share_of_{}",
    "log_recent_share_of_{}",
    "is_latest_of_{}",
)
GROUP_FEATURES: Final = tuple(name.format(group) for group in GROUPS for name in _MEASURES)
_MAX_DUE: Final = 5.0


def read_candidate_groups(sequences: Sequences, level: Level) -> npt.NDArray[np.int32]:
    """Returns the category and the family of each candidate, [N, 2]; 1 where it is not known."""
    leaf, top = sequences.item_category[:, 1], sequences.item_category[:, 0]
    if level == "item":
        return np.stack([leaf, sequences.item_advertiser], axis=1).astype(np.int32)
    num = len(sequences.advertisers)
    owner = sequences.item_advertiser
    return np.stack([_most_frequent(owner, leaf, num), _most_frequent(owner, top, num)], axis=1)


def _most_frequent(
    owner: npt.NDArray[np.int32], group: npt.NDArray[np.int32], num_owners: int
) -> npt.NDArray[np.int32]:
    """Returns each owner's most frequent group, of equals the lower; `UNKNOWN_INDEX` without any."""
    num_groups = int(group.max(initial=0)) + 1
    keys, counts = np.unique(owner.astype(np.int64) * num_groups + group, return_counts=True)
    # Ascending by count and, among equals, descending by group: the last one written wins.
    order = np.lexsort((-keys, counts))
    found = np.full(num_owners, UNKNOWN_INDEX, np.int32)
    found[keys[order] // num_groups] = keys[order] % num_groups
    return found


def group_features(
    row: npt.NDArray[np.int64], group: npt.NDArray[np.int32], own: dict[str, FloatArray]
) -> dict[str, FloatArray]:
    """Returns the features of `GROUP_FEATURES` by name, [M] each.

    Visits of a group are summed over its pairs: a basket with two products of a category counts twice.

    Args:
        row: [M], position of the user in the batch.
        group: [M, 2], category and family of the pair's candidate.
        own: pair statistics: visits, visits_30d, visits_120d, and the days since the first visit and since
            the last, 0 and infinity without one.
    """
    named: dict[str, FloatArray] = {}
    for at, kind in enumerate(GROUPS):
        values = _one_kind(row.astype(np.int64) * (1 << 32) + group[:, at], own)
        named |= {name.format(kind): value for name, value in zip(_MEASURES, values, strict=True)}
    return named


def _one_kind(key: npt.NDArray[np.int64], own: dict[str, FloatArray]) -> list[FloatArray]:
    _, member = np.unique(key, return_inverse=True)
    num = int(member.max(initial=-1)) + 1

    def total(name: str) -> FloatArray:
        return np.bincount(member, own[name], minlength=num).astype(np.float32)[member]

    visits, recent, steady = total("visits"), total("visits_30d"), total("visits_120d")
    last, first = np.full(num, np.inf, np.float32), np.zeros(num, np.float32)
    np.minimum.at(last, member, own["last"])
    np.maximum.at(first, member, own["first"])
    last, first = last[member], first[member]
    gap = np.where(visits > 1, (first - last) / np.maximum(visits - 1, 1), 30)
    is_latest = own["last"] <= last + 0.01
    last = np.minimum(last, NEVER_DAYS)
    return [
        np.log1p(visits),
        np.log1p(recent),
        np.log1p(steady),
        np.log1p(last),
        np.minimum(last / np.maximum(gap, 1), _MAX_DUE),
        np.log((own["visits"] + 1e-2) / (visits + 1e-1)),
        np.log((own["visits_120d"] + 1e-3) / (steady + 1e-2)),
        is_latest.astype(np.float32),
    ]
