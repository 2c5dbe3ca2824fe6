"""The first ranker's value, and the log of what was answered."""

import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from tests.ads.test_blending import ROOT, SNAPSHOT
from tests.serving.server_process import wait_until

from forecart.ads.expansion import CandidateAds
from forecart.ads.l1 import CalibratedBid
from forecart.ads.outcomes import Outcome, OutcomeLog, read_outcomes
from forecart.ads.request import AdRequest
from forecart.errors import ArtifactError
from forecart.metrics.calibration import Calibration
from forecart.serving.outcome_writer import OutcomeWriter

REQUEST = AdRequest(now_us=0)


def ads(scores, source="advertisers"):
    return CandidateAds(
        source, np.arange(len(scores)), np.array(scores, np.float32), np.arange(1, len(scores) + 1)
    )


def test_a_value_is_probability_times_bid():
    ranker = CalibratedBid({"advertisers": Calibration((0.0, 1.0, 2.0), (0.1, 0.2, 0.6))})
    snapshot = SNAPSHOT
    value = ranker.value(REQUEST, snapshot, ads([-1, 0.5, 1.5, 9]))
    assert np.allclose(value, np.array([0.1, 0.15, 0.4, 0.6]) * snapshot.bid_usd_A[:4])
    assert ranker.is_calibrated("advertisers") and not ranker.is_calibrated("products")


def test_without_a_calibration_the_order_of_scores_stays():
    probability = CalibratedBid().probability(ads([3, -1, 0, 2]))
    assert probability[2] == 0.5 and np.argsort(-probability).tolist() == [0, 3, 2, 1]


@pytest.mark.parametrize("score", [-1e30, -800, -2.5, 0, 3, 800])
def test_the_default_is_the_logistic_function_at_any_score(score):
    found = CalibratedBid().probability(ads([score]))[0]
    wanted = 0.0 if score < -700 else 1 / (1 + math.exp(-score))
    assert found == pytest.approx(wanted, abs=1e-12)


def outcome(number, at_us=0):
    return Outcome(f"r{number:03d}", at_us, "release", None, 1, f"ad{number}", "adv", "advertisers", 0.5)


def test_rows_are_written_when_there_are_enough_or_they_are_old(tmp_path):
    log = OutcomeLog(tmp_path, rows_per_file=3, max_age_s=10)
    log.add([outcome(0), outcome(1)], now_us=0)
    assert read_outcomes(tmp_path).is_empty()
    log.add([outcome(2)], now_us=1)
    assert read_outcomes(tmp_path)["ad_id"].to_list() == ["ad0", "ad1", "ad2"]
    log.add([outcome(3, at_us=5)], now_us=5)
    log.add([], now_us=9_999_999)
    assert read_outcomes(tmp_path).height == 3
    log.add([], now_us=10_000_005)
    assert read_outcomes(tmp_path).height == 4
    log.add([outcome(4, at_us=20_000_000)], now_us=20_000_000)
    log.flush()
    log.flush()
    rows = read_outcomes(tmp_path)
    assert rows["request_id"].to_list() == [f"r{number:03d}" for number in range(5)]
    assert rows["propensity"].to_list() == [1.0] * 5 and len(list(tmp_path.iterdir())) == 3


def test_a_disk_that_refuses_costs_no_answer_and_no_more_memory_than_allowed(tmp_path):
    folder = tmp_path / "log"
    folder.write_text("a file where the folder should be")
    log = OutcomeLog(folder, rows_per_file=2, max_waiting=5)
    for number in range(9):
        log.add([outcome(number)], now_us=0)
    assert log.num_dropped == 4
    with pytest.raises(OSError):
        log.flush()
    folder.unlink()
    log.flush()
    assert read_outcomes(folder)["ad_id"].to_list() == [f"ad{number}" for number in range(5)]


class CountingLog(OutcomeLog):
    """Counts tries to write; `fault` is raised by each."""

    def __init__(self, folder, fault):
        super().__init__(folder, rows_per_file=1)
        self.fault, self.tries_s = fault, []

    def flush(self):
        self.tries_s.append(self.now_s)
        raise self.fault

    def tick(self, rows, now_s):
        self.now_s = now_s
        self.add(rows, now_us=now_s * 1_000_000)


@pytest.mark.parametrize("fault", [OSError("full"), ValueError("whatever")])
def test_a_disk_that_refuses_is_asked_again_after_longer_and_longer(tmp_path, fault):
    log = CountingLog(tmp_path, fault)
    for now_s in range(200):
        for _ in range(3):
            log.tick([outcome(0)], now_s)
    pauses = np.diff(log.tries_s).tolist()
    assert log.tries_s[0] == 0 and pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert log.num_failures == len(log.tries_s) == 9 and log.num_dropped == 0


def test_what_waits_is_written_where_nobody_asks_any_more(tmp_path):
    now_us = 5_000_000
    writer = OutcomeWriter(OutcomeLog(tmp_path, max_age_s=2), clock=lambda: now_us)
    writer.start()
    writer.add([outcome(0, at_us=now_us)], now_us=now_us)
    time.sleep(1.5)
    assert read_outcomes(tmp_path).is_empty()
    now_us += 2_000_000
    wait_until(lambda: read_outcomes(tmp_path).height == 1)
    writer.stop()


def test_no_mistake_ends_the_writing(tmp_path):
    class Faulty(OutcomeLog):
        def add(self, outcomes, *, now_us):
            if not is_mended:
                raise RuntimeError("a mistake")
            super().add(outcomes, now_us=now_us)

    is_mended = False
    writer = OutcomeWriter(Faulty(tmp_path, rows_per_file=1))
    writer.start()
    writer.add([outcome(0)], now_us=0)
    wait_until(lambda: writer.num_failures > 0)
    is_mended = True
    writer.add([outcome(1)], now_us=0)
    wait_until(lambda: read_outcomes(tmp_path)["ad_id"].to_list() == ["ad1"])
    writer.stop()


def test_a_full_disk_keeps_the_rows_for_later(tmp_path):
    code = """
import resource, signal, sys
from pathlib import Path
from tests.ads.test_l1_and_outcomes import OutcomeLog, outcome, read_outcomes
folder = Path(sys.argv[1])
log = OutcomeLog(folder, rows_per_file=2)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
log.add([outcome(0), outcome(1)], now_us=0)
try:
    log.flush()
except OSError:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(folder.iterdir()) == []
    log.add([outcome(2)], now_us=10**9)
    print(read_outcomes(folder)["ad_id"].to_list(), log.num_dropped)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "['ad0', 'ad1', 'ad2'] 0\n", done.stderr


def test_what_is_no_log_is_refused(tmp_path):
    (tmp_path / "outcomes-1.parquet").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="outcome log"):
        read_outcomes(tmp_path)
