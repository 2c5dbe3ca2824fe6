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
)
from forecart.serving.choosing import AdChooser, Chosen
from forecart.serving.consent import judge
from forecart.serving.current import Served
from forecart.serving.guard import GuardedStore
from forecart.serving.ladder import Ladder, Reading, Reason, list_rungs
from forecart.serving.listing import list_advertisers, list_products
from forecart.serving.outcome_writer import OutcomeWriter

Clock = Callable[[], int]
_DIGITS: Final = 6
"""Of values and scores of ads, after the point."""


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
        opened, mask = reading.opened, None
        degraded: list[str] = [*reading.reasons]
        if opened is not None and (eligibility := opened.ads) is not None:
            mask = eligibility.advertisers(self._describe(ask))
            degraded += _doubt(eligibility)
        lists = list_advertisers(reading, ask, mask)
        return AdvertiserAnswer(
            request_id=self._name(ask),
            release=reading.release_id,
            as_of=reading.as_of,
            source=lists[0].source if lists else "none",
            degraded=degraded,
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
            answer.advertisers = list_advertisers(reading, ask, None)
            answer.products = list_products(reading, ask)
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


def _doubt(eligibility: Eligibility) -> tuple[Reason, ...]:
    """Returns why nothing may be shown where that is not what the inventory says."""
    return () if eligibility.snapshot.is_readable else ("inventory_unreadable",)


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
