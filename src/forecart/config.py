"""The configuration of a run: one closed tree of sections, read from TOML.

Each stage owns its section beside its code; this module only puts them together, so it stands above the
stages and only what runs them reads it (docs/adr/0006). An unknown key is an error, and a
message says which rule was broken where.
"""

import tomllib
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from forecart.errors import ConfigError
from forecart.events.schema import EventsConfig, SourceConfig
from forecart.model.settings import ModelSettings
from forecart.object_store import is_url
from forecart.retrieval.diversity import RerankRule, RerankSettings
from forecart.retrieval.eligibility import EligibilityRules
from forecart.sequences.batches import OwnContent
from forecart.sequences.split import DAY_US, LabelContract, Level
from forecart.sequences.successors import SuccessorSettings
from forecart.training.settings import TrainingSettings

BUILT_IN: Final = ("nano", "demo", "default")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _assume_utc(value: Any) -> Any:
    """A TOML date or a time without a zone is UTC: cuts are read the same everywhere."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if hasattr(value, "year") and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_assume_utc)]


class Section(BaseModel):
    """A closed, frozen part of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SplitConfig(Section):
    """Which moments are cut-offs."""

    as_of: Moment
    """The training cut-off: weights are learned from nothing that arrived at or after it."""
    test_cuts: list[Moment] = Field(default_factory=list)
    """Where lists are made and held against the label window that follows; none skips the evaluation."""
    validate_before: bool = True
    """Keep the last label window before `as_of` out of training and measure every epoch on it."""


class TargetConfig(Section):
    """One of the two models: what it is, how it is trained, and what it is compared with."""

    is_enabled: bool = True
    """Whether this target is trained at all."""
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    successors: SuccessorSettings = SuccessorSettings()
    rerank: RerankSettings = RerankSettings()
    num_seeds: PositiveInt = 1
    """How many models are trained that differ in nothing but the seed; candidates come from the first."""
    ablate_encoder: bool = False
    """Train the same system without the sequence encoder too and list it as `no_encoder`."""
    baselines: list[str] = ["popularity_7d", "frequency_popularity", "basket_popularity"]
    """Names of baselines (`forecart.baselines.standard`)."""
    top_k: PositiveInt = 100
    """Candidates per user in the candidate tables."""

    def own_content(self, *, learns: bool) -> OwnContent:
        """What is read of own histories: a sampled loss counts own pairs, and a list marks what repeats."""
        if self.model.needs_own_history:
            return "features"
        return "pairs" if not learns or self.training.loss.kind == "sampled" else "nothing"


class EvaluationConfig(Section):
    """How the lists are measured."""

    index_size: int = Field(default=1000, ge=0)
    """Size of the random index of the reference's protocol; 0 leaves it out."""
    num_samples: PositiveInt = 2000
    """Samples of the bootstrap."""
    num_examples: int = Field(default=6, ge=0)
    """Users whose history is shown beside their candidates in the report."""
    frontier: list[RerankRule] = Field(default_factory=list)
    """Ways to choose lists that are measured beside the best by score: recall against coverage."""
    with_prior_only: bool = True
    """Whether only users with a conversion before the cut are measured."""


class CandidatesConfig(Section):
    """The candidate tables for everyone."""

    as_of: Moment | Literal["latest"] = "latest"
    """Up to when histories are read; `latest` is right after the last event that has arrived by now."""
    eligibility: EligibilityRules = EligibilityRules()
    max_carry_days: PositiveInt = 7
    """A daily run keeps the list of a user without news for at most so long, then makes it anew."""
    block_users: PositiveInt = 512
    """Users scored at once; a finished block of `block_users * 32` users is one file."""


class RunConfig(Section):
    """The whole configuration of a run."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Names the run and, by default, its folder."""
    seed: int = Field(default=1, ge=0)
    """Every random choice of the run follows from it."""
    source: SourceConfig
    events: EventsConfig = EventsConfig()
    labels: LabelContract
    split: SplitConfig
    next_advertiser: TargetConfig = TargetConfig()
    next_product: TargetConfig = TargetConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    candidates: CandidatesConfig = CandidatesConfig()

    @model_validator(mode="after")
    def _check_cuts(self) -> Self:
        early = [cut for cut in self.split.test_cuts if cut < self.split.as_of]
        if early:
            raise ValueError(f"test_cuts must not be before as_of {self.split.as_of}, {early[0]} is")
        if len(set(self.split.test_cuts)) < len(self.split.test_cuts):
            raise ValueError("test_cuts must be distinct")
        return self

    def listing_at(self, as_of: datetime) -> Self:
        """Returns the same configuration with candidates as of a moment."""
        candidates = self.candidates.model_copy(update={"as_of": as_of})
        return self.model_copy(update={"candidates": candidates})

    def target(self, level: Level) -> TargetConfig:
        """The section of a level."""
        return self.next_advertiser if level == "advertiser" else self.next_product

    @property
    def levels(self) -> list[Level]:
        """The levels that are enabled, advertisers first."""
        levels: list[Level] = ["advertiser", "item"]
        return [level for level in levels if self.target(level).is_enabled]

    @property
    def read_until_us(self) -> int:
        """Up to which arrival the log is read at all: as far as a test window or the candidates need it."""
        if self.candidates.as_of == "latest":
            return 2**62
        days = self.labels.gap_days + self.labels.window_days
        ends = [to_us(cut) + days * DAY_US for cut in self.split.test_cuts]
        return max([to_us(self.split.as_of), to_us(self.candidates.as_of), *ends])

    @property
    def learn_until_us(self) -> int:
        """Up to which arrival the weights learn: `as_of`, or a label window before it when validating."""
        return to_us(self.split.as_of) - (self.labels.span_us if self.split.validate_before else 0)


def to_us(moment: datetime) -> int:
    """Returns microseconds since the epoch, exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def load_config(name_or_path: str) -> RunConfig:
    """Reads a configuration: the name of one that comes with the package, or the path of a TOML file.

    Paths in a file are relative to the file.

    Raises:
        ConfigError: there is no such file, it is no TOML, or it breaks a rule.
    """
    if name_or_path in BUILT_IN:
        text = resources.files("forecart.configs").joinpath(f"{name_or_path}.toml").read_text("utf-8")
        return parse_config(text, where=name_or_path)
    path = Path(name_or_path)
    if not path.is_file():
        raise ConfigError(
            f"a configuration is the path of a TOML file or one of {', '.join(BUILT_IN)}; "
            f"{name_or_path!r} is neither: write one with `forecart init EVENTS`"
        )
    return parse_config(path.read_text("utf-8"), where=name_or_path, folder=path.parent)


def parse_config(text: str, *, where: str, folder: Path | None = None) -> RunConfig:
    """Parses a configuration.

    Args:
        text: TOML.
        where: what messages call it.
        folder: what relative paths of the source are relative to.

    Raises:
        ConfigError: it is no TOML, or it breaks a rule.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} must be TOML, it is not: {error}") from None
    if folder is not None and isinstance(tree.get("source"), dict):
        tree["source"] = _resolve_paths(tree["source"], folder)
    return validate_config(tree, where=where)


def validate_config(tree: dict[str, Any], *, where: str) -> RunConfig:
    """Checks a configuration given as a tree of plain values.

    Raises:
        ConfigError: it breaks a rule.
    """
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        # A misspelt key is the cause where another is then missing.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ConfigError(f"{where}: {_explain(first)}{more}") from None


def _explain(error: ErrorDetails) -> str:
    *above, key = [str(part) for part in error["loc"]] or ["the whole"]
    place = ".".join([*above, key])
    if error["type"] == "missing":
        return f"{place} is required, it is not there"
    if error["type"] != "extra_forbidden":
        return f"{place}: {error['msg']}; {error['input']!r:.80} arrived"
    known = _keys_at(RunConfig, above)
    close = get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    return f"{place}: there is no such key; {hint}"


def _keys_at(model: type[BaseModel], above: list[str]) -> list[str]:
    """Returns the keys of the section at a path, none where the path leaves the sections."""
    for name in above:
        found = model.model_fields[name].annotation if name in model.model_fields else None
        if not (isinstance(found, type) and issubclass(found, BaseModel)):
            return []
        model = found
    return list(model.model_fields)


def _resolve_paths(source: dict[str, Any], folder: Path) -> dict[str, Any]:
    resolved = dict(source)
    if isinstance(source.get("events"), list):
        resolved["events"] = [_resolve(path, folder) for path in source["events"]]
    for key in ("catalogue", "data_folder"):
        if isinstance(source.get(key), str):
            resolved[key] = _resolve(source[key], folder)
    return resolved


def _resolve(path: str, folder: Path) -> str:
    return path if is_url(path) else str(folder / path)
