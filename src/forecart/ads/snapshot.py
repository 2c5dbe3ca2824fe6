"""The inventory as arrays, as of one version: what a request reads from beginning to end.

Ads stand by advertiser, the best bid first, so that an advertiser's ads are a slice; campaigns and ad
groups are arrays that ads point to. A snapshot is never changed: an update makes another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from forecart.ads.rows import REMOVED, Ad, AdGroup, Campaign, read_category
from forecart.sequences.vocabulary import FIRST_INDEX, Vocabulary

NOBODY: Final = -1
UNREADABLE: Final = -1
"""Version of what stands for an inventory that cannot be read: nothing of it may be shown."""
ALWAYS: Final = np.iinfo(np.int64).max
Key = TypeVar("Key")
Targeting = tuple[tuple[str, ...] | None, ...]
"""Countries, devices, age bands, interests."""


@dataclass(frozen=True, eq=False)
class CampaignArrays:
    """Campaigns, [C] each; unknown spend is NaN, no budget infinite, no cap -1."""

    is_active: npt.NDArray[np.bool_]
    starts_us: npt.NDArray[np.int64]
    ends_us: npt.NDArray[np.int64]
    budget_usd: npt.NDArray[np.float64]
    spend_usd: npt.NDArray[np.float64]
    daily_budget_usd: npt.NDArray[np.float64]
    daily_spend_usd: npt.NDArray[np.float64]
    daily_spend_on: npt.NDArray[np.int64]
    cap: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class GroupArrays:
    """Ad groups, [G] each; `cap` is -1 without one, `targeting` an index into `Snapshot.targetings`."""

    is_active: npt.NDArray[np.bool_]
    campaign: npt.NDArray[np.int64]
    cap: npt.NDArray[np.int64]
    targeting: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """An inventory of A ads.

    Attributes:
        version: rises with every update.
        ad_ids: [A].
        advertiser_A: index of the advertiser, ascending.
        item_A: index of the product; 0 for none, 1 for one that is not in the vocabulary.
        product_A: number of the product, in the vocabulary or not; -1 for none.
        bid_usd_A: dollars for a conversion.
        is_active_A: by the ad's own status.
        category_A: place in `categories`; -1 where unknown.
        group_A: place in `groups`.
        groups: the ad groups.
        campaigns: the campaigns.
        targetings: distinct audiences of ad groups.
        categories: distinct paths, as steps.
        num_advertisers: N, padding and unknown included.
        advertisers: ids of advertisers.
        former: ids of ads that were removed -> place of their group in `groups`.
        left_out: ads that can never be eligible, by reason.
    """

    version: int
    ad_ids: list[str]
    advertiser_A: npt.NDArray[np.int64]
    item_A: npt.NDArray[np.int64]
    product_A: npt.NDArray[np.int64]
    bid_usd_A: npt.NDArray[np.float64]
    is_active_A: npt.NDArray[np.bool_]
    category_A: npt.NDArray[np.int64]
    group_A: npt.NDArray[np.int64]
    groups: GroupArrays
    campaigns: CampaignArrays
    targetings: list[Targeting]
    categories: list[tuple[str, ...]]
    num_advertisers: int
    advertisers: Vocabulary
    former: Mapping[str, int]
    left_out: Mapping[str, int]

    @property
    def num_ads(self) -> int:
        """A."""
        return len(self.ad_ids)

    @property
    def is_readable(self) -> bool:
        """Whether this is what an inventory holds, and does not stand for one that cannot be read."""
        return self.version != UNREADABLE

    @cached_property
    def start_N(self) -> npt.NDArray[np.int64]:
        """[N + 1], where each advertiser's ads begin; the last is A."""
        return np.searchsorted(self.advertiser_A, np.arange(self.num_advertisers + 1))

    @cached_property
    def by_item_A(self) -> npt.NDArray[np.int64]:
        """[A], ads in the order of their products, of one product the best bid first."""
        return np.lexsort((self.id_rank_A, -self.bid_usd_A, self.item_A))

    @cached_property
    def id_rank_A(self) -> npt.NDArray[np.int64]:
        """[A], place of each ad's id in the order of ids: what settles ties."""
        rank = np.empty(self.num_ads, np.int64)
        rank[sorted(range(self.num_ads), key=self.ad_ids.__getitem__)] = np.arange(self.num_ads)
        return rank

    @cached_property
    def place_of(self) -> dict[str, int]:
        """Ad id -> place."""
        return {ad_id: place for place, ad_id in enumerate(self.ad_ids)}

    @cached_property
    def group_of(self) -> dict[str, int]:
        """Ad id -> place of its group, for ads that were removed too."""
        return {**self.former, **{ad_id: int(self.group_A[place]) for ad_id, place in self.place_of.items()}}


def compile_snapshot(
    campaigns: Mapping[str, Campaign],
    groups: Mapping[str, AdGroup],
    ads: Mapping[str, Ad],
    *,
    advertisers: Vocabulary,
    items: Vocabulary,
    version: int,
) -> Snapshot:
    """Returns the arrays of rows; an ad whose group, campaign or advertiser is not there is left out."""
    campaign_at = {name: place for place, name in enumerate(campaigns)}
    group_rows = [group for group in groups.values() if group.campaign_id in campaign_at]
    group_at = {group.ad_group_id: place for place, group in enumerate(group_rows)}
    owner_index = advertisers.index([campaign.advertiser_id for campaign in campaigns.values()])
    campaign_of_G = np.array([campaign_at[group.campaign_id] for group in group_rows], np.int64)
    left_out: dict[str, int] = {}
    kept: list[tuple[Ad, int, int]] = []
    former: dict[str, int] = {}
    for ad in ads.values():
        group = group_at.get(ad.ad_group_id)
        is_group_gone = ad.ad_group_id not in groups or groups[ad.ad_group_id].status == REMOVED
        if group is not None and (is_group_gone or ad.status == REMOVED):
            former[ad.ad_id] = group
        if ad.status == REMOVED:
            continue
        if group is None or is_group_gone:
            reason = "no ad group" if is_group_gone else "no campaign"
            left_out[reason] = left_out.get(reason, 0) + 1
            continue
        owner = int(owner_index[campaign_of_G[group]])
        if owner < FIRST_INDEX:
            left_out["unknown advertiser"] = left_out.get("unknown advertiser", 0) + 1
            continue
        kept.append((ad, group, owner))
    kept.sort(key=lambda one: (one[2], -one[0].bid_usd, one[0].ad_id))
    rows = [ad for ad, _, _ in kept]
    products: dict[str, int] = {}
    categories, category_A = _compile_categories(rows)
    targetings, group_arrays = _compile_groups(group_rows, campaign_of_G)
    return Snapshot(
        version=version,
        ad_ids=[ad.ad_id for ad in rows],
        advertiser_A=np.array([owner for _, _, owner in kept], np.int64),
        item_A=items.index([ad.item_id or "" for ad in rows]).astype(np.int64)
        * np.array([ad.item_id is not None for ad in rows], np.int64),
        product_A=np.array([_number(products, ad.item_id) for ad in rows], np.int64),
        bid_usd_A=np.array([ad.bid_usd for ad in rows], np.float64),
        is_active_A=np.array([ad.status == "active" for ad in rows], np.bool_),
        category_A=category_A,
        group_A=np.array([group for _, group, _ in kept], np.int64),
        groups=group_arrays,
        campaigns=_compile_campaigns(list(campaigns.values())),
        targetings=targetings,
        categories=categories,
        num_advertisers=len(advertisers),
        advertisers=advertisers,
        former=former,
        left_out=left_out,
    )


def _number(places: dict[Key, int], key: Key | None) -> int:
    """Returns the place of a key, its own from the first time on; -1 for none."""
    return NOBODY if key is None else places.setdefault(key, len(places))


def _compile_categories(rows: list[Ad]) -> tuple[list[tuple[str, ...]], npt.NDArray[np.int64]]:
    spellings = {ad.category: read_category(ad.category) for ad in rows if ad.category is not None}
    places: dict[tuple[str, ...], int] = {}
    # Without steps there is no path: a category that cannot be read is unknown.
    numbers = {spelling: _number(places, steps or None) for spelling, steps in spellings.items()}
    return list(places), np.array([numbers.get(ad.category or "", NOBODY) for ad in rows], np.int64)


def _compile_groups(
    groups: list[AdGroup], campaign_of_G: npt.NDArray[np.int64]
) -> tuple[list[Targeting], GroupArrays]:
    places: dict[Targeting, int] = {}
    targeting = [
        places.setdefault((group.countries, group.devices, group.age_bands, group.interests), len(places))
        for group in groups
    ]
    caps = [NOBODY if group.frequency_cap is None else group.frequency_cap for group in groups]
    return list(places), GroupArrays(
        is_active=np.array([group.status == "active" for group in groups], np.bool_),
        campaign=campaign_of_G,
        cap=np.array(caps, np.int64),
        targeting=np.array(targeting, np.int64),
    )


def _compile_campaigns(campaigns: list[Campaign]) -> CampaignArrays:
    def read(name: str, missing: float, dtype: Any) -> npt.NDArray[Any]:
        values = [getattr(campaign, name) for campaign in campaigns]
        return np.array([missing if value is None else value for value in values], dtype)

    return CampaignArrays(
        is_active=np.array([campaign.status == "active" for campaign in campaigns], np.bool_),
        starts_us=read("starts_us", -ALWAYS, np.int64),
        ends_us=read("ends_us", ALWAYS, np.int64),
        budget_usd=read("budget_usd", np.inf, np.float64),
        spend_usd=read("spend_usd", np.nan, np.float64),
        daily_budget_usd=read("daily_budget_usd", np.inf, np.float64),
        daily_spend_usd=read("daily_spend_usd", np.nan, np.float64),
        daily_spend_on=read("daily_spend_on", NOBODY, np.int64),
        cap=read("frequency_cap", NOBODY, np.int64),
    )
