"""The purposes that a TCF v2 consent string consents to.

Reads the core segment, the part before the first dot, as far as the purposes: bits in base64url, version
first. Everything else that a string says (vendors, legitimate interest, publisher restrictions) is the
business of whoever collects the consent and is not looked at.

Source: IAB Tech Lab, "Consent string and vendor list formats v2", table "The core string".
"""

import base64
import binascii
from typing import Final

_VERSION: Final = 2
_VERSION_BITS: Final = 6
_PURPOSES_AT: Final = 152
_NUM_PURPOSES: Final = 24
_LEAST_BITS: Final = 230
"""Of a core segment: up to the flag that says how its vendors are encoded."""
_MAX_CHARACTERS: Final = 8192


def read_purposes(text: str) -> frozenset[int] | None:
    """Returns the purposes consented to, from 1; None for what is no consent string of version 2."""
    core = text.split(".", 1)[0]
    if len(text) > _MAX_CHARACTERS or not text.isascii():
        return None
    try:
        raw = base64.b64decode(core + "=" * (-len(core) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    if 8 * len(raw) < _LEAST_BITS or raw[0] >> (8 - _VERSION_BITS) != _VERSION:
        return None
    bits = int.from_bytes(raw, "big") >> (8 * len(raw) - _PURPOSES_AT - _NUM_PURPOSES)
    return frozenset(number for number in range(1, _NUM_PURPOSES + 1) if bits >> (_NUM_PURPOSES - number) & 1)
