"""Settings of the service from TOML: what is refused, and how that is told."""

import hashlib

import pytest

from forecart.errors import ConfigError
from forecart.serving.settings import read_settings

HASHED = hashlib.sha256(b"sesame").hexdigest()


def read(folder, text):
    path = folder / "serve.toml"
    path.write_text(text)
    return read_settings(path)


def test_tokens_are_hashes_in_any_case(tmp_path):
    settings = read(tmp_path, f'[tokens]\n{HASHED.upper()} = ["reload"]\n')
    assert settings.tokens == {HASHED: ["reload"]}


@pytest.mark.parametrize("name", ["sesame", HASHED[:-1], HASHED + "0", "g" + HASHED[1:], f'"{HASHED} "'])
def test_a_token_that_is_no_hash_is_refused_and_not_repeated(tmp_path, name):
    with pytest.raises(ConfigError, match=r"tokens: each is named by the sha256 of a token") as caught:
        read(tmp_path, f'[tokens]\n{name} = ["reload"]\n')
    assert name not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("poll_s = 0", "poll_s: .* 0 arrived"),
        ("pol_s = 1", "pol_s: .* 1 arrived"),
        ("max_cpm_usd = 0", "max_cpm_usd: .* 0 arrived"),
        ("max_cpm_usd = inf", "max_cpm_usd: .* inf arrived"),
        (f'[tokens]\n{HASHED} = ["all"]', "tokens.*'all' arrived"),
        ("poll_s", "must be TOML"),
    ],
)
def test_what_breaks_a_rule_is_told(tmp_path, text, told):
    with pytest.raises(ConfigError, match=told):
        read(tmp_path, text)
