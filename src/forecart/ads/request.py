"""What an ad server asks: for whom, where, on what, and what must not come back."""

from collections.abc import Mapping
from typing import NamedTuple


class AdRequest(NamedTuple):
    """A request, as far as it decides which ads may be shown. What is unknown is None.

    Attributes:
        now_us: the moment, microseconds since the epoch, UTC.
        num_ads: how many are wanted.
        user_id: for whom.
        country: ISO 3166 alpha-2, as the inventory writes it.
        device: such as `phone`, as the inventory writes it.
        age_band: such as `25-34`, likewise.
        interests: of the user or the page.
        blocked_categories: paths; each blocks all below it.
        blocked_advertisers: advertiser ids.
        shown: how often this user was shown an ad, by ad id; None where that is not known.
    """

    now_us: int
    num_ads: int = 10
    user_id: str | None = None
    country: str | None = None
    device: str | None = None
    age_band: str | None = None
    interests: frozenset[str] = frozenset()
    blocked_categories: tuple[str, ...] = ()
    blocked_advertisers: tuple[str, ...] = ()
    shown: Mapping[str, int] | None = None

    @property
    def audience(self) -> tuple[str | None, str | None, str | None, frozenset[str]]:
        """What targeting reads: requests with the same share a mask."""
        return self.country, self.device, self.age_band, self.interests
