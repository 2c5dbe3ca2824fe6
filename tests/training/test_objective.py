"""The sampled loss is the full one when its pool is, and tends to it when it is not."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from forecart.model.losses import full_softmax_loss
from forecart.model.negatives import CandidatePool, CountMinSketch, InBatchNegatives, SampledNegatives
from forecart.model.settings import ModelSettings
from forecart.model.tensors import to_tensors
from forecart.training.objective import Objective
from forecart.training.settings import LossSettings, TrainingSettings
from planted_world import DAY, START, cycle_world, random_world

CUTS = START + DAY * np.array([15, 20, 25])


@pytest.fixture(scope="module")
def world():
    return random_world(num_users=20, num_advertisers=20, num_items=60)


@pytest.fixture(scope="module")
def batch(world):
    examples = world.examples(CUTS, TrainingSettings(), length=8, window_days=5)
    rows = np.flatnonzero(examples.labels.cut_us == CUTS[1])
    tensors = to_tensors(examples.batch(rows), torch.device("cpu"))
    assert len(tensors.positive_P) > tensors.num_rows  # some rows have several positives
    assert len(tensors.future_H) and len(tensors.own_row_M)
    return tensors


def model_of(world, **given):
    small = {"width": 8, "history_length": 8, "id_rows": 64, "dropout": 0.0, "feature_dropout": 0.0}
    model = world.model(ModelSettings(**(small | {"num_layers": 1} | given)))
    model.prior.data = torch.tensor([0.1, 0.05, 0.02, 0.04, -0.03])
    return model


@dataclass(frozen=True)
class Everything:
    """A pool that holds every candidate, for certain."""

    num_candidates: int

    def draw(self, positive_P, *, generator=None):
        index_N = torch.arange(2, self.num_candidates)
        return CandidatePool(index_N, torch.zeros(len(index_N)))

    def log_q(self, index, *, num_positives):
        return torch.zeros(len(index))


def objective_of(world, **given):
    positive = np.array([2, 2, 2, 3, 3, 4], np.int32)
    return Objective.build(LossSettings(**given), positive, world.num_advertisers)


def loss_and_gradient(objective, model, batch, seed=0):
    loss = objective(model, batch, generator=torch.Generator().manual_seed(seed))
    grads = torch.autograd.grad(loss, list(model.parameters()))
    return loss.item(), torch.cat([grad.flatten() for grad in grads])


def naive_full_loss(model, batch, *, masked, by_row):
    """One positive after the other against every candidate that is no positive of its row."""
    score_BN = model(batch).detach().double()
    positives = [set() for _ in range(batch.num_rows)]
    for row, candidate in zip(batch.positive_row_P.tolist(), batch.positive_P.tolist(), strict=True):
        positives[row].add(candidate)
    total, weights = 0.0, 0.0
    for p, (row, candidate) in enumerate(
        zip(batch.positive_row_P.tolist(), batch.positive_P.tolist(), strict=True)
    ):
        others = positives[row] | masked[row]
        rivals = [n for n in range(2, score_BN.shape[1]) if n == candidate or n not in others]
        loss = torch.logsumexp(score_BN[row, rivals], 0) - score_BN[row, candidate]
        weight = float(batch.weight_P[p])
        weight /= float(batch.weight_P[batch.positive_row_P == row].sum()) if by_row else 1.0
        total, weights = total + weight * float(loss), weights + weight
    return total / weights


@pytest.mark.parametrize("mask_own_future", [False, True])
@pytest.mark.parametrize("row_weighting", ["row", "positive"])
@pytest.mark.parametrize("kind", ["full", "sampled"])
def test_the_loss_is_the_naive_loop(world, batch, kind, row_weighting, mask_own_future):
    weight_P = torch.linspace(0.5, 2.0, len(batch.weight_P))
    batch, model = replace(batch, weight_P=weight_P), model_of(world)
    objective = objective_of(world, kind=kind, row_weighting=row_weighting, mask_own_future=mask_own_future)
    objective = replace(objective, negatives=Everything(world.num_advertisers))
    masked = [set() for _ in range(batch.num_rows)]
    if mask_own_future:
        for row, candidate in zip(batch.future_row_H.tolist(), batch.future_H.tolist(), strict=True):
            masked[row].add(candidate)
    expected = naive_full_loss(model, batch, masked=masked, by_row=row_weighting == "row")
    assert loss_and_gradient(objective, model, batch)[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("row_weighting", ["row", "positive"])
def test_rows_of_one_positive_have_the_same_loss_in_blocks(world, batch, row_weighting, monkeypatch):
    model = model_of(world, use_own_history=False, use_summary=False)
    objective = objective_of(world, row_weighting=row_weighting)
    first_P = torch.tensor([*map(batch.positive_row_P.tolist().index, range(batch.num_rows))])
    nothing = torch.zeros(0, dtype=torch.int64)
    single = replace(
        batch,
        positive_row_P=batch.positive_row_P[first_P],
        positive_P=batch.positive_P[first_P],
        weight_P=torch.linspace(0.5, 2.0, batch.num_rows),
        own_row_M=nothing,
        own_candidate_M=nothing,
        own_feature_MF=batch.own_feature_MF[:0],
        own_mass_M=batch.own_mass_M[:0],
        is_in_window_H=torch.zeros_like(batch.is_in_window_H),
    )
    whole = "forecart.training.objective.full_softmax_loss"
    with monkeypatch.context() as patch:
        patch.setattr(whole, None)
        in_blocks = loss_and_gradient(objective, model, single)
    is_by_row = row_weighting == "row"
    masked = [set() for _ in range(batch.num_rows)]
    expected = naive_full_loss(model, single, masked=masked, by_row=is_by_row)
    assert in_blocks[0] == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr("forecart.training.objective._has_one_positive_a_row", lambda _: False)
    torch.testing.assert_close(
        in_blocks[1], loss_and_gradient(objective, model, single)[1], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"own_tower_share": 0.0},
        {"own_tower_share": 0.5},
        {"use_own_history": False},
        {"num_layers": 0},
    ],
    ids=str,
)
def test_a_pool_of_everything_gives_the_full_loss_and_its_gradient(world, batch, given):
    model = model_of(world, **given)
    full = loss_and_gradient(objective_of(world), model, batch)
    objective = replace(objective_of(world, kind="sampled"), negatives=Everything(world.num_advertisers))
    sampled = loss_and_gradient(objective, model, batch)
    assert sampled[0] == pytest.approx(full[0], abs=1e-5)
    torch.testing.assert_close(sampled[1], full[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("negatives", "form"),
    [("sampled", "standard"), ("mixed", "standard"), ("sampled", "corrected")],
)
def test_the_mean_sampled_gradient_tends_to_the_full_one(world, batch, negatives, form):
    model = model_of(world, num_layers=0)
    _, full = loss_and_gradient(objective_of(world), model, batch)

    def mean_error(num_negatives):
        objective = objective_of(
            world, kind="sampled", negatives=negatives, num_negatives=num_negatives, form=form
        )
        draws = [loss_and_gradient(objective, model, batch, seed)[1] for seed in range(24)]
        return float((torch.stack(draws).mean(0) - full).norm() / full.norm())

    few, many = mean_error(3), mean_error(60)
    assert many < 0.02
    assert many < few / 2


def test_forgetting_to_include_own_pairs_exactly_would_be_seen(world, batch):
    """The figure above is not met by a loss without them, so it says something."""
    model = model_of(world, num_layers=0)
    _, full = loss_and_gradient(objective_of(world), model, batch)
    objective = replace(objective_of(world, kind="sampled"), negatives=Everything(world.num_advertisers))
    none = replace(
        batch,
        own_row_M=batch.own_row_M[:0],
        own_candidate_M=batch.own_candidate_M[:0],
        own_feature_MF=batch.own_feature_MF[:0],
        own_mass_M=batch.own_mass_M[:0],
    )
    loss = objective(model, none, generator=torch.Generator())
    grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
    assert (torch.cat([grad.flatten() for grad in grads]) - full).norm() > 0.2 * full.norm()


def test_the_streams_are_what_they_are_called(world, batch):
    pools = {
        name: objective_of(world, kind="sampled", negatives=name, num_negatives=3).negatives.draw(
            batch.positive_P, generator=torch.Generator().manual_seed(0)
        )
        for name in ("in_batch", "sampled", "mixed")
    }
    positives = set(batch.positive_P.tolist())
    sampled = set(pools["sampled"].index_N.tolist())
    assert set(pools["in_batch"].index_N.tolist()) == positives
    assert 1 <= len(sampled) <= 3 and min(sampled) >= 2
    assert set(pools["mixed"].index_N.tolist()) == positives | sampled


@pytest.mark.parametrize("negatives", ["in_batch", "sampled", "mixed"])
@pytest.mark.parametrize("given", [{}, {"alpha_pos": 1.0}, {"form": "corrected"}, {"q_estimator": "sketch"}])
def test_every_stream_and_form_gives_finite_gradients(world, batch, negatives, given):
    objective = objective_of(world, kind="sampled", negatives=negatives, num_negatives=16, **given)
    loss, gradient = loss_and_gradient(objective, model_of(world), batch)
    assert np.isfinite(loss) and loss > 0
    assert gradient.isfinite().all() and gradient.abs().max() > 0


def test_q_is_counted_over_the_training_set_exactly_or_in_a_sketch(world):
    for q_estimator in ("exact", "sketch"):
        stream = objective_of(world, negatives="in_batch", q_estimator=q_estimator).negatives
        assert isinstance(stream, InBatchNegatives)
        # A candidate that was never a positive counts as one, so that its log q is finite.
        expected = np.log(np.array([1, 1, 3, 2, 1, 1]) / 6)
        np.testing.assert_allclose(stream.log_prob_V[:6].numpy(), expected, rtol=1e-6)
    sketch = CountMinSketch(width=1 << 16, depth=4)
    sketch.add(np.array([2, 2]))
    assert sketch.estimate(np.array([2, 5])).tolist() == [2, 0]


def test_sampled_negatives_are_uniform_over_real_candidates(world):
    stream = objective_of(world, negatives="sampled", num_negatives=7).negatives
    assert isinstance(stream, SampledNegatives) and stream.num_negatives == 7
    probability = stream.log_prob_V.exp()
    assert probability[:2].tolist() == [0, 0]
    torch.testing.assert_close(probability[2:], torch.full((18,), 1 / 18))


@pytest.mark.parametrize("kind", ["full", "sampled"])
def test_a_positive_that_a_cap_left_out_is_never_a_negative(world, batch, kind):
    """Whatever `mask_own_future` says: the loss is as if exactly these conversions were masked."""
    model, capped = model_of(world), replace(batch, is_in_window_H=torch.ones_like(batch.future_H).bool())

    def loss(of, *, mask_own_future):
        objective = objective_of(world, kind=kind, mask_own_future=mask_own_future)
        return objective(model, of, generator=torch.Generator().manual_seed(0)).item()

    assert not batch.is_in_window_H.any()
    expected = loss(batch, mask_own_future=True)
    assert loss(capped, mask_own_future=False) == loss(capped, mask_own_future=True) == expected
    assert loss(batch, mask_own_future=False) > expected


def test_masked_future_gets_no_gradient(world, batch):
    """What the user will convert with after the window is neither pulled nor pushed."""
    model = model_of(world, use_own_history=False)
    pairs = (batch.future_row_H, batch.future_H)
    for is_masked in (True, False):
        score_BN = model(batch).detach().requires_grad_()
        masked_BN = torch.zeros_like(score_BN, dtype=torch.bool)
        masked_BN[pairs] = is_masked
        loss = full_softmax_loss(
            score_BN,
            positive_row_P=batch.positive_row_P,
            positive_column_P=batch.positive_P,
            masked_BN=masked_BN,
        )
        loss.backward()
        assert (score_BN.grad[pairs] == 0).all() == is_masked


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["full", "sampled"])
def test_two_threads_do_not_race_for_the_gradient(two_threads, kind):
    """`x[index]` does from 32,768 numbers on: its gradient is summed in the order the threads arrive."""
    world = cycle_world(num_users=400)
    settings = TrainingSettings(batch_rows=400, loss=LossSettings(kind=kind, num_negatives=8))
    examples = world.examples(START + DAY * np.array([14]), settings, length=8)
    batch = to_tensors(next(examples.batches(0)), torch.device("cpu"))
    model = world.model(ModelSettings(width=32, history_length=8, id_rows=64, dropout=0.0, feature_dropout=0))
    objective = Objective.build(settings.loss, examples.labels.candidate, model.num_candidates)
    assert 32 * len(batch.own_row_M) > 100_000
    first, *others = [loss_and_gradient(objective, model, batch)[1] for _ in range(6)]
    assert all(torch.equal(first, other) for other in others)
