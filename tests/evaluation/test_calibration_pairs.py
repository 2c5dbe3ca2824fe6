"""Which pairs a calibration is fitted on and held against, on a world whose rates are planted."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from forecart import artifacts
from forecart.columns import EVENT_TYPE_CODES
from forecart.evaluation import calibration as calibration_module
from forecart.evaluation.calibration import CALIBRATIONS, RELIABILITY, CalibrationTask, write_calibration
from forecart.evaluation.targets import TargetData
from forecart.metrics.calibration import parse_calibrations
from forecart.sequences.histories import Histories
from forecart.sequences.split import DAY_US, LabelContract

CHECKOUT, VISIT = EVENT_TYPE_CODES["checkout"], EVENT_TYPE_CODES["page_visit"]
NUM_USERS, N, TOP_K = 1500, 30, 8
LEARNED_US = 30 * DAY_US
CUTS_US = [30 * DAY_US, 37 * DAY_US, 44 * DAY_US]
LATE = 3  # comes after the first cut
NEVER_LISTED = 7


def score_of(user):
    return np.random.default_rng([5, user]).uniform(-3, 3, N).astype(np.float32)


def rate_of(score):
    return 0.3 / (1 + np.exp(-2 * score))


@dataclasses.dataclass
class PlantedScorer:
    name: str = "model"

    def score_at(self, cut_us, user_index):
        return np.stack([score_of(user) for user in user_index.tolist()])


def make_events():
    """By user: (time, type, advertiser): a visit, and conversions in the windows at the planted rate."""
    generator = np.random.default_rng(8)
    for user in range(2, NUM_USERS):
        rows = [((33 if user == LATE else 1) * DAY_US, VISIT, 2)]
        for cut_us in CUTS_US:
            for candidate in np.flatnonzero(generator.random(N) < rate_of(score_of(user))):
                if candidate >= 2:
                    rows.append((cut_us + int(generator.integers(0, 7 * DAY_US)), CHECKOUT, int(candidate)))
        yield user, sorted(rows)


@pytest.fixture(scope="module")
def events():
    return dict(make_events())


@pytest.fixture(scope="module")
def task(events):
    length = np.array([len(events.get(user, ())) for user in range(NUM_USERS)])
    rows = [row for user in range(NUM_USERS) for row in events.get(user, ())]
    at, kind, advertiser = (np.array(column) for column in zip(*rows, strict=True))
    histories = Histories(
        start=np.cumsum(length) - length,
        length=length,
        event_type=kind.astype(np.uint8),
        advertiser=advertiser.astype(np.int32),
        item=np.zeros(len(at), np.int32),
        occurred_us=at,
        arrived_us=at,
        price=np.full(len(at), np.nan, np.float32),
    )
    sequences = SimpleNamespace(histories=histories, advertisers=range(N), items=range(2))
    contract = LabelContract(positives={"checkout": 1.0})
    data = TargetData(sequences, "advertiser", contract, CUTS_US, LEARNED_US)
    is_eligible = np.arange(N) != NEVER_LISTED
    return CalibrationTask(data, PlantedScorer(), lambda moment_us: is_eligible, TOP_K, 60 * DAY_US, 0)


def list_naively(events, cut_us, known_before_us):
    """(user, score, converted) of everyone who was there before the cut."""
    for user, rows in events.items():
        if not any(at < cut_us for at, _, _ in rows):
            continue
        bought = {
            candidate
            for at, kind, candidate in rows
            if kind == CHECKOUT and cut_us <= at < cut_us + 7 * DAY_US and at < known_before_us
        }
        score = score_of(user)
        listed = sorted((c for c in range(2, N) if c != NEVER_LISTED), key=lambda c: -score[c])[:TOP_K]
        yield from ((user, float(score[candidate]), candidate in bought) for candidate in listed)


@pytest.mark.parametrize("known_before_us", [33 * DAY_US, 60 * DAY_US])
def test_pairs_are_what_would_be_listed_for_everyone_who_was_there(events, task, known_before_us):
    found = task.list_pairs([LEARNED_US], known_before_us=known_before_us)
    rows = list(zip(found.user.tolist(), found.score.tolist(), found.converted.tolist(), strict=True))
    assert rows == list(list_naively(events, LEARNED_US, known_before_us))
    assert LATE not in found.user and LATE in task.list_pairs([CUTS_US[1]]).user
    # Who converts with nothing that is listed is in it all the same.
    converts = np.bincount(found.user, weights=found.converted)[np.unique(found.user)] > 0
    assert (~converts).mean() > 0.05


def test_what_is_predicted_at_later_cuts_comes(task, tmp_path):
    write_calibration(tmp_path, {"advertiser": task})
    curve = parse_calibrations(artifacts.read_json(tmp_path / CALIBRATIONS))["advertisers"]
    assert curve.apply(np.array([1.5])) == pytest.approx(rate_of(1.5), abs=0.02)
    told = artifacts.read_json(tmp_path / RELIABILITY)["next_advertiser"]
    assert told["fitted"]["cuts"] == ["1970-01-31"]
    # The window that it was fitted on is over at the other cuts only.
    assert told["test"]["cuts"] == ["1970-02-07", "1970-02-14"]
    assert told["test"]["num_pairs"] == 2 * TOP_K * (NUM_USERS - 2)
    assert told["test"]["predicted_conversions"] == pytest.approx(told["test"]["num_conversions"], rel=0.03)
    assert told["test"]["expected_calibration_error"] < 0.02
    observed = np.array([one["observed"] for one in told["test"]["bins"]])
    predicted = np.array([one["predicted"] for one in told["test"]["bins"]])
    assert np.abs(predicted - observed).max() < 0.05


def test_of_many_users_a_sample_is_taken_the_same_every_time(task, monkeypatch):
    monkeypatch.setattr(calibration_module, "MAX_USERS", 100)
    first, again = (task.list_pairs([LEARNED_US]).user for _ in range(2))
    assert len(np.unique(first)) == 100 and first.tolist() == again.tolist()
    other = dataclasses.replace(task, seed=1).list_pairs([LEARNED_US]).user
    assert set(other.tolist()) != set(first.tolist())


def test_without_a_later_cut_nothing_is_measured(task):
    data = dataclasses.replace(task.data, cuts_us=[LEARNED_US])
    curve, _ = task.fit()
    assert dataclasses.replace(task, data=data).measure(curve) is None
