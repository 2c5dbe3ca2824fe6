"""The loop: it learns what was planted, stops when it should, and leaves the weights it says."""

import numpy as np
import pytest
import torch

from forecart.errors import ConfigError
from forecart.model.settings import ModelSettings
from forecart.model.tensors import to_tensors
from forecart.sequences.population import read_population
from forecart.training.checkpoint import load_newest_checkpoint
from forecart.training.loop import Trainer, derive_seed, pick_device, pick_tower_dtype
from forecart.training.objective import Objective
from forecart.training.settings import LossSettings, TrainingSettings
from forecart.training.state import TrainingState
from planted_world import DAY, START, cycle_world

CUTS = START + DAY * np.arange(6, 22)
TEST_CUT = START + 26 * DAY
LENGTH = 8
ENCODER_ONLY = {"use_own_history": False, "use_summary": False}


@pytest.fixture(scope="module")
def world():
    return cycle_world()


def trainer_of(world, folder, *, model=None, cuts=CUTS, seed=0, broken_loss=None, told=None, **settings):
    """A small trainer; `broken_loss` stands in for the objective."""
    quick = {"batch_rows": 32, "warmup_steps": 5, "average_decay": 0.9, "device": "cpu"}
    settings = TrainingSettings(**(quick | settings))
    small = {"width": 16, "num_layers": 1, "history_length": LENGTH, "dropout": 0.0, "id_rows": 64}
    examples = world.examples(cuts, settings, seed=seed, length=LENGTH)
    model = world.model(ModelSettings(**(small | (model or {}))), is_causal=examples.builder.is_causal)
    built = Objective.build(settings.loss, examples.labels.candidate, model.num_candidates)
    return Trainer(model, examples, broken_loss or built, settings, folder, seed, **(told or {}))


@torch.no_grad()
def recall_at_1(world, model, cut=TEST_CUT):
    users = np.arange(2, world.histories.num_users, dtype=np.int32)
    builder = world.builder(length=LENGTH, is_causal=model.user_tower.encoder.is_causal)
    batch = builder.build(users, np.full(len(users), cut), population=read_population(builder.log, cut))
    score_BN = model.eval()(to_tensors(batch, torch.device("cpu")))
    score_BN[:, :2] = -torch.inf
    labels = world.labels([cut])
    assert np.array_equal(labels.user_index, users) and len(labels.candidate) == len(users)
    return (score_BN.argmax(1).numpy() == labels.candidate).mean()


@pytest.mark.parametrize("objective", ["next", "all_action", "dense_all_action"])
def test_the_planted_order_is_found_from_the_sequence_alone(world, tmp_path, objective):
    settings = {"objective": objective, "num_epochs": 8, "learning_rate": 1e-2}
    trainer = trainer_of(world, tmp_path, model=ENCODER_ONLY, **settings)
    curve = trainer.run()
    assert curve[-1]["loss"] < 0.3 * curve[0]["loss"]
    # Popularity finds one in twelve: all are equally popular.
    assert recall_at_1(world, trainer.model) > 0.95


def test_the_sampled_loss_finds_it_too(world, tmp_path):
    loss = LossSettings(kind="sampled", negatives="mixed", num_negatives=6)
    trainer = trainer_of(world, tmp_path, model=ENCODER_ONLY, num_epochs=8, learning_rate=1e-2, loss=loss)
    trainer.run()
    assert recall_at_1(world, trainer.model) > 0.95


def test_the_default_system_finds_it_with_its_own_history(world, tmp_path):
    trainer = trainer_of(world, tmp_path, num_epochs=4, learning_rate=1e-2)
    trainer.run()
    assert recall_at_1(world, trainer.model) > 0.95


class Measured:
    """A validation that returns planned values and keeps the weights it saw."""

    def __init__(self, values):
        self.values, self.seen = values, []

    def __call__(self, model):
        self.seen.append({name: value.detach().clone() for name, value in model.named_parameters()})
        return {"recall_at_10": self.values[len(self.seen) - 1]}


def assert_weights(model, expected):
    for name, value in model.named_parameters():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    ("values", "patience", "num_epochs_run", "best"),
    [
        ([0.1, 0.3, 0.2, 0.25, 0.9], 2, 4, 1),
        ([0.1, 0.3, 0.2, 0.4, 0.1], 2, 5, 3),
        ([0.3, 0.3, 0.3, 0.3, 0.3], 2, 3, 0),
        ([0.5, 0.4, 0.3, 0.2, 0.1], 0, 5, 4),
    ],
    ids=["stops", "recovers", "ties", "no patience: the last"],
)
def test_patience_stops_and_keeps_the_best(world, tmp_path, values, patience, num_epochs_run, best):
    validate = Measured(values)
    trainer = trainer_of(
        world, tmp_path, cuts=CUTS[:2], num_epochs=5, patience=patience, told={"validate": validate}
    )
    curve = trainer.run()
    assert [entry["validation"]["recall_at_10"] for entry in curve] == values[:num_epochs_run]
    assert_weights(trainer.model, validate.seen[best])


def test_the_own_history_term_takes_steps_of_its_own_size(world, tmp_path):
    rates = {"learning_rate": 1e-3, "own_rate_factor": 7.0, "weight_decay": 0.0, "warmup_steps": 1}
    trainer = trainer_of(world, tmp_path, cuts=CUTS[:1], num_epochs=1, average_decay=0.0, **rates)
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    batch = next(iter(trainer.examples.batches(0)))
    trainer.take_step(TrainingState(trainer.model, trainer.settings), to_tensors(batch, torch.device("cpu")))
    moved = {"own": 0.0, "other": 0.0}
    for name, value in trainer.model.named_parameters():
        part = "own" if name.startswith("own.") else "other"
        moved[part] = max(moved[part], float((value.detach() - before[name]).abs().max()))
    # The first step of Adam moves a weight by the learning rate, whatever its gradient.
    assert moved == {"own": pytest.approx(7e-3, rel=0.01), "other": pytest.approx(1e-3, rel=0.01)}


def test_the_weights_that_stay_are_the_average_of_every_step(world, tmp_path):
    averaged = {}

    def note(progress):
        weights = dict(trainer.model.named_parameters())
        decay = min(0.9, progress.step / (progress.step + 10))
        for name, value in weights.items():
            value = value.detach().double()
            averaged[name] = decay * averaged[name] + (1 - decay) * value

    trainer = trainer_of(world, tmp_path, cuts=CUTS[:3], num_epochs=2, told={"on_step": note})
    averaged = {name: value.detach().double() for name, value in trainer.model.named_parameters()}
    before = {name: value.clone() for name, value in averaged.items()}
    trainer.run()
    for name, value in trainer.model.named_parameters():
        torch.testing.assert_close(value.double(), averaged[name], rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(averaged[name], before[name]) for name in averaged)


def test_everyone_is_told_and_every_row_is_counted(world, tmp_path):
    steps, epochs = [], []
    trainer = trainer_of(
        world,
        tmp_path,
        cuts=CUTS[:3],
        num_epochs=2,
        told={"on_step": steps.append, "on_epoch": epochs.append},
    )
    curve = trainer.run()
    # 60 users at 3 cuts, at most 32 rows a step: 6 steps an epoch.
    assert [progress.step for progress in steps] == list(range(1, 13))
    assert [progress.epoch for progress in steps] == [1] * 6 + [2] * 6
    assert all(progress.num_steps == 12 for progress in steps)
    assert steps[-1].eta_s == 0 and steps[0].eta_s > 0
    assert epochs == curve and [entry["step"] for entry in curve] == [6, 12]
    for epoch, entry in enumerate(curve):
        losses = [progress.loss for progress in steps if progress.epoch == epoch + 1]
        assert entry["loss"] == pytest.approx(np.mean(losses))
        assert entry["rows_per_s"] * entry["elapsed_s"] == pytest.approx(180)
        assert "validation" not in entry


def test_validation_disturbs_nothing(world, tmp_path):
    def validate(model):
        torch.rand(7)
        model.eval()
        return {"recall_at_10": 0.0}

    dropout = {"dropout": 0.3}
    plain = trainer_of(world, tmp_path / "a", cuts=CUTS[:2], model=dropout, num_epochs=2)
    validated = trainer_of(
        world, tmp_path / "b", cuts=CUTS[:2], model=dropout, num_epochs=2, told={"validate": validate}
    )
    losses = [[entry["loss"] for entry in trainer.run()] for trainer in (plain, validated)]
    assert losses[0] == losses[1]
    assert_weights(validated.model, dict(plain.model.named_parameters()))


def test_the_seed_decides(world, tmp_path):
    runs = [
        trainer_of(world, tmp_path / str(at), cuts=CUTS[:2], seed=seed, num_epochs=1).run()[0]["loss"]
        for at, seed in enumerate((1, 1, 2))
    ]
    assert runs[0] == runs[1] != runs[2]


def test_own_features_are_standardised_before_the_first_step(world, tmp_path):
    trainer = trainer_of(world, tmp_path, cuts=CUTS[:2], num_epochs=1)
    trainer.run()
    scaler = trainer.model.scaler
    features = torch.cat(
        [torch.from_numpy(batch.own.feature) for batch in list(trainer.examples.batches(0))[:4]]
    )
    torch.testing.assert_close(scaler.mean_F, features.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        scaler.scale_F, features.std(0, correction=0).clamp(min=1e-3), rtol=1e-3, atol=1e-4
    )


def test_a_finished_run_is_not_run_again(world, tmp_path):
    first = trainer_of(world, tmp_path, cuts=CUTS[:2], num_epochs=2)
    curve = first.run()
    assert load_newest_checkpoint(tmp_path).step == first.num_steps
    steps = []
    again = trainer_of(world, tmp_path, cuts=CUTS[:2], num_epochs=2, told={"on_step": steps.append})
    assert again.run() == curve and steps == []
    assert_weights(again.model, dict(first.model.named_parameters()))


def test_a_loss_that_is_no_number_stops_with_a_word(world, tmp_path):
    def broken(model, batch, *, generator):
        return model.prior.sum() * float("nan")

    trainer = trainer_of(world, tmp_path, cuts=CUTS[:1], broken_loss=broken, num_epochs=1)
    with pytest.raises(ConfigError, match="step 1 gave nan: lower the learning rate"):
        trainer.run()


@pytest.mark.parametrize("kind", ["full", "sampled"])
def test_bfloat16_trains(world, tmp_path, kind):
    loss = LossSettings(kind=kind, num_negatives=6)
    trainer = trainer_of(
        world,
        tmp_path,
        model={"num_layers": 2},
        cuts=CUTS[:4],
        num_epochs=3,
        precision="bfloat16",
        loss=loss,
        learning_rate=1e-2,
    )
    curve = trainer.run()
    assert trainer.model.tower_dtype == torch.bfloat16
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]


def test_device_and_precision_follow_the_settings():
    assert pick_device(TrainingSettings(device="cpu")) == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert pick_device(TrainingSettings()).type == expected
    cpu = torch.device("cpu")
    assert pick_tower_dtype(TrainingSettings(), cpu) == torch.float32
    assert pick_tower_dtype(TrainingSettings(precision="bfloat16"), cpu) == torch.bfloat16
    assert pick_tower_dtype(TrainingSettings(precision="float32"), cpu) == torch.float32


def test_every_step_of_every_seed_has_a_seed_of_its_own():
    seeds = [derive_seed(seed, step) for seed in range(-5, 5) for step in range(2000)]
    assert len(set(seeds)) == len(seeds)
    # torch's CPU generator reads the lowest 32 bits alone.
    assert len({seed & 0xFFFFFFFF for seed in seeds}) == len(seeds)
