"""The candidate service: a request in, an answer out. A plain object that knows no HTTP.

The store, the releases and the clock are injected, and every failure of theirs has a place in the answer, so
that there is always one. A request is read once (`read`, the only step that may wait) and then answered from
what was read; whoever serves decides on which thread that happens.
"""

import secrets
import time
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from forecart.publish.store import RecordReader
from forecart.sequences.vocabulary import FIRST_INDEX
from forecart.serving.answers import Advertiser, AdvertiserAnswer, AdvertiserAsk
from forecart.serving.breaker import Breaker
from forecart.serving.consent import judge
from forecart.serving.current import OpenRelease, Served
from forecart.serving.guard import GuardedStore
from forecart.serving.ladder import Ladder, Reading, Reason, Rung, list_rungs

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
        opened = reading.opened
        mask = None if opened is None else self._advertiser_mask(opened, ask)
        chosen = _choose(reading, ask, mask)
        return AdvertiserAnswer(
            request_id=ask.request_id or secrets.token_hex(8),
            release=None if opened is None else opened.release.release_id,
            as_of=None if opened is None else opened.as_of,
            source=chosen[0].source if chosen else "none",
            degraded=list(reading.reasons),
            candidates=chosen,
        )

    def _advertiser_mask(self, opened: OpenRelease, ask: AdvertiserAsk) -> Mask:
        if not ask.blocked_advertisers:
            return None
        mask = np.ones(len(opened.advertiser_ids), np.bool_)
        mask[[opened.release.advertisers.find(one) for one in ask.blocked_advertisers]] = False
        mask[:FIRST_INDEX] = False
        return mask


def _choose(reading: Reading, ask: AdvertiserAsk, mask: Mask) -> list[Advertiser]:
    chosen: list[Advertiser] = []
    if reading.opened is None:
        return chosen
    ids = reading.opened.advertiser_ids
    taken: set[int] = set()
    for rung in list_rungs(reading, "advertisers", ask.country):
        rows = _eligible_rows(rung, mask, taken, ask.limit - len(chosen))
        chosen += [
            Advertiser(ids[index], score, rank, rung.source, again) for index, score, rank, again in rows
        ]
        if len(chosen) == ask.limit:
            break
        taken.update(rung.index.tolist())
    return chosen


def _eligible_rows(
    rung: Rung, mask: Mask, taken: set[int], num: int
) -> Iterable[tuple[int, float, int, bool]]:
    """Returns (index, score, rank, is repeat) of the first `num` of a list, eligible and not taken."""
    index, score, again = rung.index, rung.score, rung.is_repeat
    place = np.arange(1, len(index) + 1)
    if mask is not None or taken:
        is_kept = np.ones(len(index), np.bool_) if mask is None else mask[index]
        if taken:
            is_kept &= [one not in taken for one in index.tolist()]
        index, score, place = index[is_kept], score[is_kept], place[is_kept]
        again = None if again is None else again[is_kept]
    rounded = np.round(score[:num].astype(np.float64), _DIGITS).tolist()
    repeats = [False] * len(rounded) if again is None else again[:num].tolist()
    return zip(index[:num].tolist(), rounded, place[:num].tolist(), repeats, strict=True)
