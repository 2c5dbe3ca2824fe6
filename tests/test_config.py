"""The configuration: moments become microseconds without loss, whatever the zone."""

from datetime import datetime

import pytest

from forecart.config import to_us
from forecart.evaluation.people import to_moment

NOON_S = 1_512_129_600  # 2017-12-01 12:00 UTC, by date(1)


@pytest.mark.parametrize(
    ("text", "expected_us"),
    [
        ("2017-12-01T12:00:00+00:00", NOON_S * 1_000_000),
        ("2017-12-01T12:00:00.600000+00:00", NOON_S * 1_000_000 + 600_000),
        ("2017-12-01T12:00:00.400001+00:00", NOON_S * 1_000_000 + 400_001),
        ("2017-12-01T14:00:00.999999+02:00", NOON_S * 1_000_000 + 999_999),
        ("1969-12-31T23:59:59.400000+00:00", -600_000),
    ],
)
def test_a_fraction_of_a_second_is_kept(text, expected_us):
    moment = datetime.fromisoformat(text)
    assert to_us(moment) == expected_us
    assert to_moment(expected_us) == moment
