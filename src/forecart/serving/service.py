"""The candidate service: a request in, an answer out. A plain object that knows no HTTP.

The store, the releases and the clock are injected, and every failure of theirs has a place in the answer, so
that there is always one. A request is read once (`read`, the only step that may wait) and then answered from
what was read; whoever serves decides on which thread that happens.
"""

import secrets
import time
from collections.abc import Callable
from itertools import count
from typing import Final

import numpy as np
import numpy.typing as npt

from forecart.ads.outcomes import Outcome
from forecart.ads.request import AdRequest
from forecart.sequences.vocabulary import FIRST_INDEX
from forecart.serving.answers import (
    AdCandidate,
    AdvertiserAnswer,
    AdvertiserAsk,
    CandidateAnswer,
    CandidateAsk,
    Listed,
)
from forecart.serving.choosing import AdChooser, Chosen
from forecart.serving.consent import judge
from forecart.serving.current import OpenRelease, Served
from forecart.serving.guard import GuardedStore
from forecart.serving.ladder import Ladder, Level, Reading, Reason, Rung, list_rungs
from forecart.serving.outcome_writer import OutcomeWriter

Clock = Callable[[], int]
Mask = npt.NDArray[np.bool_] | None
"""By index of the release, what may be shown; None where everything may."""
_DIGITS: Final = 6


def read_clock() -> int:
    """Returns microseconds since the epoch."""
    return time.time_ns() // 1000


class CandidateService:
    """Answers requests.

    Args:
        store: of the records, guarded.
        served: returns the releases that are served now.
        max_staleness_s: a release with older histories is not served personally.
        ads: chooses ads, where the release has an inventory.
        outcomes: takes what was answered.
        clock: the moment of a request, microseconds since the epoch.
    """

    def __init__(
        self,
        store: GuardedStore,
        served: Callable[[], Served],
        *,
        max_staleness_s: int,
        ads: AdChooser,
        outcomes: OutcomeWriter | None = None,
        clock: Clock = read_clock,
    ) -> None:
        self._ladder = Ladder(store, max_staleness_s=max_staleness_s)
        self._served = served
        self._ads = ads
        self._outcomes = outcomes
        self._clock = clock
        self._prefix, self._numbers = secrets.token_hex(6), count(1)

    def read(self, ask: AdvertiserAsk) -> Reading:
        """Returns what a request is answered from; waits for the store."""
        return self._ladder.read(self._served(), ask.user_id, judge(ask.consent), now_us=self._clock())

    def read_nothing(self, reason: Reason) -> Reading:
        """Returns what a request is answered from where the store was not waited for."""
        return self._ladder.without_record(self._served(), reason)

    def advertisers(self, ask: AdvertiserAsk, reading: Reading | None = None) -> AdvertiserAnswer:
        """Returns the user's next advertisers that may be shown, best first, at most `limit`.

        With an inventory those are the advertisers with an ad that may be shown to this request. A list that
        eligibility makes short is filled up from the lists below it.
        """
        reading = reading or self.read(ask)
        eligibility = None if reading.opened is None else reading.opened.ads
        mask = None if eligibility is None else eligibility.advertisers(self._describe(ask))
        lists = _list_advertisers(reading, ask, mask)
        return AdvertiserAnswer(
            request_id=self._name(ask),
            release=reading.release_id,
            as_of=reading.as_of,
            source=lists[0].source if lists else "none",
            degraded=list(reading.reasons),
            advertisers=lists,
        )

    def candidates(self, ask: CandidateAsk, reading: Reading | None = None) -> CandidateAnswer:
        """Returns the ads that are worth most, `limit` at most; without an inventory what makes them."""
        reading = reading or self.read(ask)
        answer = CandidateAnswer(
            request_id=self._name(ask),
            release=reading.release_id,
            as_of=reading.as_of,
            source="none",
            degraded=list(reading.reasons),
            inventory=None,
            ads=[],
            advertisers=[],
            products=[],
        )
        eligibility = None if reading.opened is None else reading.opened.ads
        if eligibility is None:
            answer.advertisers = _list_advertisers(reading, ask, None)
            answer.products = _list_products(reading, ask)
            answer.degraded.append("no_inventory")
        else:
            request = self._describe(ask)
            chosen = self._ads.choose(eligibility, reading, request)
            answer.inventory = eligibility.snapshot.version
            answer.ads = _describe_ads(chosen, reading)
            answer.degraded += chosen.reasons
            self._note(answer, reading, request)
        answer.source = next(
            (rung.source for rung in list_rungs(reading, "advertisers", ask.country)), "none"
        )
        return answer

    def _describe(self, ask: AdvertiserAsk) -> AdRequest:
        return AdRequest(
            now_us=self._clock(),
            num_ads=ask.limit,
            user_id=ask.user_id,
            country=ask.country,
            device=ask.device,
            age_band=ask.age_band,
            interests=frozenset(ask.interests),
            blocked_categories=tuple(ask.blocked_categories),
            blocked_advertisers=tuple(ask.blocked_advertisers),
            shown=ask.shown,
        )

    def _name(self, ask: AdvertiserAsk) -> str:
        return ask.request_id or f"{self._prefix}-{next(self._numbers)}"

    def _note(self, answer: CandidateAnswer, reading: Reading, request: AdRequest) -> None:
        """Hands the answer to the outcome log; who is not answered personally has no name there."""
        if self._outcomes is None or not answer.ads:
            return
        is_personal = reading.record is not None and request.user_id is not None
        user_key = self._outcomes.name_user(request.user_id or "") if is_personal else None
        rows = [
            Outcome(
                answer.request_id,
                request.now_us,
                answer.release or "",
                user_key,
                position,
                ad.ad_id,
                ad.advertiser_id,
                ad.source,
                ad.score,
            )
            for position, ad in enumerate(answer.ads, start=1)
        ]
        self._outcomes.add(rows, now_us=request.now_us)


def _describe_ads(chosen: Chosen, reading: Reading) -> list[AdCandidate]:
    opened, snapshot = reading.opened, chosen.eligibility.snapshot
    assert opened is not None
    advertiser_ids, items = opened.advertiser_ids, opened.release.items
    item_index = [int(snapshot.item_A[one.place]) for one in chosen.ads]
    item_ids = iter(items.ids([index for index in item_index if index >= FIRST_INDEX]))
    return [
        AdCandidate(
            snapshot.ad_ids[one.place],
            advertiser_ids[snapshot.advertiser_A[one.place]],
            round(one.value, _DIGITS),
            one.source,
            one.rank,
            round(one.score, _DIGITS),
            next(item_ids) if index >= FIRST_INDEX else None,
        )
        for one, index in zip(chosen.ads, item_index, strict=True)
    ]


def _list_advertisers(reading: Reading, ask: AdvertiserAsk, mask: Mask) -> list[Listed]:
    opened = reading.opened
    if opened is None:
        return []
    ids = opened.advertiser_ids
    if mask is None:
        mask = _mask_blocked(opened, ask)
    return _walk(reading, ask, level="advertisers", mask=mask, name=lambda index: [ids[one] for one in index])


def _list_products(reading: Reading, ask: AdvertiserAsk) -> list[Listed]:
    if reading.opened is None:
        return []
    return _walk(reading, ask, level="products", mask=None, name=reading.opened.release.items.ids)


def _mask_blocked(opened: OpenRelease, ask: AdvertiserAsk) -> Mask:
    if not ask.blocked_advertisers:
        return None
    mask = opened.everything.copy()
    mask[[opened.release.advertisers.find(one) for one in ask.blocked_advertisers]] = False
    return mask


def _walk(
    reading: Reading, ask: AdvertiserAsk, *, level: Level, mask: Mask, name: Callable[[list[int]], list[str]]
) -> list[Listed]:
    """Returns what is eligible, down the ladder, nothing twice, `limit` at most in all.

    Args:
        reading: what the request is answered from.
        ask: the request.
        level: of the candidates.
        mask: by index, what may be shown; None where everything may.
        name: from indices to ids.
    """
    lists, num_missing, seen = list[Listed](), ask.limit, set[int]()
    for rung in list_rungs(reading, level, ask.country):
        index, listed = _take(rung, mask, seen, num_missing)
        if index:
            listed.ids = name(index)
            lists.append(listed)
        num_missing -= len(index)
        if num_missing == 0:
            break
        seen.update(rung.index.tolist())
    return lists


def _take(rung: Rung, mask: Mask, seen: set[int], num: int) -> tuple[list[int], Listed]:
    index, score, again = rung.index, rung.score, rung.is_repeat
    ranks = list(range(1, min(len(index), num) + 1))
    if mask is not None or seen:
        is_kept = np.ones(len(index), np.bool_) if mask is None else mask[index]
        if seen:
            is_kept = is_kept & [one not in seen for one in index.tolist()]
        kept = is_kept.nonzero()[0][:num]
        index, score, ranks = index[kept], score[kept], (kept + 1).tolist()
        again = None if again is None else again[kept]
    scores = score[:num].astype(np.float64).round(_DIGITS).tolist()
    is_repeat = [False] * len(scores) if again is None else again[:num].tolist()
    return index[:num].tolist(), Listed(rung.source, [], scores, ranks, is_repeat)
