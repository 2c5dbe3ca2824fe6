"""From lists of candidates to ads: expanded, valued, blended, and filled up from below where that is short.

The user's own lists come first, advertisers and products together. Only where they give fewer ads than are
wanted, products near the user's vector are blended in, then the lists of the country and of everywhere; what
was taken of the better lists stays.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import Final

import numpy as np
import numpy.typing as npt

from forecart.ads.blending import NO_LIMIT, BlendedAd, BlendRules, Quota, blend
from forecart.ads.eligibility import Eligibility
from forecart.ads.expansion import CandidateAds, expand_advertisers, expand_items
from forecart.ads.l1 import CalibratedBid, L1Ranker
from forecart.ads.request import AdRequest
from forecart.metrics.calibration import Calibration
from forecart.publish.release import Release
from forecart.serving.ladder import Reading, Reason, list_rungs
from forecart.serving.retrieving import retrieve_products
from forecart.serving.rungs import LEVELS, OWN, RETRIEVED, Level, Rung

# Popularity is the share of all users who convert in a label window: already such a probability.
FALLBACK_CALIBRATIONS: Final = dict.fromkeys(
    ("fallback_country", "fallback_global"), Calibration((0.0, 1.0), (0.0, 1.0))
)
_MAX_OPEN: Final = 2
"""Releases that are served at a time."""
RankerOf = Callable[[Release], L1Ranker]
"""Returns the ranker of the release that a request is answered from."""
Sources = list[tuple[CandidateAds, npt.NDArray[np.float64]]]


@dataclass(frozen=True)
class Chosen:
    """The ads of an answer.

    Attributes:
        ads: the most valuable first.
        eligibility: that they were chosen by.
        reasons: why they are less than they could be.
    """

    ads: list[BlendedAd]
    eligibility: Eligibility
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, eq=False)
class _Asked:
    """A request, who values its ads, and which ads of the snapshot may be shown to it.

    `uncalibrated` collects the sources with ads whose value is only an order.
    """

    request: AdRequest
    ranker: L1Ranker
    eligibility: Eligibility
    mask_A: npt.NDArray[np.bool_]
    uncalibrated: set[str]


@dataclass(frozen=True)
class AdChooser:
    """Chooses ads.

    Attributes:
        ranker_of: what showing an ad is worth, by release: scores of one model mean nothing to another's.
        rules: what an answer must keep to.
    """

    ranker_of: RankerOf
    rules: BlendRules

    def choose(self, eligibility: Eligibility, reading: Reading, request: AdRequest) -> Chosen:
        """Returns the ads that may be shown and are worth most.

        Fewer than are wanted come back only where no list of the reading has more that keep to the rules.

        Args:
            eligibility: of the release that the request is answered from.
            reading: the lists.
            request: what is asked.
        """
        assert reading.opened is not None
        ranker = self.ranker_of(reading.opened.release)
        asked = _Asked(request, ranker, eligibility, eligibility.ads(request), set())
        ads: list[BlendedAd] = []
        is_good = True
        for tier in _list_tiers(reading, asked):
            # Ads of one advertiser may show the same product and keep others out: then all of them are tried.
            for most in (self.rules.ads_per_advertiser, NO_LIMIT):
                found, is_valued = self._blend(asked, tier, most=most, kept=ads)
                is_good &= is_valued
                if len(found) == request.num_ads:
                    break
            ads = found
            if len(ads) == request.num_ads:
                break
        reasons: list[Reason] = [] if is_good else ["l1_failed"]
        if any(one.source in asked.uncalibrated for one in ads):
            reasons.append("uncalibrated")
        if not ads:
            reasons.append("inventory_empty")
        return Chosen(ads, eligibility, tuple(reasons))

    def _blend(
        self, asked: _Asked, tier: list[tuple[Level, Rung]], *, most: int, kept: list[BlendedAd]
    ) -> tuple[list[BlendedAd], bool]:
        """Returns the ads of a tier beside those that better ones gave, and whether L1 valued them."""
        sources, is_good = _keep(kept), True
        for level, rung in tier:
            found = _expand(asked, rung, level=level, most=most)
            value, is_valued = self._value(asked, found)
            is_good &= is_valued
            if not _is_priced(asked.ranker, found.source):
                asked.uncalibrated.add(rung.source)
            sources.append((replace(found, source=rung.source), value))
        rules = self._keeping(kept)
        return blend(asked.eligibility.snapshot, sources, num_ads=asked.request.num_ads, rules=rules), is_good

    def _value(self, asked: _Asked, ads: CandidateAds) -> tuple[npt.NDArray[np.float64], bool]:
        """Returns the worth of ads and whether the ranker said so; else it is the order of the candidates."""
        try:
            value = np.asarray(asked.ranker.value(asked.request, asked.eligibility.snapshot, ads), np.float64)
            if value.shape == ads.place.shape and np.isfinite(value).all():
                return value, True
        except Exception:  # a ranker is anybody's code, and its failure is not the answer's
            pass
        return 1.0 / ads.rank, False

    def _keeping(self, ads: list[BlendedAd]) -> BlendRules:
        """Returns the rules under which these ads of better lists stay in the answer."""
        quotas = dict(self.rules.quotas)
        for source, num in Counter(one.source for one in ads).items():
            quotas[source] = Quota(num, quotas.get(source, Quota()).most)
        return replace(self.rules, quotas=quotas)


def rank_by_release(own: Mapping[str, Calibration]) -> RankerOf:
    """Returns the default rankers: probability x bid, by the calibrations that each release carries.

    Args:
        own: of the operator, by source; they hold in place of a release's.
    """

    @lru_cache(_MAX_OPEN)
    def ranker_of(release: Release) -> L1Ranker:
        return CalibratedBid(FALLBACK_CALIBRATIONS | dict(release.calibrations) | dict(own))

    return ranker_of


def _is_priced(ranker: L1Ranker, source: str) -> bool:
    """Says whether values of a source are dollars; those of a ranker of somebody's own are."""
    return not isinstance(ranker, CalibratedBid) or ranker.is_calibrated(source)


def _keep(ads: list[BlendedAd]) -> Sources:
    """Returns ads that were chosen as sources of a longer list."""
    return [
        (
            CandidateAds(
                source,
                np.array([one.place for one in ads if one.source == source], np.int64),
                np.array([one.score for one in ads if one.source == source], np.float32),
                np.array([one.rank for one in ads if one.source == source], np.int64),
            ),
            np.array([one.value for one in ads if one.source == source], np.float64),
        )
        for source in dict.fromkeys(one.source for one in ads)
    ]


def _expand(asked: _Asked, rung: Rung, *, level: Level, most: int) -> CandidateAds:
    snapshot, mask_A, index, score = asked.eligibility.snapshot, asked.mask_A, rung.index, rung.score
    # What is for the user alone is calibrated by the level, of whichever release it is.
    source = rung.source if rung.depth > RETRIEVED else level
    if level == "products":
        return expand_items(snapshot, mask_A, index, score, source=source)
    return expand_advertisers(snapshot, mask_A, index, score, source=source, ads_per_advertiser=most)


def _list_tiers(reading: Reading, asked: _Asked) -> Iterator[list[tuple[Level, Rung]]]:
    """Returns the rungs of both levels that stand side by side, from the top of the ladder down."""
    country = asked.request.country
    rungs = [(level, rung) for level in LEVELS for rung in list_rungs(reading, level, country)]
    rungs.sort(key=lambda one: one[1].depth)
    yield [one for one in rungs if one[1].depth == OWN]
    if (retrieved := retrieve_products(reading, asked.eligibility.snapshot, asked.mask_A)) is not None:
        yield [("products", retrieved)]
    for _, tier in groupby((one for one in rungs if one[1].depth != OWN), key=lambda one: one[1].depth):
        yield list(tier)
