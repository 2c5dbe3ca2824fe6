"""From the lists that a request may be answered from to what may be shown: best first, nothing twice.

Every lookup goes through here, for a hundred candidates in some ten microseconds: each column is one pass of
numpy over the places that are kept, and what is not needed for this request is not looked at.
"""

from collections.abc import Callable
from itertools import chain

import numpy as np
import numpy.typing as npt

from forecart.serving.answers import AdvertiserAsk, Listed
from forecart.serving.current import OpenRelease
from forecart.serving.ladder import Reading, list_rungs
from forecart.serving.rungs import Level

Mask = npt.NDArray[np.bool_] | None
"""By index of the release, what may be shown; None where everything may."""
Indices = npt.NDArray[np.int32]
Places = npt.NDArray[np.intp]


def list_advertisers(reading: Reading, ask: AdvertiserAsk, mask: Mask) -> list[Listed]:
    """Returns the advertisers that may be shown, `limit` at most, by list.

    Args:
        reading: what the request is answered from.
        ask: the request.
        mask: of the inventory; where there is none, only what the request blocks is left out.
    """
    opened = reading.opened
    if opened is None:
        return []
    if mask is None:
        mask = _mask_blocked(opened, ask)
    return _walk(reading, ask, level="advertisers", mask=mask, name=opened.name_advertisers)


def list_products(reading: Reading, ask: AdvertiserAsk) -> list[Listed]:
    """Returns the products, `limit` at most, by list."""
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
    lists: list[Listed] = []
    above: list[Indices] = []
    num_missing = ask.limit
    for rung in list_rungs(reading, level, ask.country):
        index = rung.index
        places = np.arange(len(index)) if mask is None else mask.take(index).nonzero()[0]
        if above and len(places):
            places = _without(above, places, index)
        if num := min(len(places), num_missing):
            places = places[:num]
            ids, scores = name(index.take(places)), rung.score.take(places)
            lists.append(Listed(rung.source, ids, scores, places + 1, rung.is_repeat.take(places)))
            num_missing -= num
            if num_missing == 0:
                break
        above.append(index)
    return lists


def _without(above: list[Indices], places: Places, index: Indices) -> Places:
    """Returns the places whose candidates are in no list above."""
    seen, listed = set(chain.from_iterable(one.tolist() for one in above)), index.tolist()
    return np.array([place for place in places.tolist() if listed[place] not in seen], np.intp)
