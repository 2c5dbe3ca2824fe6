"""Which ads may be shown to a request now: masks over the ads of a snapshot, made once and kept.

What does not depend on the request (status, schedule, budgets) is one mask that holds until the next moment
at which a schedule turns or a day begins; targeting is one mask for each audience that asks. Blocked
advertisers and categories and frequency caps come on top, for each request. Everything fails closed: an ad
is eligible where every rule says so, and not where one cannot be read.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from forecart.ads.request import AdRequest
from forecart.ads.rows import read_category
from forecart.ads.snapshot import NOBODY, Snapshot, Targeting
from forecart.sequences.vocabulary import FIRST_INDEX

BoolArray = npt.NDArray[np.bool_]
Audience = tuple[str | None, str | None, str | None, frozenset[str]]
Key = TypeVar("Key")
Kept = TypeVar("Kept")
MAX_AUDIENCES: Final = 256
MAX_TIMES: Final = 1 << 31
"""More often than any cap allows: what stands for a number of times that cannot be read."""
_DAY_US: Final = 86_400_000_000


@dataclass(frozen=True, eq=False)
class _Mask:
    """Ads that may be shown from one moment to another, and the advertisers that have one."""

    from_us: int
    until_us: int
    ads_A: BoolArray
    advertisers_N: BoolArray


class Eligibility:
    """Eligibility in one snapshot; keeps the masks that were made last. For any thread."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._open: _Mask | None = None
        self._by_audience: OrderedDict[tuple[Audience, bool], _Mask] = OrderedDict()
        self._by_path: OrderedDict[tuple[str, ...], BoolArray] = OrderedDict()
        self._lock = threading.Lock()

    def ads(self, request: AdRequest) -> BoolArray:
        """Returns which ads may be shown, [A]; not to be changed."""
        is_eligible_A = self._audience_mask(request).ads_A
        return self._without_blocked(request, is_eligible_A) if _is_particular(request) else is_eligible_A

    def advertisers(self, request: AdRequest) -> BoolArray:
        """Returns which advertisers have an ad that may be shown, [N]; not to be changed."""
        if not _is_particular(request):
            return self._audience_mask(request).advertisers_N
        return _any_by_advertiser(self.snapshot, self.ads(request))

    def _audience_mask(self, request: AdRequest) -> _Mask:
        # Whether caps can be told decides about capped ads at all.
        key = request.audience, request.shown is not None
        mask = self._by_audience.get(key)
        if mask is not None and mask.from_us <= request.now_us < mask.until_us:
            return mask  # without a lock, which would cost every request more than the look-up
        mask = self._make_audience_mask(request)
        with self._lock:
            _keep(self._by_audience, key, mask)
        return mask

    def _make_audience_mask(self, request: AdRequest) -> _Mask:
        snapshot, opened = self.snapshot, self._opened(request.now_us)
        is_target_T = np.array([_is_target(one, request.audience) for one in snapshot.targetings], np.bool_)
        is_group_G = is_target_T[snapshot.groups.targeting]
        if request.shown is None:
            is_group_G &= (snapshot.groups.cap == NOBODY) & (
                snapshot.campaigns.cap[snapshot.groups.campaign] == NOBODY
            )
        ads_A = opened.ads_A & is_group_G[snapshot.group_A]
        return _Mask(opened.from_us, opened.until_us, ads_A, _any_by_advertiser(snapshot, ads_A))

    def _opened(self, now_us: int) -> _Mask:
        """Returns what status, schedules and budgets leave, and from when until when they leave just that."""
        mask = self._open
        if mask is None or not mask.from_us <= now_us < mask.until_us:
            mask = self._open = self._make_opened(now_us)
        return mask

    def _make_opened(self, now_us: int) -> _Mask:
        snapshot, campaigns = self.snapshot, self.snapshot.campaigns
        day = now_us // _DAY_US
        spent_today = np.where(campaigns.daily_spend_on == day, campaigns.daily_spend_usd, 0.0)
        # What was spent on a day to come, or on no day, does not say what was spent today.
        is_unknown = (campaigns.daily_spend_on == NOBODY) | (campaigns.daily_spend_on > day)
        spent_today[is_unknown | np.isnan(campaigns.daily_spend_usd)] = np.nan
        is_open_C = campaigns.is_active & (campaigns.starts_us <= now_us) & (now_us < campaigns.ends_us)
        is_open_C &= np.isinf(campaigns.budget_usd) | (campaigns.spend_usd < campaigns.budget_usd)
        is_open_C &= np.isinf(campaigns.daily_budget_usd) | (spent_today < campaigns.daily_budget_usd)
        is_open_G = snapshot.groups.is_active & is_open_C[snapshot.groups.campaign]
        ads_A = snapshot.is_active_A & is_open_G[snapshot.group_A]
        turns = np.concatenate([campaigns.starts_us, campaigns.ends_us])
        from_us = max(day * _DAY_US, int(turns[turns <= now_us].max(initial=0)))
        until_us = min((day + 1) * _DAY_US, int(turns[turns > now_us].min(initial=np.iinfo(np.int64).max)))
        return _Mask(from_us, until_us, ads_A, np.zeros(0, np.bool_))

    def _without_blocked(self, request: AdRequest, is_eligible_A: BoolArray) -> BoolArray:
        snapshot, mask_A = self.snapshot, is_eligible_A.copy()
        for index in snapshot.advertisers.index(list(request.blocked_advertisers)).tolist():
            if index >= FIRST_INDEX:
                mask_A[snapshot.start_N[index] : snapshot.start_N[index + 1]] = False
        if request.blocked_categories:
            mask_A &= snapshot.category_A != NOBODY
            for path in request.blocked_categories:
                mask_A &= ~self._below(read_category(path))
        if request.shown is not None:
            mask_A &= ~self._worn_out(request.shown)[snapshot.group_A]
        return mask_A

    def _below(self, steps: tuple[str, ...]) -> BoolArray:
        """Returns the ads of a category and of all below it: all of them, for a path without steps."""
        is_below_A = self._by_path.get(steps)
        if is_below_A is None:
            is_below = [path[: len(steps)] == steps for path in self.snapshot.categories]
            is_below_A = np.array([*is_below, False], np.bool_)[self.snapshot.category_A]
        with self._lock:
            _keep(self._by_path, steps, is_below_A)
        return is_below_A

    def _worn_out(self, shown: Mapping[str, int]) -> BoolArray:
        """Returns the ad groups of which this user may see no more, by their cap or the campaign's, [G]."""
        snapshot, groups, campaigns = self.snapshot, self.snapshot.groups, self.snapshot.campaigns
        times_G, times_C = np.zeros(len(groups.cap), np.int64), np.zeros(len(campaigns.cap), np.int64)
        for ad_id, times in shown.items():
            group = snapshot.group_of.get(ad_id)
            if group is None:
                continue
            is_readable = isinstance(times, int) and 0 <= times < MAX_TIMES
            times_G[group] += times if is_readable else MAX_TIMES
            times_C[groups.campaign[group]] += times if is_readable else MAX_TIMES
        is_worn_C = (campaigns.cap != NOBODY) & (times_C >= campaigns.cap)
        is_worn_G: BoolArray = (groups.cap != NOBODY) & (times_G >= groups.cap)
        is_worn_G |= is_worn_C[groups.campaign]
        return is_worn_G


def _keep(masks: OrderedDict[Key, Kept], key: Key, mask: Kept) -> None:
    """Keeps a mask as the last one, and of all those the last ones."""
    masks[key] = mask
    masks.move_to_end(key)
    if len(masks) > MAX_AUDIENCES:
        masks.popitem(last=False)


def _is_particular(request: AdRequest) -> bool:
    """Whether more than the audience decides."""
    # With `shown` known and empty, a cap of 0 still decides.
    return bool(request.blocked_categories or request.blocked_advertisers or request.shown is not None)


def _is_target(targeting: Targeting, audience: Audience) -> bool:
    countries, devices, age_bands, interests = targeting
    country, device, age_band, has_interests = audience
    plain = ((countries, country), (devices, device), (age_bands, age_band))
    if any(wanted is not None and value not in wanted for wanted, value in plain):
        return False
    return interests is None or not has_interests.isdisjoint(interests)


def _any_by_advertiser(snapshot: Snapshot, mask_A: BoolArray) -> BoolArray:
    has_one_N = np.zeros(snapshot.num_advertisers, np.bool_)
    has_one_N[snapshot.advertiser_A[mask_A]] = True
    return has_one_N
