"""The acceptance rows that a check can hold: `python -m benchmarks.acceptance [--long] [ROW ...]`.

Prints row, what must hold, figure, threshold and pass, and exits with 1 where a row does not hold. A row is
a function that returns its figure and whether it is within the threshold. Most rows count the tests that
prove them: all of the named tests have to pass, and one that is skipped, marked as a known failure or gone
does not. L8, the soak, runs beside the others. With `--long` there are more kills, more random operations,
faults of ten minutes in place of three seconds, and hours of load: most of a day.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
IS_LONG = "--long" in sys.argv
MAX_PEAK_GB, MAX_AGAIN_S = 8.0, 10.0
SERVING_ROWS = ("L1", "L1-pinned", "L5", "L6", "L7")
SOAK_S = 300 if not IS_LONG else 4 * 3600
MAX_SHED_SHARE = 0.01
MAX_P99_RATIO = 2.5
MIN_PEAK_RATIO = 0.6
MIN_GOODPUT, MAX_OVERLOAD_MB, MIN_SWITCHES, MAX_STOP_S = 0.8, 200, 5, 10.0
MAX_SLOPE_MB_PER_H = 1.0
FAULT_S = 600 if IS_LONG else 20
MAX_FAULT_P99_MS, MAX_RECOVERY_S = 50.0, 10.0
MAX_LOOKUP_P50_US, MAX_LOOKUP_P99_US = 10.0, 50.0


@dataclass(frozen=True)
class Outcome:
    figure: str
    passed: bool


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    must_hold: str
    threshold: str
    measure: Callable[[], Outcome]


def count_tests(*selection: str, least: int, sizes: Mapping[str, tuple[int, int]] | None = None) -> Outcome:
    """Runs tests in a process of their own: they all have to pass, and be at least as many as `least`.

    Args:
        selection: files or node ids, relative to the root, or options of pytest such as `-k`.
        least: how many there are at least, so that a test that is lost or renamed is noticed.
        sizes: variables of the environment that make a test larger than in the check: by default, and long.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-p", "no:xdist", f"--junitxml={report}", *selection]
        environment = os.environ | {name: str(size[IS_LONG]) for name, size in (sizes or {}).items()}
        process = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if not report.exists():
            return Outcome(f"pytest did not run: {process.stderr.strip() or process.stdout[-200:]}", False)
        suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    total, failed, skipped = (
        sum(int(suite.get(name, 0)) for suite in suites for name in names)
        for names in (("tests",), ("failures", "errors"), ("skipped",))
    )
    if total == 0:
        return Outcome(f"pytest found no tests: {process.stderr.strip()[-200:]}", False)
    good = total - failed - skipped
    figure = f"{good} of {max(total, least)} tests pass"
    bad = [case.get("name", "") for suite in suites for case in suite.iter("testcase") if len(case)]
    return Outcome(", not: ".join([figure, *bad]), good == total >= least)


def measure_r1() -> Outcome:
    return count_tests(
        "tests/publish/test_crash.py",
        "-k",
        "killed",
        least=2,
        sizes={"FORECART_KILL_STRIDE": (1, 1), "FORECART_KILLS": (50, 1000)},
    )


def measure_r2() -> Outcome:
    return count_tests("tests/publish/test_crash.py", "-k", "write_fails", least=2)


def measure_r3() -> Outcome:
    return count_tests(
        "tests/publish/test_release.py",
        "-k",
        "damage or changed_after or missing_a_further or lead_outside",
        least=13,
    )


def measure_r4() -> Outcome:
    return count_tests(
        "tests/serving/test_ladder.py",
        "tests/contracts/test_stores.py",
        "-k",
        "another_release_is_refused or another_embedding_space or another_user or out_of_step",
        least=4,
    )


def measure_r5() -> Outcome:
    return count_tests(
        "tests/serving/test_reload.py",
        "tests/serving/test_current.py::test_a_rollback_serves_the_one_before_again_and_nothing_of_what_it_withdrew",
        "tests/publish/test_publisher.py::test_rolling_back_serves_the_one_before_byte_for_byte",
        "tests/publish/test_publisher.py::test_rolling_back_again_goes_further_back_and_never_forward",
        "tests/publish/test_publisher.py::test_who_is_suppressed_is_answered_by_no_release_old_or_new",
        least=5,
    )


def measure_r10() -> Outcome:
    tests = count_tests("tests/serving/test_store_faults.py", least=8)
    timed = judge_faults(run_faults())
    if not timed.passed:  # as in L1, what else the machine does may show: once more
        first, timed = timed, judge_faults(run_faults())
        timed = Outcome(f"{timed.figure} (again, after: {first.figure})", timed.passed)
    return Outcome(f"{tests.figure}; {timed.figure}", tests.passed and timed.passed)


def run_faults() -> dict[str, Any]:
    """Runs the benchmark of the faults; returns fault -> figures."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.store_faults", "--seconds", str(FAULT_S)]
        subprocess.run([*command, "--results", folder], cwd=ROOT, capture_output=True, check=True)
        figures: dict[str, Any] = json.loads((Path(folder) / "store-faults.json").read_text())["faults"]
    return figures


def judge_faults(faults: dict[str, Any]) -> Outcome:
    """Every answer in time and 200, personal ones soon after."""
    broken = {name: found for name, found in faults.items() if name != "none"}
    statuses = Counter[str]()
    for found in broken.values():
        statuses.update(found["answers"])
        statuses.update(found["errors"])
    p99_ms = {name: found["latency_ms"]["200"]["p99"] for name, found in broken.items()}
    recovered_s = max(found["recovered_s"] for found in broken.values())
    silent = sum(found["degraded"].get("", 0) for found in broken.values())
    figure = (
        f"p99 ms {', '.join(f'{name} {ms:.0f}' for name, ms in p99_ms.items())}; answers {dict(statuses)}, "
        f"{silent} not labelled; personal again after {recovered_s:.1f} s at most"
    )
    is_fast = max(p99_ms.values()) <= MAX_FAULT_P99_MS and recovered_s <= MAX_RECOVERY_S
    return Outcome(figure, set(statuses) == {"200"} and not silent and is_fast)


def measure_r12() -> Outcome:
    return count_tests("tests/serving/test_ladder.py", "-k", "too_old or lives_as_long", least=3)


def measure_r13() -> Outcome:
    return count_tests(
        "tests/publish/test_publisher.py::test_two_publishers_at_once_one_wins_the_other_says_so",
        "tests/publish/test_publisher.py::test_an_older_history_is_published_by_rolling_back_only",
        "tests/contracts/test_stores.py::test_the_pointer_moves_from_where_it_is",
        "tests/contracts/test_stores.py::test_of_many_who_move_it_at_once_one_wins_each_time",
        least=6,
    )


def measure_r14() -> Outcome:
    return count_tests("tests/publish/test_gate.py", "-k", "trips", least=11)


def measure_r16() -> Outcome:
    return count_tests(
        "tests/publish/test_stateful.py",
        least=20,
        sizes={"FORECART_STATEFUL_SEEDS": (20, 200), "FORECART_STATEFUL_STEPS": (500, 500)},
    )


def measure_s2() -> Outcome:
    return count_tests(
        "tests/serving/test_http.py",
        "tests/publish/test_release.py",
        "tests/publish/test_publisher.py",
        "-k",
        "no_path_leads or lead_outside or something_to_roll_back or a_linked_file",
        least=8,
    )


def measure_s3() -> Outcome:
    return count_tests(
        "tests/serving/test_http.py",
        "-k",
        "admin_needs or over_the_limit or compressed or leaves_no_memory",
        least=4,
    )


def measure_c1() -> Outcome:
    return count_tests("tests/serving/test_consent.py", "tests/serving/test_tcf.py", least=200)


def measure_i1() -> Outcome:
    return count_tests(
        "tests/serving/test_openrtb.py",
        "tests/serving/test_http.py",
        "tests/serving/test_http_ads.py",
        "-k",
        "openrtb or bid or bids or floor",
        least=12,
    )


def measure_i3() -> Outcome:
    day = "tests/serving/test_choosing.py::test_an_adversarial_day_has_no_differences"
    return count_tests("tests/ads/test_ads_eligibility.py", day, least=35)


def measure_i4() -> Outcome:
    return count_tests("tests/ads/test_blending.py", least=6)


@cache
def run_serving(*rows: str) -> dict[str, Any]:
    """Runs the benchmark of the service once for these rows, shorter than by itself."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = ["--seconds", "30" if not IS_LONG else "1800"]
        command = [sys.executable, "-m", "benchmarks.serving", *rows, *seconds]
        subprocess.run([*command, "--results", folder], cwd=ROOT, capture_output=True, check=True)
        figures: dict[str, Any] = json.loads((Path(folder) / "serving.json").read_text())
    return figures


def measure_l1() -> Outcome:
    outcome = judge_l1(run_serving(*SERVING_ROWS))
    if outcome.passed:
        return outcome
    # What else the machine does shows in the slowest hundredth and in requests that came too late: once more.
    again = judge_l1(run_serving("L1", "L1-pinned"))
    return Outcome(f"{again.figure} (again, after: {outcome.figure})", again.passed)


def judge_l1(figures: dict[str, Any]) -> Outcome:
    found, pinned = figures["L1"], figures["L1-pinned"]
    ours = found["open_loop"]["advertisers"]
    ms = ours["latency_ms"]["200"]
    figure = (
        f"p50 {ms['p50']:.1f}, p99 {ms['p99']:.1f}, p99.9 {ms['p99.9']:.1f} ms at {found['rate']:.0f} rps; "
        f"p99 {found['p99_ratio']:.2f}x, peak {found['peak_ratio']:.2f}x of a bare read, "
        f"{pinned['peak_ratio']:.2f}x with --pin; "
        f"answers {ours['answers']}, errors {ours['errors']}"
    )
    is_clean = set(ours["answers"]) == {"200"} and not ours["errors"]
    is_fast = found["p99_ratio"] <= MAX_P99_RATIO and pinned["peak_ratio"] >= MIN_PEAK_RATIO
    return Outcome(figure, is_clean and is_fast)


def measure_l5() -> Outcome:
    found = run_serving(*SERVING_ROWS)["L5"]
    after, growth_mb = found["afterwards"], found["memory_growth_mb"]
    figure = (
        f"goodput {found['goodput_share']:.2f} of the peak at {found['offered_rps']:.0f} rps offered, "
        f"answers {found['overload']['answers']}, memory +{growth_mb:.0f} MB"
    )
    is_back = set(after["answers"]) == {"200"} and not after["errors"]
    is_shed = set(found["overload"]["answers"]) <= {"200", "503"}
    is_bounded = growth_mb <= MAX_OVERLOAD_MB
    return Outcome(figure, found["goodput_share"] >= MIN_GOODPUT and is_back and is_shed and is_bounded)


def measure_l6() -> Outcome:
    found = run_serving(*SERVING_ROWS)["L6"]
    figure = f"{found['switches']} switches, answers {found['answers']}, wrong {found['wrong']}"
    is_clean = set(found["answers"]) == {"200"} and not found["errors"] and not found["wrong"]
    return Outcome(figure, is_clean and found["switches"] >= MIN_SWITCHES)


def measure_l7() -> Outcome:
    found = run_serving(*SERVING_ROWS)["L7"]
    dropped = {what: num for what, num in found["errors"].items() if what != "ConnectionRefusedError"}
    figure = (
        f"exit code {found['exit_code']} after {found['stop_s']:.1f} s; answers {found['answers']}, "
        f"dropped {dropped}, then refused"
    )
    is_clean = set(found["answers"]) == {"200"} and not dropped
    return Outcome(figure, found["exit_code"] == 0 and found["stop_s"] <= MAX_STOP_S and is_clean)


class Soak:
    """L8 beside all the other rows: it needs little of the machine, and minutes."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        command = [sys.executable, "-m", "benchmarks.serving", "L8", "--soak", str(SOAK_S)]
        self._process = subprocess.Popen(
            [*command, "--results", self._folder.name], cwd=ROOT, stdout=subprocess.DEVNULL
        )

    def measure(self) -> Outcome:
        """Waits for its end."""
        with self._folder as folder:
            if code := self._process.wait():
                return Outcome(f"the benchmark ended with {code}", False)
            found = json.loads((Path(folder) / "serving.json").read_text())["L8"]
        slope, descriptors, threads = (
            found[name] for name in ("memory_mb_per_hour", "descriptors", "threads")
        )
        answers = Counter({int(status): num for status, num in found["answers"].items()})
        figure = (
            f"memory {slope:+.2f} MB/h, at rest before and after: descriptors {descriptors}, "
            f"threads {threads}; answers {dict(answers)}"
        )
        is_flat = descriptors[1] <= descriptors[0] and threads[1] <= threads[0]
        # Beside the other rows a request may come too late; none may fail otherwise.
        is_answered = set(answers) <= {200, 503} and answers[503] <= MAX_SHED_SHARE * answers.total()
        return Outcome(figure, slope < MAX_SLOPE_MB_PER_H and is_flat and is_answered and not found["errors"])


def measure_l3() -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        # The better of two: what else the machine does shows in the slowest hundredth.
        runs = [run_publishing(folder) for _ in range(2)]
    best = min(runs, key=lambda run: run["lookup_p99_us"])
    p50_us, p99_us, num_users = best["lookup_p50_us"], best["lookup_p99_us"], best["num_users"]
    figure = f"p50 {p50_us:.1f} us, p99 {p99_us:.1f} us of {num_users:,} users"
    return Outcome(figure, p50_us <= MAX_LOOKUP_P50_US and p99_us <= MAX_LOOKUP_P99_US)


def run_publishing(folder: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.publishing", "--results", folder]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    figures: dict[str, Any] = json.loads((Path(folder) / "publishing.json").read_text())
    return figures


def measure_r6() -> Outcome:
    return count_tests(
        "tests/e2e/test_candidates_killed.py", least=3, sizes={"FORECART_BATCH_KILLS": (5, 50)}
    )


def measure_r7() -> Outcome:
    return count_tests(
        "tests/training/test_resume.py",
        "tests/training/test_checkpoint.py::test_a_damaged_newest_one_falls_back_to_the_one_before",
        "tests/training/test_checkpoint.py::test_no_single_flipped_bit_is_ever_read_as_good",
        least=20,
    )


def measure_r8() -> Outcome:
    return count_tests(
        "tests/events/test_events_ingest.py::test_shuffled_and_duplicated_log_gives_the_same_bytes",
        "tests/events/test_events_ingest.py::test_first_arrival_of_an_id_wins_whatever_the_order",
        "tests/sequences/test_build.py::test_order_and_partitions_of_the_log_do_not_matter",
        "tests/sequences/test_build.py::test_what_arrives_later_changes_no_byte",
        "tests/e2e/test_log_damage.py::test_a_shuffled_duplicated_poisoned_log_gives_the_same_candidates",
        least=7,
    )


def measure_r9() -> Outcome:
    return count_tests(
        "tests/events/test_events_ingest.py::test_one_percent_of_garbage_changes_nothing_and_is_all_found",
        "tests/events/test_events_ingest.py::test_garbage_in_parquet_is_found_by_row",
        "tests/events/test_events_ingest.py::test_more_than_two_percent_stops_the_run_but_shows_the_rows",
        "tests/events/test_events_ingest.py::test_a_fixed_log_replayed_is_the_clean_store",
        "tests/e2e/test_log_damage.py::test_one_percent_of_garbage_gives_the_same_candidates",
        least=6,
    )


def measure_s1() -> Outcome:
    num_modules = len(list((ROOT / "src").rglob("*.py")))
    return count_tests(
        "tests/test_house.py", "-k", "run_what_it_reads or the_check or malicious", least=num_modules + 25
    )


def measure_e1() -> Outcome:
    return count_tests(
        "tests/metrics",
        "tests/evaluation/test_protocol.py::test_lists_and_recall_equal_the_naive_protocol",
        "-k",
        "equal or agrees or index_recall or by_hand or is_the_normal",
        least=15,
    )


def measure_e2() -> Outcome:
    return count_tests(
        "tests/sequences/test_build.py::test_what_arrives_later_changes_no_byte",
        "tests/sequences/test_build.py::test_reading_on_changes_no_index_and_no_prefix",
        "tests/sequences/test_split.py::test_what_arrives_after_the_cut_off_changes_no_training_label",
        "tests/sequences/test_split.py::test_every_training_window_is_over_at_the_cut_off",
        "tests/contracts/test_baselines.py::test_nothing_after_the_cut_matters",
        least=27,
    )


def measure_l9() -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        try:
            first_s, first = run_pipeline(folder)
            # The better of two: on a busy machine loading the libraries alone takes seconds.
            again_s, again = min((run_pipeline(folder) for _ in range(2)), key=lambda run: run[0])
        except subprocess.CalledProcessError as error:
            return Outcome(f"the pipeline failed: {error.stderr[-200:]}", False)
    stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in first["seconds"].items())
    figure = f"{first['peak_gb']:.1f} GB; again {again_s:.1f} s; first {first_s:.0f} s: {stages}"
    is_skipped = len(first["worked"]) >= 7 and not again["worked"]
    return Outcome(figure, is_skipped and first["peak_gb"] <= MAX_PEAK_GB and again_s <= MAX_AGAIN_S)


def run_pipeline(folder: str) -> tuple[float, dict[str, Any]]:
    """Runs the whole pipeline in a process of its own: how long that took, and what it tells of itself."""
    command = [sys.executable, "-m", "benchmarks.pipeline", folder]
    start_s = time.monotonic()
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    elapsed_s = time.monotonic() - start_s
    return elapsed_s, json.loads(process.stdout)


ROWS = (
    Row("R1", "a publisher killed at any step: wholly old or wholly new", "all pass", measure_r1),
    Row("R2", "a write that fails: the old release is served", "all pass", measure_r2),
    Row("R3", "a damaged file of a release is found before it is parsed", "all pass", measure_r3),
    Row("R6", "listing everyone, killed at random: the same bytes, nobody twice", "all pass", measure_r6),
    Row("R7", "training killed at random steps ends in the same weights", "bitwise equal", measure_r7),
    Row("R8", "a shuffled, duplicated or future-poisoned log changes no artifact", "all pass", measure_r8),
    Row("R9", "1 % garbage: the same candidates, exactly those rows in quarantine", "all pass", measure_r9),
    Row("R4", "another release, space or user is refused and labelled", "all pass", measure_r4),
    Row("R5", "a rollback under load: nothing fails, the same bytes", "all pass", measure_r5),
    Row(
        "R10",
        f"a store down, hung, slow or lying, {FAULT_S} s each: answers go on",
        "all pass, p99 <= 50 ms, back in 10 s",
        measure_r10,
    ),
    Row("R12", "a release that is too old is not personal", "all pass", measure_r12),
    Row("R13", "two publishers at once: one wins, the other says so", "all pass", measure_r13),
    Row("R14", "each crafted bad release trips the gate", "all pass", measure_r14),
    Row("R16", "20 x 500 random operations against a dictionary", "all pass", measure_r16),
    Row("S1", "nothing unpickles or evaluates; malicious files are refused", "all pass", measure_s1),
    Row("S2", "no path leads outside", "all pass", measure_s2),
    Row("S3", "tokens, body limits, no compressed bodies", "all pass", measure_s3),
    Row("C1", "consent: what is unknown fails closed", "all pass", measure_c1),
    Row("E1", "measures agree with independent oracles to 1e-9", "all pass", measure_e1),
    Row("E2", "what arrives after the cut-off changes nothing", "all pass", measure_e2),
    Row("I1", "OpenRTB 2.6: bids, 204, 400", "all pass", measure_i1),
    Row("I3", "eligibility, caps and quotas are as a naive oracle says", "0 differences", measure_i3),
    Row("I4", "blending keeps quotas and caps, the same in every process", "all pass", measure_i4),
    Row(
        "L1",
        "advertiser lookup beside a bare read",
        "p99 <= 2.5x, peak with --pin >= .6x, no error",
        measure_l1,
    ),
    Row("L5", "three times the peak", "goodput >= 0.8, the rest 503", measure_l5),
    Row("L6", "releases come and go under load", "0 failed, 0 mixed", measure_l6),
    Row("L7", "SIGTERM under load", "exit 0 in 10 s, nothing dropped", measure_l7),
    Row("L3", "a lookup in the embedded store, 1 M users", "p50 <= 10 us, p99 <= 50 us", measure_l3),
    Row("L9", "the whole pipeline; a run again with nothing new", "<= 8 GB; <= 10 s", measure_l9),
)
SOAK_ROW = "L8", "a soak of 200 rps: memory, descriptors and threads stay", "< 1 MB/h, flat"


def main(asked: list[str]) -> int:
    names = [name for name in asked if name != "--long"]
    known = [*(row.name for row in ROWS), SOAK_ROW[0]]
    if unknown := sorted(set(names) - set(known)):
        print(f"rows are {', '.join(known)}; {unknown} arrived", file=sys.stderr)
        return 2
    rows = [row for row in ROWS if not names or row.name in names]
    if not names or SOAK_ROW[0] in names:
        rows.append(Row(*SOAK_ROW, Soak().measure))
    table = Table("row", "must hold", "figure", "threshold", "pass", "s")
    outcomes = []
    for row in rows:
        start = time.monotonic()
        outcomes.append(row.measure())
        verdict = "yes" if outcomes[-1].passed else "NO"
        seconds = f"{time.monotonic() - start:.0f}"
        table.add_row(row.name, row.must_hold, outcomes[-1].figure, row.threshold, verdict, seconds)
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "150"))
    Console(width=width).print(table)
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
