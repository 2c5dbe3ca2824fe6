"""Laws recover the power that points were made with, and say how far beyond them a size lies."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecart.errors import ConfigError
from forecart.planning.laws import fit_law, fit_line, load_laws, read_law, read_line


@given(st.floats(0.5, 1.6), st.floats(-8, -3))
def test_points_on_a_law_give_the_law_back(power, exponent):
    points = [(size, 10**exponent * size**power) for size in (1e5, 3e5, 1e6, 1e7)]
    law = fit_law(points)
    assert law.power == pytest.approx(power) and law.factor == pytest.approx(10**exponent)
    assert law.residual < 1e-9 and (law.smallest, law.largest, law.num_sizes) == (1e5, 1e7, 4)
    assert law.cpu_s(5e6) == pytest.approx(10**exponent * 5e6**power)
    # A hundred times the largest: by the law, or in proportion where that is more.
    assert law.cpu_s(1e9) == pytest.approx(10**exponent * 1e7**power * 100 ** max(power, 1))


def test_the_residual_is_the_largest_relative_distance():
    # The line through (1, 2), (10, 20) and (100, 200) with the middle one a fifth higher: log-linear by hand.
    law = fit_law([(1, 2.0), (10, 24.0), (100, 200.0)])
    shift = math.log(1.2) / 3
    assert law.power == pytest.approx(1.0)
    assert law.factor == pytest.approx(2 * math.exp(shift))
    assert law.residual == pytest.approx(max(1.2 / math.exp(shift) - 1, 1 - 1 / math.exp(shift)))


def test_how_far_beyond_is_told_and_within_is_one():
    law = fit_law([(10, 1.0), (1000, 100.0)])
    assert [law.beyond(size) for size in (1, 1000, 5000)] == [1, 1, 5]
    assert law.cpu_s(0) == 0


def test_one_size_makes_no_law():
    with pytest.raises(ValueError, match="at least two sizes, 1 arrived"):
        fit_law([(10, 1.0), (10, 1.1)])


def test_memory_is_a_line_that_never_falls():
    line = fit_line([(1e6, 0.5), (3e6, 0.8), (5e6, 0.9)])
    # Through the two largest: .1 GB for two million more.
    assert line.bytes_each == pytest.approx(50) and line.base_gb == pytest.approx(0.65)
    assert line.gb(1e9) == pytest.approx(50.65)
    assert fit_line([(1, 0.9), (2, 0.5)]).bytes_each == 0


def test_laws_of_the_package_say_where_they_were_measured():
    found = load_laws()
    assert found["measured"]["machine"] and found["measured"]["commit"]
    for name in ("events by events", "sequences by events", "items by items", "candidates by users"):
        law = read_law(found["laws"], name)
        assert law.num_sizes >= 2 and law.largest >= 2 * law.smallest
        assert law.cpu_s(law.smallest) > 1, "a law is fitted to sizes that take their time"
    assert read_line(found["memory"], "training by events").largest >= 10_000_000
    with pytest.raises(ConfigError, match=r"one of .*'nothing' arrived"):
        read_law(found["laws"], "nothing")
