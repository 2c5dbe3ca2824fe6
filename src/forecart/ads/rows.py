"""Rows of an inventory: advertiser, campaign, ad group and ad, checked field by field as they are read.

A row that breaks a rule is an error that names the field; who reads a file counts it and goes on. Unknown
keys are errors too: a misspelt limit must not be no limit.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, TypeVar

from forecart.errors import DataError

STATUSES: Final = ("active", "paused", "ended")
REMOVED: Final = "removed"
"""Status of an ad or a group that is not there any more; what was shown of it still counts towards caps."""
CATEGORY_SEPARATOR: Final = ">"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_COUNT: Final = 2**31 - 1
"""Larger counts, and texts that are no Unicode, would be refused by the arrays, long after their row."""


@dataclass(frozen=True)
class Advertiser:
    """Whether anything of an advertiser may be shown.

    Attributes:
        advertiser_id: unique.
        status: active, paused or ended; None is not active.
    """

    advertiser_id: str
    status: str | None = None


@dataclass(frozen=True)
class Campaign:
    """What an advertiser pays for.

    Attributes:
        campaign_id: unique.
        advertiser_id: whose.
        status: active, paused or ended; None is not active.
        starts_us: first moment it may be shown, None from ever; microseconds since the epoch.
        ends_us: first moment it may not be shown any more, None for ever.
        budget_usd: in all; None is no limit.
        spend_usd: so far; None is unknown, and with a budget not eligible.
        daily_budget_usd: of a day in UTC; None is no limit.
        daily_spend_usd: on `daily_spend_on`; None is unknown, and with a daily budget not eligible.
        daily_spend_on: the day of `daily_spend_usd`, days since the epoch. On a later day nothing is spent
            yet; on an earlier one the spend is unknown.
        frequency_cap: how often a user may be shown ads of the campaign, all together; None is no limit.
    """

    campaign_id: str
    advertiser_id: str
    status: str | None = None
    starts_us: int | None = None
    ends_us: int | None = None
    budget_usd: float | None = None
    spend_usd: float | None = None
    daily_budget_usd: float | None = None
    daily_spend_usd: float | None = None
    daily_spend_on: int | None = None
    frequency_cap: int | None = None


@dataclass(frozen=True)
class AdGroup:
    """Ads of a campaign for one audience. A list means one of these; None means everyone.

    Attributes:
        ad_group_id: unique.
        campaign_id: of the campaign.
        status: as of a campaign.
        countries: whom it may be shown to, by country.
        devices: likewise by device.
        age_bands: likewise by age band.
        interests: likewise by interest: one of the request's is enough.
        frequency_cap: how often a user may be shown ads of the group; None is no limit.
    """

    ad_group_id: str
    campaign_id: str
    status: str | None = None
    countries: tuple[str, ...] | None = None
    devices: tuple[str, ...] | None = None
    age_bands: tuple[str, ...] | None = None
    interests: tuple[str, ...] | None = None
    frequency_cap: int | None = None


@dataclass(frozen=True)
class Ad:
    """What is shown.

    Attributes:
        ad_id: unique.
        ad_group_id: of the group.
        bid_usd: for a conversion.
        status: as of a campaign.
        item_id: the product it shows.
        category: path of what it shows; None is unknown, and not eligible where categories are blocked.
    """

    ad_id: str
    ad_group_id: str
    bid_usd: float
    status: str | None = None
    item_id: str | None = None
    category: str | None = None


Row = TypeVar("Row", Advertiser, Campaign, AdGroup, Ad)


def read_category(path: str) -> tuple[str, ...]:
    """Returns the steps of a category path, the same for every spelling: `FOOD>Candy ` as `food > candy`."""
    steps = (" ".join(step.split()).casefold() for step in path.split(CATEGORY_SEPARATOR))
    return tuple(step for step in steps if step)


def parse_row(kind: type[Row], values: Mapping[str, Any]) -> Row:
    """Returns a row of plain values, checked.

    Args:
        kind: what it is a row of.
        values: by field; times may be ISO 8601 text, dates of a day too.

    Raises:
        DataError: a field is missing, unknown, or not what it must be.
    """
    names = {field.name for field in fields(kind)}
    inputs = {INPUTS.get(name, name): value for name, value in values.items()}
    if unknown := sorted(set(inputs) - names):
        raise DataError(
            f"a row of {kind.__name__} has fields {', '.join(sorted(names))}, {unknown[0]!r} arrived"
        )
    parsed = {name: _PARSERS[name](name, value) for name, value in inputs.items() if value is not None}
    try:
        return kind(**parsed)
    except TypeError:
        missing = next(field.name for field in fields(kind) if field.name not in parsed)
        raise DataError(f"a row of {kind.__name__} needs {missing}, it is not there") from None


def _is_text(value: Any) -> bool:
    if not isinstance(value, str) or not value:
        return False
    # JSON can spell half of a surrogate pair, which no file can hold.
    return not any("\ud800" <= char <= "\udfff" for char in value)


def _parse_id(name: str, value: Any) -> str:
    if not _is_text(value):
        raise DataError(f"{name} is a text that is not empty, {value!r:.80} arrived")
    return str(value)


def _parse_category(name: str, value: Any) -> str:
    category = _parse_id(name, value)
    if not read_category(category):
        raise DataError(f"{name} is a path such as Food > Candy, {value!r:.80} arrived")
    return category


def _parse_status(name: str, value: Any) -> str:
    if value not in STATUSES:
        raise DataError(f"{name} is one of {', '.join(STATUSES)}, {value!r:.80} arrived")
    return str(value)


def _parse_usd(name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # Compared before it is converted: an int may be larger than any float.
    if not is_number or not 0 <= value <= sys.float_info.max:
        raise DataError(f"{name} is a number of dollars from 0, {value!r:.80} arrived")
    return float(value)


def _parse_count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_COUNT:
        raise DataError(f"{name} is a whole number from 0 to {_MAX_COUNT}, {value!r:.80} arrived")
    return value


def _parse_names(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(_is_text(one) for one in value):
        raise DataError(f"{name} is a list of texts, {value!r:.80} arrived")
    return tuple(value)


def _parse_moment(name: str, value: Any) -> int:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(moment, date) and not isinstance(moment, datetime):
            moment = datetime(moment.year, moment.month, moment.day)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return int((moment - _EPOCH) // timedelta(microseconds=1))
    except (ValueError, AttributeError, TypeError, OverflowError):
        raise DataError(f"{name} is a time such as 2017-12-01T00:00:00Z, {value!r:.80} arrived") from None


def _parse_day(name: str, value: Any) -> int:
    return _parse_moment(name, value) // 86_400_000_000


INPUTS: Final = {"starts_at": "starts_us", "ends_at": "ends_us"}
"""What a file calls a time, which is a number here."""
_PARSERS: Final[dict[str, Callable[[str, Any], Any]]] = {
    **dict.fromkeys(("campaign_id", "advertiser_id", "ad_group_id", "ad_id", "item_id"), _parse_id),
    "category": _parse_category,
    "status": _parse_status,
    **dict.fromkeys(("starts_us", "ends_us"), _parse_moment),
    **dict.fromkeys(
        ("budget_usd", "spend_usd", "daily_budget_usd", "daily_spend_usd", "bid_usd"), _parse_usd
    ),
    "daily_spend_on": _parse_day,
    **dict.fromkeys(("countries", "devices", "age_bands", "interests"), _parse_names),
    "frequency_cap": _parse_count,
}
