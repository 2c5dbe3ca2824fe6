"""What an operator of the service may set; `forecart serve --settings FILE` reads it from TOML."""

import re
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from forecart.ads.blending import NO_LIMIT, BlendRules, Quota
from forecart.errors import ConfigError

Scope = Literal["suppress", "inventory", "reload"]
_DAY_S = 86_400
_SHA256 = re.compile(r"[0-9a-f]{64}")


class QuotaSettings(BaseModel):
    """How many ads of an answer come from a source."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    least: int = Field(default=0, ge=0)
    """So many, where there are so many and the lists above the source leave the answer short."""
    most: int = Field(default=NO_LIMIT, ge=0)
    """At most so many."""


class ServingSettings(BaseModel):
    """Budgets and limits of one process that serves."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_staleness_s: int = Field(default=3 * _DAY_S, gt=0)
    """A release with older histories is not served personally."""
    poll_s: float = Field(default=0.5, gt=0, le=60)
    """How often the store's pointer is looked at."""
    store_budget_ms: float = Field(default=20, gt=0)
    """How long a request waits for a store behind a connection."""
    store_threads: int = Field(default=8, ge=1, le=256)
    """Reads of such a store at a time, in each process."""
    deadline_ms: float = Field(default=100, gt=0)
    """Of a request that names none."""
    breaker_failures: int = Field(default=5, ge=1)
    """So many failures of the store in a row, and it is not asked for a while."""
    breaker_reset_s: float = Field(default=1, gt=0, le=10)
    """After so long it is asked once."""
    max_in_flight: int = Field(default=32, ge=1)
    """Requests at a time in each process; the others are told to come again."""
    drain_s: float = Field(default=1, ge=0, le=60)
    """After SIGTERM `/readyz` says 503 and answers close their connections for so long; then it stops."""
    max_body_bytes: int = Field(default=64 << 10, ge=1024)
    """A larger request is refused."""
    max_batch: int = Field(default=64, ge=1, le=1024)
    """Requests in one batch."""
    ads_per_advertiser: int = Field(default=2, ge=1)
    """Ads of one advertiser in an answer."""
    quotas: dict[str, QuotaSettings] = Field(default_factory=dict)
    """How many ads of an answer come from a source, by the name that answers give it."""
    max_cpm_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """No OpenRTB bid is above it, dollars for a thousand impressions; without it, what an ad is worth."""
    calibrations: Path | None = None
    """JSON of probabilities by score, for each source, that hold in place of those a release carries."""
    pseudonym_key: str | None = Field(default=None, min_length=16)
    """Makes the pseudonyms of users in the outcome log; without it they change with every start, and
    differ between the processes of one service."""
    tokens: dict[str, list[Scope]] = Field(default_factory=dict)
    """Who may use the admin endpoints: sha256 of a token, in hexadecimal, and what it is for."""

    @field_validator("tokens")
    @classmethod
    def _need_hashes(cls, tokens: dict[str, list[Scope]]) -> dict[str, list[Scope]]:
        """Returns the tokens by their hashes in lower case, as they are looked up."""
        by_hash = {key.lower(): scopes for key, scopes in tokens.items()}
        for key in by_hash:
            if not _SHA256.fullmatch(key):
                # Told by its length: it may be the token itself.
                raise ValueError(
                    "each is named by the sha256 of a token, 64 hexadecimal digits "
                    f"(printf %s TOKEN | sha256sum), a name of {len(key)} characters"
                )
        return by_hash

    @property
    def blend_rules(self) -> BlendRules:
        """What an answer must keep to.

        Raises:
            ConfigError: a quota is larger than it may be.
        """
        quotas = {source: Quota(quota.least, quota.most) for source, quota in self.quotas.items()}
        return BlendRules(quotas, self.ads_per_advertiser)


def read_settings(path: Path) -> ServingSettings:
    """Reads settings from a TOML file.

    Raises:
        ConfigError: the file is missing, no TOML, or breaks a rule.
    """
    try:
        return ServingSettings.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"settings were expected at {path}, none are there") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} must be TOML, it is not: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        rule = first["msg"].removeprefix("Value error, ")
        arrived = "" if where == "tokens" else f", {first['input']!r:.80}"
        raise ConfigError(f"{path}: {where}: {rule}{arrived} arrived") from None
