"""What training starts from and what it leaves: static features, and a folder that can be loaded again.

Takes sequences and settings; builds an untrained model, or loads a trained one from its folder: weights as
safetensors, settings as JSON, the features it was trained with as arrays. Weights and features belong
together, so they lie together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch

from forecart import artifacts
from forecart.errors import ArtifactError
from forecart.model.settings import ModelSettings
from forecart.model.static_features import NO_START, CandidateStart, StaticFeatures
from forecart.model.two_tower import TwoTower
from forecart.sequences.build import Sequences
from forecart.sequences.candidate_features import (
    CandidateFeatures,
    read_candidate_features,
    read_collaborative,
    read_item_content,
)
from forecart.sequences.candidate_store import CandidateStore
from forecart.sequences.pair_log import PairLog
from forecart.sequences.population import POPULARITY_DAYS, read_population
from forecart.sequences.split import Level
from forecart.sequences.successors import read_neighbour_vectors
from forecart.training.checkpoint import read_tensors, write_tensors

WEIGHTS_FILE: Final = "weights.safetensors"
SETTINGS_FILE: Final = "settings.json"
# Raised when the same inputs give another model or other files.
TRAINED_FORMAT: Final = 3
_FEATURES: Final = "features"
_ID_TABLE: Final = "candidate_tower.id.weight"


@dataclass(frozen=True, eq=False)
class LevelFeatures:
    """Static features of both levels: the event encoder reads both, the candidate tower one."""

    advertiser: CandidateFeatures
    item: CandidateFeatures

    def of(self, level: Level) -> CandidateFeatures:
        """Returns the features of a level."""
        return self.advertiser if level == "advertiser" else self.item

    def save(self, folder: Path) -> None:
        """Writes both."""
        self.advertiser.save(folder / "advertiser")
        self.item.save(folder / "item")

    def grow(self, sequences: Sequences) -> "LevelFeatures":
        """Returns the features with rows for all candidates of `sequences`: zeros where they had none."""
        owner = np.asarray(sequences.item_advertiser)
        none = np.zeros(len(sequences.advertisers), np.int32)
        return LevelFeatures(self.advertiser.grow(none), self.item.grow(owner))

    @classmethod
    def load(cls, folder: Path) -> "LevelFeatures":
        """Maps both into memory."""
        return cls(CandidateFeatures.load(folder / "advertiser"), CandidateFeatures.load(folder / "item"))


def read_features(
    sequences: Sequences,
    catalogue: pl.DataFrame,
    *,
    logs: Mapping[Level, PairLog],
    settings: ModelSettings,
    learn_until_us: int,
    seed: int,
) -> LevelFeatures:
    """Returns the static features of both levels, from events that arrived before `learn_until_us` only."""
    content = read_item_content(
        catalogue, sequences, wanted=settings.content, width=settings.content_width, seed=seed
    )

    def features(level: Level) -> CandidateFeatures:
        if settings.collaborative_width:
            width = settings.collaborative_width
            collaborative = read_collaborative(logs[level], as_of_us=learn_until_us, width=width, seed=seed)
        else:
            num = len(sequences.advertisers if level == "advertiser" else sequences.items)
            collaborative = np.zeros((num, 0), np.float32)
        return read_candidate_features(sequences, content, level=level, collaborative=collaborative)

    return LevelFeatures(features("advertiser"), features("item"))


def read_start(log: PairLog, *, settings: ModelSettings, learn_until_us: int) -> CandidateStart:
    """Returns where what is learned per candidate starts, as far as these settings learn it.

    The bias starts as half the log share of users who ever converted: the cosines say the other half.
    """
    id_ND = bias_N = None
    if settings.id_embedding == "table":
        vectors = read_neighbour_vectors(log, as_of_us=learn_until_us, width=settings.width)
        id_ND = torch.from_numpy(vectors)
    if settings.prior == "learned":
        ever_N = read_population(log, learn_until_us).log_share[:, len(POPULARITY_DAYS) - 1]
        bias_N = torch.from_numpy(0.5 * ever_N)
    return CandidateStart(id_ND, bias_N)


def build_model(
    features: LevelFeatures,
    *,
    level: Level,
    settings: ModelSettings,
    is_causal: bool,
    seed: int,
    start: CandidateStart = NO_START,
) -> TwoTower:
    """Returns an untrained model on these features; the same seed and start give the same weights."""
    torch.manual_seed(seed)
    candidate = features.of(level)
    static = StaticFeatures(
        advertiser_AF=_static(features.advertiser, settings),
        item_IF=_static(features.item, settings),
        candidate_NF=_static(candidate, settings),
        num_collaborative=candidate.collaborative.shape[1],
        advertiser_N=torch.from_numpy(np.array(candidate.advertiser)),
        level=level,
    )
    return TwoTower(static, settings=settings, is_causal=is_causal, start=start)


def build_stored_model(
    store: CandidateStore, features: LevelFeatures, *, settings: ModelSettings, is_causal: bool, seed: int
) -> TwoTower:
    """Returns an untrained item model whose items stay in the files of a store.

    The weights are those that `build_model` starts with. A batch brings the rows that a step reads.
    """
    torch.manual_seed(seed)
    static_NF = torch.from_numpy(store.static)
    static = StaticFeatures(
        advertiser_AF=_static(features.advertiser, settings),
        item_IF=static_NF,
        candidate_NF=static_NF,
        num_collaborative=store.num_collaborative,
        advertiser_N=torch.from_numpy(store.advertiser),
        level="item",
    )
    return TwoTower(static, settings=settings, is_causal=is_causal)


def _static(features: CandidateFeatures, settings: ModelSettings) -> torch.Tensor:
    return torch.from_numpy(features.join(slice(None), with_content=settings.content != "none"))


def save_trained(
    folder: Path, model: TwoTower, *, features: LevelFeatures, level: Level, is_causal: bool
) -> None:
    """Writes weights, settings and features; the caller marks the folder complete."""
    write_tensors(folder / WEIGHTS_FILE, model.state_dict())
    features.save(folder / _FEATURES)
    artifacts.write_json(
        folder / SETTINGS_FILE,
        {
            "format": TRAINED_FORMAT,
            "level": level,
            "is_causal": is_causal,
            "model": model.settings.model_dump(mode="json"),
        },
    )


def load_trained(folder: Path, sequences: Sequences | None = None) -> TwoTower:
    """Loads a trained model, ready to embed.

    Args:
        folder: of the model.
        sequences: whose candidates it is to score, those of the training first; the training's without. Of
            one that came since nothing static is known, and what is learned per candidate is that of nobody:
            its prior and users' own histories find it, its vector waits for the next training.

    Raises:
        ArtifactError: a file is missing or damaged, or the model is of another format.
    """
    facts: dict[str, Any] = artifacts.read_json(folder / SETTINGS_FILE)
    if facts.get("format") != TRAINED_FORMAT:
        raise ArtifactError(
            f"a trained model of format {TRAINED_FORMAT} is read, {folder} is of "
            f"format {facts.get('format')}: train it again"
        )
    features = LevelFeatures.load(folder / _FEATURES)
    if sequences is not None:
        features = features.grow(sequences)
    model = build_model(
        features,
        level=facts["level"],
        settings=ModelSettings.model_validate(facts["model"]),
        is_causal=facts["is_causal"],
        seed=0,
    )
    weights = read_tensors(folder / WEIGHTS_FILE)
    if model.bias is not None:
        weights["bias"] = _grow(weights["bias"], model.num_candidates, fill=float(weights["bias"].min()))
    if model.settings.id_embedding == "table":
        weights[_ID_TABLE] = _grow(weights[_ID_TABLE], model.num_candidates, fill=0.0)
    model.load_state_dict(weights)
    model.eval()
    return model


def _grow(value_ND: torch.Tensor, num_candidates: int, *, fill: float) -> torch.Tensor:
    """Returns what is learned per candidate with a row for each."""
    rows = value_ND.new_full((num_candidates - len(value_ND), *value_ND.shape[1:]), fill)
    return torch.cat([value_ND, rows])
