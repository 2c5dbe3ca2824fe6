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

from forecart.publish.store import RecordReader
from forecart.serving.answers import AdvertiserAnswer, AdvertiserAsk, CandidateAnswer, CandidateAsk, Listed
from forecart.serving.breaker import Breaker
from forecart.serving.consent import judge
from forecart.serving.current import OpenRelease, Served
from forecart.serving.guard import GuardedStore
from forecart.serving.ladder import Ladder, Level, Reading, Reason, Rung, list_rungs

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
        self._prefix, self._numbers = secrets.token_hex(6), count(1)

    def read(self, ask: AdvertiserAsk) -> Reading:
        """Returns what a request is answered from; waits for the store."""
        return self._ladder.read(self._served(), ask.user_id, judge(ask.consent), now_us=self._clock())

    def read_nothing(self, reason: Reason) -> Reading:
        """Returns what a request is answered from where the store was not waited for."""
        return self._ladder.without_record(self._served(), reason)

    def advertisers(self, ask: AdvertiserAsk, reading: Reading | None = None) -> AdvertiserAnswer:
        """Returns the user's next advertisers that may be shown, best first, at most `limit`.

        A list that eligibility makes short is filled up from the lists below it.
        """
        reading = reading or self.read(ask)
        lists = _list_advertisers(reading, ask)
        return AdvertiserAnswer(
            request_id=self._name(ask),
            release=reading.release_id,
            as_of=reading.as_of,
            source=lists[0].source if lists else "none",
            degraded=list(reading.reasons),
            advertisers=lists,
        )

    def candidates(self, ask: CandidateAsk, reading: Reading | None = None) -> CandidateAnswer:
        """Returns advertisers and products of the user, each at most `limit`."""
        reading = reading or self.read(ask)
        advertisers = _list_advertisers(reading, ask)
        return CandidateAnswer(
            request_id=self._name(ask),
            release=reading.release_id,
            as_of=reading.as_of,
            source=advertisers[0].source if advertisers else "none",
            degraded=[*reading.reasons, "no_inventory"],
            advertisers=advertisers,
            products=_list_products(reading, ask),
        )

    def _name(self, ask: AdvertiserAsk) -> str:
        return ask.request_id or f"{self._prefix}-{next(self._numbers)}"


def _list_advertisers(reading: Reading, ask: AdvertiserAsk) -> list[Listed]:
    opened = reading.opened
    if opened is None:
        return []
    ids, mask = opened.advertiser_ids, _mask_blocked(opened, ask)
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
