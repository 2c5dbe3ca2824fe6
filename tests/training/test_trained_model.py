"""A trained model comes back from its folder as it was, or is refused."""

import numpy as np
import pytest
import torch

from forecart import artifacts
from forecart.errors import ArtifactError
from forecart.model.settings import ModelSettings
from forecart.sequences.candidate_features import CandidateFeatures
from forecart.training.trained_model import LevelFeatures, build_model, load_trained, save_trained

SETTINGS = ModelSettings(width=8, num_layers=1, history_length=4, id_rows=32, own_width=4)


def features_of(num, seed, *, has_advertisers):
    rng = np.random.default_rng(seed)
    content, metadata, collaborative = (rng.standard_normal((num, 3)).astype(np.float32) for _ in range(3))
    advertiser = np.arange(num, dtype=np.int32) // 3 if has_advertisers else np.zeros(num, np.int32)
    return CandidateFeatures(content, metadata, collaborative, advertiser)


@pytest.fixture
def saved(tmp_path):
    advertisers = features_of(6, 0, has_advertisers=False)
    features = LevelFeatures(advertisers, features_of(12, 1, has_advertisers=True))
    model = build_model(features, level="item", settings=SETTINGS, is_causal=False, seed=3)
    save_trained(tmp_path / "model", model, features=features, level="item", is_causal=False)
    return model, tmp_path / "model"


@torch.no_grad()
def test_a_loaded_model_gives_the_vectors_of_the_saved_one(saved):
    model, folder = saved
    assert torch.equal(load_trained(folder).encode_candidates(), model.eval().encode_candidates())


def test_a_model_of_another_format_is_refused(saved):
    _, folder = saved
    facts = artifacts.read_json(folder / "settings.json")
    artifacts.write_json(folder / "settings.json", facts | {"format": 1})
    with pytest.raises(ArtifactError, match="is of format 1: train it again"):
        load_trained(folder)
