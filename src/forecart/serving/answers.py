"""What goes over the wire: requests and answers as typed structs, the contract that OpenAPI shows.

A request with a field that is not here is refused, so that a misspelt one is not silently ignored; an answer
may gain fields.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

Id = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
Country = Annotated[str, Meta(min_length=2, max_length=3, description="as the fallback lists name it")]


class AdvertiserAsk(Struct, forbid_unknown_fields=True, kw_only=True):
    """Whose next advertisers?"""

    user_id: Id | None = None
    consent: Annotated[
        dict[str, Any] | None,
        Meta(
            description="gdpr, tcf_purposes, tc_string, gpp, gpp_sections, us_privacy, opt_out, gpc, lmt, "
            "coppa; without any that allows it the answer is not personal"
        ),
    ] = None
    country: Country | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    blocked_advertisers: Annotated[list[Id], Meta(max_length=1000)] = []
    deadline_ms: Annotated[float, Meta(gt=0, le=10_000)] | None = None
    request_id: Id | None = None


class Advertiser(Struct):
    """An advertiser of an answer."""

    advertiser_id: str
    score: Annotated[float, Meta(description="comparable within one source only")]
    rank: Annotated[int, Meta(description="place in the list that `source` names, from 1")]
    source: str
    is_repeat: Annotated[bool, Meta(description="the user converted with it before")]


class AdvertiserAnswer(Struct, kw_only=True):
    """Advertisers, best first, and where they come from."""

    request_id: str
    release: str | None
    as_of: Annotated[str | None, Meta(description="up to when histories were read")]
    source: Annotated[str, Meta(description="of the first candidate")]
    degraded: Annotated[list[str], Meta(description="why the answer is less than it could be")]
    candidates: list[Advertiser]


class Problem(Struct):
    """Why there is no answer."""

    error: str
