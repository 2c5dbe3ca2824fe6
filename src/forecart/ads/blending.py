"""One list from several sources: quotas, no ad and no product twice, not too much of one advertiser.

First each source gets its least share, its best first; then the best of all that is left, as far as the
rules allow. The order at the end is that of value. Equal values, which a calibration gives where it is flat,
are settled by the rank of the candidate and then by ad id, so that the answer is the same in every process.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from forecart.ads.expansion import CandidateAds
from forecart.ads.snapshot import NOBODY, Snapshot
from forecart.errors import ConfigError

NO_LIMIT: Final = 1_000_000


@dataclass(frozen=True)
class Quota:
    """How many ads of a list come from a source.

    Of sources that are asked at all: a service asks the next ones of the ladder only where the better ones
    leave the list short (`serving/choosing.py`). Sources are told apart by name: what comes of
    `previous_release` keeps to the quota of that name, not to those of `advertisers` and `products`.

    Attributes:
        least: so many, where there are so many that the other rules allow.
        most: at most so many.
    """

    least: int = 0
    most: int = NO_LIMIT

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise ConfigError(f"a quota is from 0 <= least <= most, {self.least} and {self.most} arrived")


@dataclass(frozen=True)
class BlendRules:
    """What a list must keep to.

    Attributes:
        quotas: by source; none without.
        ads_per_advertiser: at most so many ads of an advertiser.
    """

    quotas: Mapping[str, Quota] = field(default_factory=dict)
    ads_per_advertiser: int = 2


@dataclass(frozen=True)
class BlendedAd:
    """One ad of the list.

    Attributes:
        place: in the snapshot.
        source: that it was taken from.
        rank: of its candidate in that source.
        score: of its candidate.
        value: by which the list is ordered.
    """

    place: int
    source: str
    rank: int
    score: float
    value: float


def blend(
    snapshot: Snapshot,
    sources: Sequence[tuple[CandidateAds, npt.NDArray[np.float64]]],
    *,
    num_ads: int,
    rules: BlendRules,
) -> list[BlendedAd]:
    """Returns at most `num_ads` ads, the most valuable first.

    Fewer come back only where nothing that is left keeps to the rules.

    Args:
        snapshot: of the inventory.
        sources: candidate ads and their values, [n]; the quotas of earlier sources are served first.
        num_ads: K.
        rules: of the list.
    """
    list_ = _List(snapshot, num_ads, rules)
    queues = [_order(snapshot, ads, value) for ads, value in sources]
    for queue in queues:
        for one in queue:
            if list_.num_from(one.source) >= list_.quota(one.source).least:
                break
            list_.take(one)
    rest = [one for queue in queues for one in queue]
    for one in sorted(rest, key=lambda one: _place(snapshot, one)):
        list_.take(one)
    return sorted(list_.taken, key=lambda one: _place(snapshot, one))


class _List:
    """A list that is being filled."""

    def __init__(self, snapshot: Snapshot, num_ads: int, rules: BlendRules) -> None:
        self.taken: list[BlendedAd] = []
        self._snapshot, self._num_ads, self._rules = snapshot, num_ads, rules
        self._places: set[int] = set()
        self._products: set[int] = set()
        self._by_source: Counter[str] = Counter()
        self._by_advertiser: Counter[int] = Counter()

    def quota(self, source: str) -> Quota:
        return self._rules.quotas.get(source, Quota())

    def num_from(self, source: str) -> int:
        return self._by_source[source]

    def take(self, one: BlendedAd) -> None:
        """Takes an ad, if there is room and the rules allow it."""
        product, advertiser = (
            int(values[one.place]) for values in (self._snapshot.product_A, self._snapshot.advertiser_A)
        )
        if (
            len(self.taken) >= self._num_ads
            or one.place in self._places
            or product in self._products
            or self._by_source[one.source] >= self.quota(one.source).most
            or self._by_advertiser[advertiser] >= self._rules.ads_per_advertiser
        ):
            return
        self.taken.append(one)
        self._places.add(one.place)
        if product != NOBODY:  # ads without a product do not show the same one
            self._products.add(product)
        self._by_source[one.source] += 1
        self._by_advertiser[advertiser] += 1


def _place(snapshot: Snapshot, one: BlendedAd) -> tuple[float, int, int]:
    """Returns what ads are sorted by."""
    return -one.value, one.rank, int(snapshot.id_rank_A[one.place])


def _order(snapshot: Snapshot, ads: CandidateAds, value: npt.NDArray[np.float64]) -> list[BlendedAd]:
    order = np.lexsort((snapshot.id_rank_A[ads.place], ads.rank, -value))
    columns = (ads.place[order], ads.rank[order], ads.score[order], value[order])
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [BlendedAd(place, ads.source, rank, score, worth) for place, rank, score, worth in rows]
