"""Whether the probabilities that ads are valued by can be believed: predicted against observed, by level."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from forecart.evaluation.report.headline import LEVELS
from forecart.evaluation.report.line_charts import Series, curves
from forecart.evaluation.report.markup import Html
from forecart.evaluation.report.numbers import count, mapping, number, plain, sequence, share, when
from forecart.evaluation.report.parts import card, chapter, figures, grid, legend, table, tiles
from forecart.evaluation.report.scales import round_limits, round_ticks

_FIGURES: Final = ("predicted", "observed", "ci_low", "ci_high", "num_pairs")
_Bin = dict[str, float]


def calibration(report: Mapping[str, Any]) -> Html | None:
    """Returns the chapter of reliability plots, or None where nothing was calibrated."""
    known = mapping(report.get("calibration"))
    cards = [
        shown
        for key, title in LEVELS.items()
        if (shown := _level(mapping(known.get(key)), title)) is not None
    ]
    if not cards:
        return None
    lead = (
        "Ads are valued by the probability of a conversion times the bid. It is read from the score of a "
        "listed candidate by an isotonic curve, fitted on one label window and held here against later ones."
    )
    key = legend([("model", "observed, by bins of the prediction"), ("other", "as predicted")])
    return chapter("calibration", "Calibration", lead, key, grid(cards, "two"))


def _level(one: Mapping[str, Any], title: str) -> Html | None:
    fitted, test = mapping(one.get("fitted")), mapping(one.get("test"))
    bins = _read_bins(test)
    if not fitted and not bins:
        return None
    note = f"fitted at {_moments(fitted)}" + (f", held against {_moments(test)}" if bins else "")
    if not bins:
        words = "No cut of the test is after the window it was fitted on, so nothing says how far it holds."
        return card(title, note, tiles(_sizes(fitted)), words)
    facts = [
        *_sizes(test),
        ("conversions predicted", plain(test.get("predicted_conversions"))),
        ("expected calibration error", share(test.get("expected_calibration_error"))),
    ]
    return card(title, note, tiles(facts), _chart(bins, title), figures(_table(bins, title)))


def _moments(facts: Mapping[str, Any]) -> str:
    return ", ".join(when(cut) for cut in sequence(facts.get("cuts"))) or "an unknown cut"


def _sizes(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = {"num_users": "users", "num_pairs": "listed pairs", "num_conversions": "of them converted"}
    return [(name, count(facts[key])) for key, name in names.items() if number(facts.get(key)) is not None]


def _read_bins(test: Mapping[str, Any]) -> list[_Bin]:
    """Returns the bins of which every figure is known."""
    found = []
    for entry in map(mapping, sequence(test.get("bins"))):
        figure = {name: value for name in _FIGURES if (value := number(entry.get(name))) is not None}
        if len(figure) == len(_FIGURES):
            found.append(figure)
    return found


def _chart(bins: Sequence[_Bin], title: str) -> Html:
    high = max(max(one["predicted"], one["ci_high"]) for one in bins)
    ticks = round_ticks(*round_limits(0.0, high))
    observed = Series(
        title,
        "model",
        [(one["predicted"], one["observed"]) for one in bins],
        [
            f"predicted {share(one['predicted'])}, observed {share(one['observed'])} "
            f"({share(one['ci_low'])} to {share(one['ci_high'])}), {count(one['num_pairs'])} pairs"
            for one in bins
        ],
        [(one["predicted"], one["ci_low"], one["ci_high"]) for one in bins],
    )
    diagonal = Series("as predicted", "other", [(0.0, 0.0), (ticks[-1], ticks[-1])], ["as predicted"] * 2)
    label = f"{title}: observed share of conversions by predicted probability"
    return curves([observed, diagonal], label=label, ticks=ticks, is_log=False, from_zero=True)


def _table(bins: Sequence[_Bin], title: str) -> Html:
    rows = [
        [
            share(one["predicted"]),
            share(one["observed"]),
            f"{share(one['ci_low'])} to {share(one['ci_high'])}",
            count(one["num_pairs"]),
        ]
        for one in bins
    ]
    headers = ["Predicted", "Observed", "95 % interval", "Pairs"]
    return table(headers, rows, caption=f"{title}: predicted and observed")
