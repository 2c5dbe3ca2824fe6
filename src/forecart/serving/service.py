"""The candidate service: a request in, an answer out. A plain object that knows no HTTP.

The store, the releases and the clock are injected, and every failure of theirs has a place in the answer, so
that there is always one. A request is read once (`read`, the only step that may wait) and then answered from
what was read; whoever serves decides on which thread that happens.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from forecart.publish.store import RecordReader
from forecart.sequences.vocabulary import FIRST_INDEX
from forecart.serving.answers import (
    Advertiser,
    AdvertiserAnswer,
    AdvertiserAsk,
    CandidateAnswer,
    CandidateAsk,
    Product,
)
from forecart.serving.breaker import Breaker
from forecart.serving.consent import judge
from forecart.serving.current import OpenRelease, Served
from forecart.serving.guard import GuardedStore
from forecart.serving.ladder import Ladder, Level, Reading, Reason, Rung, Source, list_rungs

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
        store: of the records.
        served: returns the releases that are served now.
        breaker: of the store.
        max_staleness_s: a release with older histories is not served personally.
        clock: the moment of a request, microseconds since the epoch.
    """

    def __init__(
        self,
        store: RecordReader,
        served: Callable[[], Served],
        *,
        breaker: Breaker,
        max_staleness_s: int,
        clock: Clock = read_clock,
    ) -> None:
        self._ladder = Ladder(GuardedStore(store, breaker), max_staleness_s=max_staleness_s)
        self._served = served
        self._clock = clock

    def read(self, ask: AdvertiserAsk) -> Reading:
        """Returns what a request is answered from; waits for the store."""
        return self._ladder.read(self._served(), ask.user_id, judge(ask.consent), now_us=self._clock())

    def read_nothing(self, reason: Reason) -> Reading:
        """Returns what a request is answered from where the store was not waited for."""
        return self._ladder.without_record(self._served(), reason)

    def advertisers(self, ask: AdvertiserAsk, reading: Reading | None = None) -> AdvertiserAnswer:
        """Returns the user's next advertisers that may be shown, best first, at most `limit`.

        A list that eligibility makes short is filled up from the lists below it, each candidate with its own
        source.
        """
        reading = reading or self.read(ask)
        chosen = _choose_advertisers(reading, ask)
        return AdvertiserAnswer(
            request_id=_request_id(ask),
            release=reading.release_id,
            as_of=reading.as_of,
            source=chosen[0].source if chosen else "none",
            degraded=list(reading.reasons),
            candidates=chosen,
        )

    def candidates(self, ask: CandidateAsk, reading: Reading | None = None) -> CandidateAnswer:
        """Returns advertisers and products of the user, each at most `limit`."""
        reading = reading or self.read(ask)
        advertisers = _choose_advertisers(reading, ask)
        return CandidateAnswer(
            request_id=_request_id(ask),
            release=reading.release_id,
            as_of=reading.as_of,
            source=advertisers[0].source if advertisers else "none",
            degraded=[*reading.reasons, "no_inventory"],
            advertisers=advertisers,
            products=_choose_products(reading, ask),
        )


def _request_id(ask: AdvertiserAsk) -> str:
    return ask.request_id or secrets.token_hex(8)


def _choose_advertisers(reading: Reading, ask: AdvertiserAsk) -> list[Advertiser]:
    opened = reading.opened
    if opened is None:
        return []
    ids, mask = opened.advertiser_ids, _mask_blocked(opened, ask)
    return [
        Advertiser(ids[index], score, rank, source, again)
        for source, index, score, rank, again in _walk(reading, "advertisers", ask, mask)
    ]


def _choose_products(reading: Reading, ask: AdvertiserAsk) -> list[Product]:
    if reading.opened is None:
        return []
    rows = list(_walk(reading, "products", ask, None))
    ids = reading.opened.release.items.ids([row[1] for row in rows])
    return [
        Product(item_id, score, rank, source, again)
        for item_id, (source, _, score, rank, again) in zip(ids, rows, strict=True)
    ]


def _mask_blocked(opened: OpenRelease, ask: AdvertiserAsk) -> Mask:
    if not ask.blocked_advertisers:
        return None
    mask = np.ones(len(opened.advertiser_ids), np.bool_)
    mask[[opened.release.advertisers.find(one) for one in ask.blocked_advertisers]] = False
    mask[:FIRST_INDEX] = False
    return mask


def _walk(
    reading: Reading, level: Level, ask: AdvertiserAsk, mask: Mask
) -> Iterator[tuple[Source, int, float, int, bool]]:
    """Returns (source, index, score, rank, is repeat) of what is eligible, down the ladder."""
    num_missing, taken = ask.limit, set[int]()
    for rung in list_rungs(reading, level, ask.country):
        rows = _take(rung, mask, taken, num_missing)
        num_missing -= len(rows)
        yield from rows
        if num_missing == 0:
            return
        taken.update(rung.index.tolist())


def _take(rung: Rung, mask: Mask, taken: set[int], num: int) -> list[tuple[Source, int, float, int, bool]]:
    index, score, again = rung.index, rung.score, rung.is_repeat
    place: Any = range(1, len(index) + 1)
    if mask is not None or taken:
        is_kept = np.ones(len(index), np.bool_) if mask is None else mask[index]
        if taken:
            is_kept = is_kept & [one not in taken for one in index.tolist()]
        kept = np.flatnonzero(is_kept)
        index, score, place = index[kept], score[kept], (kept + 1).tolist()
        again = None if again is None else again[kept]
    rounded = np.round(score[:num].astype(np.float64), _DIGITS).tolist()
    repeats = [False] * len(rounded) if again is None else again[:num].tolist()
    return list(zip(repeat(rung.source), index[:num].tolist(), rounded, place, repeats))
