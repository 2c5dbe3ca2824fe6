"""A configuration as TOML: what is written parses back to the same, whatever is in it."""

import json
import tomllib
from datetime import UTC, datetime

import pytest
from commands import forecart
from hypothesis import given
from hypothesis import strategies as st

from forecart.cli.config_text import render_config, to_key, to_toml
from forecart.config import BUILT_IN, load_config, parse_config

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_every_value_comes_back(value):
    assert tomllib.loads(f"value = {to_toml(value)}")["value"] == value


@given(TEXT)
def test_every_key_comes_back(name):
    assert tomllib.loads(f"{to_key(name)} = 1") == {name: 1}


def test_a_moment_comes_back():
    moment = datetime(2025, 3, 1, 12, 30, tzinfo=UTC)
    assert tomllib.loads(f"value = {to_toml(moment)}")["value"] == moment


def test_what_toml_does_not_know_is_refused():
    with pytest.raises(TypeError, match="no object"):
        to_toml(object())


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_is_shown_means_the_same(name):
    shown = forecart("config", "show", name).stdout
    assert parse_config(shown, where="shown") == load_config(name)
    assert shown == render_config(load_config(name))


def test_what_is_shown_teaches_every_key():
    lines = forecart("config", "show", "default").stdout.splitlines()
    assert lines[lines.index("window_days = 7") - 1].startswith("# K: conversions")
    assert "# time_format is not set" in lines and "[next_product.training.loss]" in lines


def test_as_json():
    assert json.loads(forecart("config", "show", "nano", "--json").stdout)["evaluation"]["index_size"] == 100
