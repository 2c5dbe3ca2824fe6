"""One suite that every baseline passes: no leak, no chance, no gaps."""

import dataclasses

import numpy as np
import pytest

from forecart.baselines.conversions import ConversionLog
from forecart.baselines.standard import BASELINES, build_baselines
from forecart.columns import EVENT_TYPE_CODES
from forecart.errors import ConfigError
from forecart.sequences.histories import Histories

DAY_US = 86_400_000_000
CUT_US = 60 * DAY_US
NUM_CANDIDATES = 14
CHECKOUT, VIEW = EVENT_TYPE_CODES["checkout"], EVENT_TYPE_CODES["view"]


def random_histories(seed=0, num_users=30):
    """A hundred days of random events; user 5 has views only, user 6 nothing before the cut."""
    generator = np.random.default_rng(seed)
    length = generator.integers(5, 40, num_users)
    length[:2] = 0
    num_events = int(length.sum())
    user = np.repeat(np.arange(num_users), length)
    occurred = generator.integers(0, 100, num_events) * DAY_US
    occurred[user == 6] = 80 * DAY_US
    arrived = occurred + generator.integers(0, 3, num_events) * DAY_US // 2
    order = np.lexsort((occurred, arrived, user))
    code = np.where(generator.random(num_events) < 0.6, CHECKOUT, VIEW).astype(np.uint8)
    code[user == 5] = VIEW
    return Histories(
        start=np.cumsum(length) - length,
        length=length,
        event_type=code,
        advertiser=generator.integers(1, NUM_CANDIDATES, num_events).astype(np.int32),
        item=generator.integers(0, NUM_CANDIDATES, num_events).astype(np.int32),
        occurred_us=occurred[order],
        arrived_us=arrived[order],
        price=np.full(num_events, np.nan, np.float32),
    )


def poisoned(histories, seed=1):
    """The same with everything about the rows that arrived at or after the cut made up anew."""
    generator = np.random.default_rng(seed)
    late = histories.arrived_us >= CUT_US
    changed = {name: getattr(histories, name).copy() for name in ("event_type", "advertiser", "item")}
    for values in changed.values():
        values[late] = generator.integers(1, 9, late.sum())
    occurred = histories.occurred_us.copy()
    occurred[late] = generator.integers(0, 60, late.sum()) * DAY_US
    return dataclasses.replace(histories, **changed, occurred_us=occurred)


def scores(name, histories, level="advertiser", users=None, learn_until_us=None):
    (baseline,) = build_baselines([name])
    checkouts = frozenset({CHECKOUT})
    baseline.fit(ConversionLog(histories, CUT_US, level, NUM_CANDIDATES, checkouts, learn_until_us))
    assert baseline.name == name
    return baseline.score(np.arange(histories.num_users, dtype=np.int32) if users is None else users)


@pytest.fixture(scope="module")
def histories():
    return random_histories()


@pytest.mark.parametrize("level", ["advertiser", "item"])
@pytest.mark.parametrize("name", BASELINES)
def test_nothing_after_the_cut_matters(name, level, histories):
    assert (histories.arrived_us >= CUT_US).sum() > 50
    changed = poisoned(histories)
    assert np.array_equal(scores(name, histories, level), scores(name, changed, level))


@pytest.mark.parametrize("name", BASELINES)
def test_others_rows_after_what_is_learned_from_do_not_matter(name, histories):
    learn_until_us = int(np.quantile(histories.arrived_us, 0.4))
    user = histories.event_users()
    is_late = (histories.arrived_us >= learn_until_us) & (histories.arrived_us < CUT_US)
    chosen = np.bincount(user[is_late]).argmax()
    advertiser = histories.advertiser.copy()
    others = is_late & (user != chosen)
    advertiser[others] = np.random.default_rng(2).integers(2, 9, others.sum())
    changed = dataclasses.replace(histories, advertiser=advertiser)

    def of_chosen(histories, learn_until_us):
        return scores(name, histories, users=np.array([chosen], np.int32), learn_until_us=learn_until_us)

    assert np.array_equal(of_chosen(histories, learn_until_us), of_chosen(changed, learn_until_us))
    assert not np.array_equal(of_chosen(histories, CUT_US), of_chosen(changed, CUT_US))
    # The user's own late rows count, except where there is one list for everyone.
    unknown = np.where(is_late, 1, histories.advertiser).astype(np.int32)
    without = dataclasses.replace(histories, advertiser=unknown)
    is_same = np.array_equal(of_chosen(histories, learn_until_us), of_chosen(without, learn_until_us))
    assert is_same == name.startswith("popularity")


@pytest.mark.parametrize("name", BASELINES)
def test_same_input_same_scores(name, histories):
    assert np.array_equal(scores(name, histories), scores(name, histories))


@pytest.mark.parametrize("name", BASELINES)
def test_shape_finite_and_batch_free(name, histories):
    everyone = scores(name, histories)
    assert everyone.shape == (30, NUM_CANDIDATES) and everyone.dtype == np.float32
    assert np.isfinite(everyone).all()
    users = np.array([9, 3, 9], np.int32)
    np.testing.assert_allclose(scores(name, histories, users=users), everyone[users], rtol=1e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_users_without_events_get_popularity(name, histories):
    before = (histories.arrived_us < CUT_US) & (histories.event_type == CHECKOUT)
    user = histories.event_users()
    pairs = {(u, a) for u, a in zip(user[before], histories.advertiser[before], strict=True) if a >= 2}
    share = np.bincount([a for _, a in pairs], minlength=NUM_CANDIDATES)
    everyone = scores(name, histories)
    assert np.array_equal(everyone[0], everyone[1]) and np.array_equal(everyone[1], everyone[6])
    if not name.endswith("_7d"):
        ranked = np.argsort(-everyone[0, 2:], kind="stable")
        assert ranked.tolist() == np.argsort(-share[2:], kind="stable").tolist()


@pytest.mark.parametrize("name", BASELINES)
def test_no_conversion_at_all(name, histories):
    views = dataclasses.replace(histories, event_type=np.full(histories.num_events, VIEW, np.uint8))
    if name != "history_then_popularity":
        assert (scores(name, views) == 0).all()
    assert np.isfinite(scores(name, views)).all()


def test_unknown_name():
    with pytest.raises(ConfigError, match="there is no baseline 'als'"):
        build_baselines(["als"])
