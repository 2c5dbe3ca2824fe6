"""What goes over the wire: requests and answers as typed structs, the contract that OpenAPI shows.

A request with a field that is not here is refused, so that a misspelt one is not silently ignored; an answer
may gain fields.
"""

from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import orjson
from msgspec import Meta, Struct, json, structs

Id = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
Text = Annotated[str, Meta(min_length=1, max_length=256)]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Country = Annotated[str, Meta(min_length=2, max_length=3, description="as the fallback lists name it")]


class AdvertiserAsk(Struct, forbid_unknown_fields=True, kw_only=True):
    """Whose next advertisers, and whom may they be shown to?"""

    user_id: Id | None = None
    consent: Annotated[
        dict[str, Any] | None,
        Meta(
            description="gdpr, tcf_purposes, tc_string, gpp, gpp_sections, us_privacy, opt_out, gpc, lmt, "
            "coppa; without any that allows it the answer is not personal"
        ),
    ] = None
    country: Country | None = None
    device: Text | None = None
    age_band: Text | None = None
    interests: Annotated[list[Text], Meta(max_length=100)] = []
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    blocked_advertisers: Annotated[list[Id], Meta(max_length=1000)] = []
    blocked_categories: Annotated[list[Text], Meta(max_length=1000)] = []
    shown: Annotated[
        dict[str, Count] | None,
        Meta(description="ad -> how often it was shown to the user; without it ads with a cap are not shown"),
    ] = None
    deadline_ms: Annotated[float, Meta(gt=0, le=10_000)] | None = None
    request_id: Id | None = None


class CandidateAsk(AdvertiserAsk, forbid_unknown_fields=True, kw_only=True):
    """Which ads?"""

    limit: Annotated[
        int, Meta(ge=1, le=100, description="ads, or candidates where there is no inventory")
    ] = 10


class CandidateBatch(Struct, forbid_unknown_fields=True):
    """Several requests at once; the service limits how many."""

    requests: list[CandidateAsk]


def _column(kind: str, description: str) -> Meta:
    """Describes an array of numpy, which msgspec does not know: it is written as a list (`encode`)."""
    return Meta(description=description, extra_json_schema={"type": "array", "items": {"type": kind}})


class Listed(Struct):
    """Candidates of one list, best first, as columns of one length: smaller and faster than objects."""

    source: Annotated[str, Meta(description="which list")]
    ids: list[str]
    scores: Annotated[Any, _column("number", "comparable within one source only")]
    ranks: Annotated[Any, _column("integer", "places in the list that `source` names, from 1")]
    is_repeat: Annotated[Any, _column("boolean", "the user converted with it before")]


class AdvertiserAnswer(Struct, kw_only=True):
    """Advertisers, best first, and where they come from."""

    request_id: str
    release: str | None
    as_of: Annotated[str | None, Meta(description="up to when histories were read")]
    source: Annotated[str, Meta(description="of the first list")]
    degraded: Annotated[list[str], Meta(description="why the answer is less than it could be")]
    advertisers: Annotated[list[Listed], Meta(description="lists, the better ones first; none twice")]


class AdCandidate(Struct, omit_defaults=True, gc=False):
    """An ad that may be shown, and how it came here."""

    ad_id: str
    advertiser_id: str
    value: Annotated[
        float,
        Meta(
            description="dollars that showing it is worth; the order of the answer, and no more where "
            "`degraded` has uncalibrated or l1_failed"
        ),
    ]
    source: Annotated[str, Meta(description="the list that its candidate is from")]
    rank: Annotated[int, Meta(description="of the candidate in that list, from 1")]
    score: Annotated[float, Meta(description="of the candidate")]
    item_id: str | None = None


class CandidateAnswer(Struct, kw_only=True):
    """Candidates of a request, and where they come from."""

    request_id: str
    release: str | None
    as_of: Annotated[str | None, Meta(description="up to when histories were read")]
    source: Annotated[str, Meta(description="the best list that the request is answered from")]
    degraded: Annotated[list[str], Meta(description="why the answer is less than it could be")]
    inventory: Annotated[int | None, Meta(description="version of the inventory in this process")]
    ads: Annotated[list[AdCandidate], Meta(description="the most valuable first")]
    advertisers: Annotated[list[Listed], Meta(description="where there is no inventory")]
    products: Annotated[list[Listed], Meta(description="where there is no inventory")]


class CandidateAnswers(Struct):
    """One answer for each request of a batch, in their order."""

    answers: list[CandidateAnswer]


class SuppressAsk(Struct, forbid_unknown_fields=True):
    """Who must never be answered personally again, and why."""

    user_id: Id
    reason: Literal["opt_out", "deletion"]


class InventoryAsk(Struct, forbid_unknown_fields=True):
    """Changes of the inventory, applied in their order as one."""

    updates: Annotated[
        list[dict[str, Any]],
        Meta(
            min_length=1,
            max_length=1000,
            description='such as {"ad": "a7", "set": {"status": "paused"}}, {"campaign": "c1", "set": '
            '{"spend_usd": 90.5}}, {"ad": "a8", "add": {...}}, {"ad": "a7", "remove": true}',
        ),
    ]


class InventoryAnswer(Struct):
    """What became of the changes, in this process; the others read them within a moment."""

    applied: int
    rejected: Annotated[int, Meta(description="those that break a rule, or change what is not there")]
    reasons: Annotated[list[str], Meta(description="of the first rejected, by their line of updates.jsonl")]


class Done(Struct):
    """It was done."""

    status: str = "ok"


class Readiness(Struct):
    """Whether there is a release to answer from."""

    release: str | None
    problem: Annotated[str | None, Meta(description="why what the store names is not served")]
    breaker: Annotated[
        str,
        Meta(description="of the store: closed where it answers, open where it does not, half_open between"),
    ]


class Problem(Struct):
    """Why there is no answer."""

    error: str


def _list_numbers(column: npt.NDArray[Any]) -> list[Any]:
    """Returns what `encode_lists` writes for a column: of single precision the fewest digits that tell it."""
    return [float(str(one)) for one in column] if column.dtype == np.float32 else column.tolist()


_encoder: Final = json.Encoder(enc_hook=_list_numbers)


def encode(answer: Struct) -> bytes:
    """Returns an answer as JSON."""
    return _encoder.encode(answer)


def encode_lists(answer: AdvertiserAnswer) -> bytes:
    """Returns what `encode` does in half of its time: orjson writes arrays as they are."""
    return orjson.dumps(answer, default=structs.asdict, option=orjson.OPT_SERIALIZE_NUMPY)
