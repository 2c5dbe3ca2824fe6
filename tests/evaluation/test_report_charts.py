"""Figures as text and as places on a chart, against values worked out by hand."""

import math
import re

import pytest

from forecart.evaluation.report import interval_charts, line_charts, numbers
from forecart.evaluation.report.frontier import frontier_block
from forecart.evaluation.report.markup import Html, clip, tag
from forecart.evaluation.report.scales import Scale, round_limits, round_ticks, tick_labels
from forecart.evaluation.report.verdicts import Difference, Verdict, best_baseline, differences, recall_depths

AHEAD, LEVEL = Difference(0.02, 0.01, 0.03), Difference(0.0, -0.01, 0.01)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (numbers.share(0.36666), ".3667"),
        (numbers.share(1), "1.0000"),
        (numbers.share(0.000123), ".000123"),
        (numbers.share(0), ".0000"),
        (numbers.share(float("nan")), "–"),
        (numbers.share(True), "–"),
        (numbers.signed(0.0024), "+.0024"),
        (numbers.signed(-0.00001), "−.0000"),
        (numbers.signed(0), ".0000"),
        (numbers.count(67851), "67,851"),
        (numbers.count("67851"), "–"),
        (numbers.plain(4.91234), "4.912"),
        (numbers.plain(-12345.6), "−12,346"),
        (numbers.percent(1, 3), "33.3 %"),
        (numbers.percent(1, 10_000), "< .1 %"),
        (numbers.percent(1, 0), "–"),
        (numbers.when("2017-12-01T00:00:00Z"), "2017-12-01"),
        (numbers.when("2017-12-01 00:00:00+00:00"), "2017-12-01"),
        (numbers.when("2017-12-01T14:05:09.25Z"), "2017-12-01 14:05"),
        (numbers.when("last week"), "last week"),
        (numbers.metric_label("index_recall_at_10"), "Index recall@10"),
        (numbers.metric_label("ndcg_at_10"), "NDCG@10"),
    ],
)
def test_figures_are_written_alike_everywhere(written: str, expected: str) -> None:
    assert written == expected


def test_children_and_attributes_are_escaped_and_markup_is_not_escaped_twice() -> None:
    inner = tag("b", "<&>", data_tip="\"x'")
    assert inner == '<b data-tip="&quot;x&#x27;">&lt;&amp;&gt;</b>'
    assert tag("p", inner, None, 3, hidden=True, title=None, x=1.5) == f'<p hidden x="1.5">{inner}3</p>'
    assert clip("abcdef", 4) == "abc…"


def test_a_scale_maps_its_ends_and_what_lies_between() -> None:
    assert [Scale(0, 10, 100, 200)(value) for value in (0, 5, 10, 20)] == [100, 150, 200, 300]
    assert [Scale(1, 100, 0, 2, is_log=True)(value) for value in (1, 10, 100)] == pytest.approx([0, 1, 2])
    assert Scale(3, 3, 0, 10)(3) == 5


def test_axes_begin_and_end_at_round_values() -> None:
    assert round_ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert round_ticks(-0.0031, 0.0052) == pytest.approx([-0.002, 0, 0.002, 0.004])
    assert round_limits(0.13, 0.74) == pytest.approx((0, 0.8))
    assert round_ticks(4, 4) == [4]
    low, high = round_limits(4, 4)
    assert low < 4 < high
    assert tick_labels([-0.002, 0, 0.002]) == ["−.002", ".000", ".002"]
    assert tick_labels([0, 500, 1000]) == ["0", "500", "1,000"]
    assert tick_labels([0, 10_000, 20_000]) == ["0", "10k", "20k"]


def test_a_verdict_needs_the_whole_interval_on_one_side() -> None:
    assert Difference(0.1, 1e-9, 0.2).verdict is Verdict.AHEAD
    assert Difference(0.1, 0.0, 0.2).verdict is Verdict.LEVEL
    assert Difference(-0.1, -0.2, 0.0).verdict is Verdict.LEVEL
    assert Difference(-0.1, -0.2, -1e-9).verdict is Verdict.BEHIND


def test_the_best_baseline_is_no_ablation_and_equals_go_by_name() -> None:
    values = {"b": 0.2, "a": 0.2, "model_no_encoder": 0.9, "reranked": 0.8, "c": None}
    table = {
        "baselines": {name: {"recall_at_10": value, "recall_at_5": 0.1} for name, value in values.items()}
    }
    assert best_baseline(table, "recall_at_10") == "a"
    assert best_baseline(table, "mrr") is None
    assert recall_depths(table) == [5, 10]


def test_the_hardest_baseline_stands_first_and_half_known_ones_are_left_out() -> None:
    entry = {"ci_low": 0.0, "ci_high": 1.0}
    known = {"far": entry | {"mean": 0.9}, "near": entry | {"mean": 0.1}, "broken": {"mean": 0.5}}
    assert [name for name, _ in differences({"difference": {"mrr": known}}, "mrr")] == ["near", "far"]


def places(drawn: Html, pattern: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, drawn)]


def test_a_forest_plot_draws_intervals_on_one_scale() -> None:
    drawn = interval_charts.forest([("one", AHEAD), ("two", LEVEL)], label="test")
    zero = places(drawn, r'<line x1="([\d.]+)"[^>]* class="zero">')
    low = places(drawn, r'<line x1="([\d.]+)"[^>]* class="whisker')
    high = places(drawn, r'<line [^>]*x2="([\d.]+)"[^>]* class="whisker')
    ring = places(drawn, r'<circle cx="([\d.]+)"')
    assert zero[0] == zero[1] == ring[0]
    # Both intervals are .02 wide; the first begins .01 above 0, the second as far below.
    assert math.isclose(high[0] - low[0], high[1] - low[1], abs_tol=0.02)
    assert math.isclose(low[0] - zero[0], zero[0] - low[1], abs_tol=0.02)


def test_a_baseline_far_off_becomes_an_arrow_and_does_not_set_the_scale() -> None:
    near = interval_charts.forest([("near", LEVEL)], label="test")
    both = interval_charts.forest([("near", LEVEL), ("far", Difference(0.9, 0.8, 1.0))], label="test")
    behind = interval_charts.forest([("near", LEVEL), ("far", Difference(-0.9, -1.0, -0.8))], label="test")
    ring = r'<circle cx="([\d.]+)"'
    assert places(near, ring) == places(both, ring) == places(behind, ring)
    assert "arrow" not in near
    assert 'class="arrow ahead"' in both
    assert 'class="arrow behind"' in behind


def test_pairs_stand_where_their_values_are() -> None:
    drawn = line_charts.dumbbells([line_charts.Pair("head", "", 0.5, 0.25, "")], label="test")
    disc, square = (
        places(drawn, r'cx="([\d.]+)"')[0],
        places(drawn, r'<rect x="([\d.]+)"[^>]*class="dot')[0] + 4.5,
    )
    assert math.isclose(disc - 10, 2 * (square - 10), abs_tol=0.03)


def test_charts_of_one_point_and_of_nothing_but_zeros_are_drawn() -> None:
    series = line_charts.Series("model", "model", [(1.0, 0.0)], ["tip"])
    drawn = [
        line_charts.curves([series], label="test", ticks=[1.0], is_log=True, from_zero=True),
        line_charts.columns([("a", 0.0)], label="test", unit="events"),
        line_charts.scatter([line_charts.Spot("a", "model", 0.0, 0.0)], label="t", x_name="x", y_name="y"),
        line_charts.dumbbells([line_charts.Pair("a", "", 0.0, 0.0, "")], label="test"),
        interval_charts.across([("a", Difference(0.0, 0.0, 0.0))], pooled=None, label="test"),
        interval_charts.forest([("a", Difference(0.0, 0.0, 0.0))], label="test"),
    ]
    assert not any("nan" in one or "inf" in one for one in drawn)


def test_names_of_a_scatter_do_not_cover_each_other() -> None:
    spots = [line_charts.Spot(f"baseline_{at}", "other", 0.1 + at / 1e4, 0.3) for at in range(9)]
    drawn = line_charts.scatter(spots, label="test", x_name="x", y_name="y")
    assert 1 <= len(re.findall('class="name"', drawn)) < 9
    assert all(f"baseline_{at}:" in drawn for at in range(9))


def test_a_frontier_has_a_mark_per_rule_at_its_recall_and_coverage() -> None:
    listed = {"name": "by score", "is_listed": True, "values": {"recall_at_100": 0.8, "p90_coverage": 0.1}}
    default = {
        "name": "popularity 0.3",
        "is_default": True,
        "values": {"recall_at_100": 0.6, "p90_coverage": 0.2},
        "difference": {"recall_at_100": {"mean": -0.2, "ci_low": -0.25, "ci_high": -0.15}},
    }
    other = {"name": "<b>similarity</b>", "values": {"recall_at_100": 0.7, "p90_coverage": 0.15}}
    unknown = {"name": "half known", "values": {"recall_at_100": 0.7, "p90_coverage": None}}
    points = [listed, default, other, unknown]
    drawn = str(frontier_block({"frontier": {"points": points}}))
    marks = re.findall(r'<g class="spot (\w+)" data-tip="([^"]*)"', drawn)
    assert [role for role, _ in marks] == ["model", "best", "other"]
    assert marks[1][1] == "popularity 0.3: P90 coverage .2000, Recall@100 .6000"
    across, up = places(drawn, r'circle cx="([\d.]+)"'), places(drawn, r'circle cx="[\d.]+" cy="([\d.]+)"')
    assert across[0] < across[2] < across[1] and up[0] < up[2] < up[1]
    assert across[2] - across[0] == pytest.approx(across[1] - across[2], abs=0.02)
    assert "−.2000 [−.2500,\N{NO-BREAK SPACE}−.1500]" in drawn
    assert "<b>similarity" not in drawn and "half known" not in drawn


@pytest.mark.parametrize("frontier", [None, {}, {"points": []}, {"points": "none"}])
def test_without_measured_rules_there_is_no_frontier(frontier: object) -> None:
    assert frontier_block({"frontier": frontier}) is None
    by_score = {"name": "by score", "values": {"recall_at_100": 0.8, "p90_coverage": 0.1}}
    assert frontier_block({"frontier": {"points": [by_score]}}) is None
