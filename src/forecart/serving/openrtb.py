"""OpenRTB 2.6: a bid request as a request of ours, and our answer as bids.

Reads what candidates need and tolerates everything else. A request without an id or an impression is
malformed; consent that cannot be read is not, it makes the answer non-personal. `user.buyeruid`, the buyer's
own id, is the user; without it `user.id` is. `bcat` blocks categories and `badv` advertisers, as far as the
inventory names them the same way: categories of IAB, domains for advertisers.

The best ads go to the impressions in their order, one each, where they are worth the floor. A price is what a
thousand impressions are worth, in dollars, and never above what the operator allows (`max_cpm_usd`); a floor
is for a thousand too. An impression with a floor in another currency gets no bid. Where values are no dollars
(`uncalibrated`, `l1_failed`) there is no bid at all.

Source: IAB Tech Lab, "OpenRTB 2.6", section 3.2.
"""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct, json

from forecart.serving.answers import CandidateAnswer, CandidateAsk
from forecart.serving.countries import ALPHA_2
from forecart.serving.ladder import Reason

_SAID_TWICE: Final = "said twice, and differently"
"""A signal that nobody can read."""
_CURRENCY: Final = "USD"
_NO_PRICES: Final[frozenset[Reason]] = frozenset({"uncalibrated", "l1_failed"})
"""Reasons for which values of ads are an order and no dollars."""
_PER_THOUSAND: Final = 1000
_DIGITS: Final = 6
_Text = Annotated[str, Meta(min_length=1)]


class Imp(Struct):
    """An impression that is offered."""

    id: _Text
    bidfloor: float | None = None
    bidfloorcur: str | None = None


class Geo(Struct):
    """Where the device is."""

    country: str | None = None


class Device(Struct):
    """What the ad is shown on; `lmt` and `dnt` limit tracking."""

    geo: Geo | None = None
    lmt: Any = None
    dnt: Any = None


class Extension(Struct):
    """Signals that were extensions before version 2.6, and one that still is."""

    consent: Any = None
    gdpr: Any = None
    us_privacy: Any = None
    gpc: Any = None


class User(Struct):
    """Who the ad is shown to."""

    id: str | None = None
    buyeruid: str | None = None
    consent: Any = None
    ext: Extension | None = None


class Regs(Struct):
    """What regulates the request."""

    coppa: Any = None
    gdpr: Any = None
    us_privacy: Any = None
    gpp: Any = None
    ext: Extension | None = None


class BidRequest(Struct):
    """A bid request, as far as it is read."""

    id: _Text
    imp: Annotated[list[Imp], Meta(min_length=1, max_length=100)]
    device: Device | None = None
    user: User | None = None
    regs: Regs | None = None
    tmax: float | None = None
    bcat: list[str] | None = None
    badv: list[str] | None = None
    cur: list[str] | None = None


class Bid(Struct):
    """A bid; `price` is for a thousand impressions."""

    id: str
    impid: str
    price: float
    adid: str
    crid: str


class SeatBid(Struct):
    """The bids of a seat."""

    bid: list[Bid]


class BidResponse(Struct):
    """The answer to a bid request."""

    id: str
    seatbid: list[SeatBid]
    cur: str = _CURRENCY


read_bid_request: Final = json.Decoder(BidRequest).decode


def read_ask(request: BidRequest) -> CandidateAsk:
    """Returns what is asked for."""
    user, device = request.user or User(), request.device or Device()
    country = device.geo.country if device.geo is not None else None
    return CandidateAsk(
        request_id=request.id,
        user_id=user.buyeruid or user.id or None,
        consent=read_signals(user, request.regs or Regs(), device),
        country=ALPHA_2.get((country or "").upper()),
        limit=len(request.imp),
        blocked_categories=request.bcat or [],
        blocked_advertisers=request.badv or [],
        deadline_ms=request.tmax if request.tmax and request.tmax > 0 else None,
    )


def make_bids(
    request: BidRequest, answer: CandidateAnswer, *, max_cpm_usd: float | None = None
) -> BidResponse | None:
    """Returns the bids for a request; None where there is nothing to bid, or no price to bid.

    Args:
        request: what is offered.
        answer: ads, the most valuable first.
        max_cpm_usd: the most that is bid, whatever an ad is worth; an impression with a floor above it gets
            no bid.
    """
    if (request.cur and _CURRENCY not in request.cur) or not _NO_PRICES.isdisjoint(answer.degraded):
        return None
    bids: list[Bid] = []
    ads = iter(answer.ads)
    ad = next(ads, None)
    for imp in request.imp:
        if ad is None:
            break
        worth = round(_PER_THOUSAND * ad.value, _DIGITS)
        price = worth if max_cpm_usd is None else min(worth, max_cpm_usd)
        if (imp.bidfloorcur or _CURRENCY) == _CURRENCY and price > 0 and price >= (imp.bidfloor or 0):
            bids.append(Bid(f"{answer.request_id}-{imp.id}", imp.id, price, ad.ad_id, ad.ad_id))
            ad = next(ads, None)
    return BidResponse(request.id, [SeatBid(bids)]) if bids else None


def read_signals(user: User, regs: Regs, device: Device) -> dict[str, Any]:
    """Returns the signals of consent (`consent.judge`), each from wherever it may stand."""
    of_user, of_regs = user.ext or Extension(), regs.ext or Extension()
    do_not_track = _flag(device.dnt)
    return {
        "gdpr": _agree(regs.gdpr, of_regs.gdpr),
        "tc_string": _agree(user.consent, of_user.consent),
        "us_privacy": _agree(regs.us_privacy, of_regs.us_privacy),
        "gpp": regs.gpp,
        "gpc": _flag(of_regs.gpc),
        "coppa": regs.coppa,
        "lmt": _flag(device.lmt) if do_not_track in (None, 0) else do_not_track,
    }


def _agree(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    return one if one == other else _SAID_TWICE


def _flag(value: Any) -> Any:
    """Returns a 0 or 1 that came as text as a number, and anything else as it is."""
    return {"0": 0, "1": 1}.get(value, value) if isinstance(value, str) else value
