"""The candidate service: a request in, an answer out. A plain object that knows no HTTP.

The store, the releases and the clock are injected, and every failure of theirs has a place in the answer, so
that there is always one. A request is read once (`read`, the only step that may wait) and then answered from
what was read; whoever serves decides on which thread that happens.
"""

import secrets
import time
from collections.abc import Callable
from itertools import chain, count
from typing import Final

import numpy as np
import numpy.typing as npt

from forecart.ads.eligibility import Eligibility
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
Indices = npt.NDArray[np.int32]
Places = npt.NDArray[np.intp]
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
            degraded=[*reading.reasons, *_doubt(eligibility)],
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
        elif not eligibility.snapshot.is_readable:
            answer.degraded += _doubt(eligibility)
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


def _doubt(eligibility: Eligibility | None) -> list[Reason]:
    """Returns why nothing may be shown where that is not what the inventory says."""
    return [] if eligibility is None or eligibility.snapshot.is_readable else ["inventory_unreadable"]


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
    if mask is None:
        mask = _mask_blocked(opened, ask)
    return _walk(reading, ask, level="advertisers", mask=mask, name=opened.name_advertisers)


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
    reading: Reading, ask: AdvertiserAsk, *, level: Level, mask: Mask, name: Callable[[Indices], list[str]]
) -> list[Listed]:
    """Returns what is eligible, down the ladder, nothing twice, `limit` at most in all.

    Args:
        reading: what the request is answered from.
        ask: the request.
        level: of the candidates.
        mask: by index, what may be shown; None where everything may.
        name: from indices to ids.
    """
    lists, num_missing, above = list[Listed](), ask.limit, list[Indices]()
    for rung in list_rungs(reading, level, ask.country):
        kept = _find_kept(rung.index, mask, above, num_missing)
        if num_kept := len(rung.index[:num_missing] if kept is None else kept):
            lists.append(_list(rung, kept, num_kept, name))
        num_missing -= num_kept
        if num_missing == 0:
            break
        above.append(rung.index)
    return lists


def _find_kept(index: Indices, mask: Mask, above: list[Indices], num: int) -> Places | None:
    """Returns the places of the first `num` that may be shown and are not above; None for those in front."""
    # On the way of every lookup: the calls are numpy's fastest for what they do.
    kept = None if mask is None else mask.take(index).nonzero()[0]
    if above and (kept is None or len(kept)):
        seen, listed = set(chain.from_iterable(one.tolist() for one in above)), index.tolist()
        places = range(len(index)) if kept is None else kept.tolist()
        return np.array([place for place in places if listed[place] not in seen][:num], np.intp)
    return None if kept is None or len(kept) == len(index) else kept[:num]


def _list(rung: Rung, kept: Places | None, num: int, name: Callable[[Indices], list[str]]) -> Listed:
    """Returns `num` of a rung's candidates: those at the places that are kept, or those in front."""
    index, score, again = rung.index[:num], rung.score[:num], rung.is_repeat
    if kept is None:
        ranks = list(range(1, num + 1))
        again = None if again is None else again[:num]
    else:
        index, score, ranks = rung.index.take(kept), rung.score.take(kept), (kept + 1).tolist()
        again = None if again is None else again.take(kept)
    scores = score.astype(np.float64).round(_DIGITS).tolist()
    return Listed(rung.source, name(index), scores, ranks, [False] * num if again is None else again.tolist())
