"""How to read the page, and where it comes from: definitions, configuration, provenance."""

import json
from collections.abc import Mapping
from typing import Any, Final

from forecart.evaluation.report.markup import Html, tag, untrusted
from forecart.evaluation.report.numbers import mapping, sequence, when
from forecart.evaluation.report.parts import chapter, table

_DEFINITIONS: Final = {
    "Row": (
        "One user at one cut, if the user converted with something in the label window after it. Every "
        "mean is over rows; the small numbers beside the pools say how many."
    ),
    "Positive": (
        "A distinct candidate (advertiser or product) that the user converted with in the label window."
    ),
    "Recall@K": (
        "Positives among the first K candidates of the list, divided by all positives of the row in that "
        "pool. A user with more than K positives cannot reach 1; capped recall divides by the smaller of "
        "K and their number."
    ),
    "Pool all": (
        "All candidates are ranked, those the user converted with before are kept. Most conversions are "
        "repeats, so this pool is mostly about whom a user returns to, and when."
    ),
    "Pool novel": (
        "Only candidates the user had not converted with before the cut count as positives, and the list "
        "leaves out those the user had. Users without a novel positive are left out."
    ),
    "Pool repeat": "Only candidates the user had converted with before the cut count and are listed.",
    "Difference and interval": (
        "Model minus baseline on the same rows. The 95 % interval comes from drawing whole users, with "
        "all their cuts, again and again. Ahead or behind: the interval lies on one side of 0. Level: it "
        "includes 0, so the data cannot tell."
    ),
    "Best baseline": (
        "The one with the highest value in the very table shown, so the choice favours it. The system "
        "without its sequence encoder is an ablation of the model and not a baseline."
    ),
    "NDCG, MRR, hit rate": (
        "NDCG@K weighs a hit by 1 / log2(1 + rank) over the best order possible; MRR is 1 / rank of the "
        "first hit; hit rate is the share of rows with any hit."
    ),
    "P90 coverage": "The smallest share of all candidates whose listings make up 90 % of all listings.",
    "Catalogue coverage, gini": (
        "The share of all candidates that is listed at all; and how unequal the listings are, from 0 (all "
        "alike) to almost 1 (one candidate has them all)."
    ),
    "Lists chosen anew": (
        "popularity: what is taken from the score, as a logit, per unit of the log share of users who had "
        "converted with the candidate before the cut. similarity: MMR's 1 - lambda. kept: the share of the "
        "list, from the top, that stays. of 3 K: chosen from three times as many candidates as are listed. "
        "Intra-list similarity is the mean cosine of the pairs of a list, of the same vectors that MMR reads."
    ),
    "Calibration": (
        "Pairs are all users with a history at the cut (20,000 drawn where there are more) and the "
        "candidates listed for each, of whom most convert with nothing. Up to 20 bins hold equally many "
        "pairs, ordered by the predicted probability; equal predictions are in one bin. The expected "
        "calibration error is the mean over pairs of the distance between predicted and observed of their "
        "bin. Intervals come from drawing whole users."
    ),
    "Cut-off": "Nothing that arrived after it is read: not for histories, counts, or training.",
}


def guide() -> Html:
    """Returns the definitions."""
    entries = [tag("div", tag("dt", term), tag("dd", words)) for term, words in _DEFINITIONS.items()]
    return chapter("guide", "How to read this page", None, tag("dl", *entries, class_="guide"))


def provenance(report: Mapping[str, Any]) -> Html | None:
    """Returns configuration and provenance, folded; None if the report has neither."""
    origin, config = mapping(report.get("provenance")), mapping(report.get("config"))
    setting = {key: report[key] for key in ("schema_version", "as_of", "label_window_days") if key in report}
    cuts = [when(cut) for cut in sequence(report.get("cuts"))]
    rows = _rows({**origin, **setting, **({"cuts": ", ".join(cuts)} if cuts else {})})
    parts = [
        _folded("Where this page comes from", rows) if rows else None,
        _folded("Configuration", _rows(config)) if config else None,
    ]
    if not any(parts):
        return None
    return chapter("provenance", "Configuration and provenance", None, *parts)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Returns the leaves of nested mappings as (dotted key, text), in order."""
    leaves: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            leaves += flatten(value, f"{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            leaves.append((name, text))
    return leaves


def _rows(tree: Mapping[str, Any]) -> list[list[Html]]:
    return [[untrusted(key), untrusted(value, limit=2000)] for key, value in flatten(tree)]


def _folded(title: str, rows: list[list[Html]]) -> Html:
    body = table(["Key", "Value"], rows, caption=title)
    return tag("details", tag("summary", title), body, class_="figures settings")
