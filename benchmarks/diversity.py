"""Recall against coverage when lists are chosen anew: `python -m benchmarks.diversity [--test]`.

Trains the demo's models on what is known before November, measures every rule of `RULES` at the four November
cuts, and chooses of them: the highest gain in P90 coverage, the smaller of the two levels', of those whose
Recall@100 loses no more than `MAX_LOSS` by the whole of its interval. `--test` measures nothing of that
again: it scores the December cuts with the demo's own models, by score and as the stored choice says. Both
write `results/scale-diversity.json` and print tables for docs/benchmarks.md.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks.complete_journey import NOVEMBER
from benchmarks.figures import RESULTS
from forecart import artifacts
from forecart.config import RunConfig, load_config, to_us, validate_config
from forecart.evaluation.frontier import measure_frontier
from forecart.evaluation.provenance import read_provenance
from forecart.observe import ConsoleReporter, Reporter
from forecart.retrieval.diversity import RerankRule
from forecart.retrieval.exact import score_exact, search_exact
from forecart.sequences.split import SECTION, Level
from forecart.workflow import Workflow

MAX_LOSS: Final = 0.01
"""Of Recall@100, relative."""
TIMED_USERS: Final = 1024
_BLOCK: Final = 128
RULES: Final = (
    *(
        RerankRule(popularity=popularity, kept_share=kept, pool_factor=3.0)
        for kept in (0.0, 0.5, 0.8, 0.9)
        for popularity in (0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
    ),
    *(RerankRule(popularity=0.3, kept_share=0.8, pool_factor=factor) for factor in (1.5, 2.0, 5.0)),
    # A price so high that it alone decides: the least popular of the pool in the last places.
    *(RerankRule(popularity=100.0, kept_share=kept, pool_factor=3.0) for kept in (0.9, 0.95)),
    *(
        RerankRule(popularity=0.0, similarity=similarity, kept_share=kept, pool_factor=3.0)
        for similarity, kept in ((0.1, 0.0), (0.2, 0.0), (0.3, 0.0), (0.5, 0.0), (0.3, 0.5))
    ),
    *(
        RerankRule(popularity=0.3, similarity=similarity, kept_share=0.8, pool_factor=3.0)
        for similarity in (0.1, 0.3)
    ),
)
SHOWN: Final = ("recall_at_10", "recall_at_20", "recall_at_100", "recall_at_100_of_novel")
SPREAD: Final = ("p90_coverage", "catalogue_coverage", "gini", "intra_list_similarity")


def november_config() -> RunConfig:
    """Returns the demo whose weights know nothing of November, measured there."""
    tree = load_config("demo").model_dump(mode="json")
    tree["split"] |= {"as_of": NOVEMBER[0], "test_cuts": NOVEMBER}
    tree["next_advertiser"]["ablate_encoder"] = False
    return validate_config(tree, where="the diversity benchmark")


def measure(workflow: Workflow, rules: Sequence[RerankRule]) -> dict[str, Any]:
    """Returns the points of both targets at the test cuts of a trained run."""
    cuts_us = [to_us(cut) for cut in workflow.config.split.test_cuts]
    return {
        SECTION[level]: measure_frontier(workflow.target_data(level, cuts_us), workflow.scorer(level), rules)
        for level in workflow.config.levels
    }


def choose(validation: dict[str, Any]) -> dict[str, Any]:
    """Returns the rule that validation chooses; see above."""
    points = [found["points"] for found in validation.values()]
    best: tuple[float, dict[str, Any]] = (0.0, {})
    for same in zip(*(of_level[1:] for of_level in points), strict=True):
        gain = min(coverage_gain(point, of_level[0]) for point, of_level in zip(same, points, strict=True))
        losses = [recall_change(point, of_level[0])[1] for point, of_level in zip(same, points, strict=True)]
        if min(losses) >= -MAX_LOSS and gain > best[0]:
            best = (gain, same[0]["rule"])
    return best[1]


def coverage_gain(point: dict[str, Any], by_score: dict[str, Any]) -> float:
    """Returns how much higher P90 coverage is than by score, relative."""
    gain: float = point["values"]["p90_coverage"] / by_score["values"]["p90_coverage"] - 1
    return gain


def recall_change(point: dict[str, Any], by_score: dict[str, Any]) -> tuple[float, float, float]:
    """Returns the change of Recall@100 and both ends of its interval, relative to that by score."""
    change, value = point["difference"]["recall_at_100"], by_score["values"]["recall_at_100"]
    return change["mean"] / value, change["ci_low"] / value, change["ci_high"] / value


def time_lists(workflow: Workflow, level: Level) -> dict[str, float]:
    """Returns CPU milliseconds a user: of scores and search, and of choosing lists of 100 anew."""
    scorer, cut_us = workflow.scorer(level), to_us(workflow.config.split.as_of)
    users = np.unique(workflow.target_data(level, [cut_us]).labels().user_index)[:TIMED_USERS]
    is_eligible_N = torch.ones(len(workflow.target_data(level, []).vocabulary), dtype=torch.bool)
    rules = {"popularity": RerankRule(), "similarity": RerankRule(popularity=0.0, similarity=0.3)}
    scorer.candidates_at(cut_us)
    spent: dict[str, float] = dict.fromkeys(("encode", "search", *rules), 0.0)
    for first in range(0, len(users), _BLOCK):
        marks = [time.process_time()]
        embedded = scorer.embed(cut_us, users[first : first + _BLOCK])
        marks.append(time.process_time())
        score_BN = score_exact(embedded, scorer.candidates_at(cut_us))
        best = search_exact(score_BN, top_k=RerankRule().pool_size(100), is_eligible_N=is_eligible_N)
        marks.append(time.process_time())
        for rule in rules.values():
            scorer.reranker_by(rule, cut_us).rerank(best, top_k=100)
            marks.append(time.process_time())
        for name, seconds in zip(spent, np.diff(marks).tolist(), strict=True):
            spent[name] += seconds
    return {name: 1000 * seconds / len(users) for name, seconds in spent.items()}


def show(title: str, found: dict[str, Any]) -> None:
    """Prints a Markdown table of the points."""
    by_score = found["points"][0]
    print(f"\n{title}: {found['num_rows']} lists\n")
    headings = ["", "Recall@10", "@20", "@100", "change of @100, %", "novel @100", "P90 coverage", "gain, %"]
    headings += ["catalogue coverage", "Gini", "intra-list similarity"]
    print(f"| {' | '.join(headings)} |\n|{'---|' * len(headings)}")
    for point in found["points"]:
        values = [f"{point['values'][metric]:.4f}" for metric in (*SHOWN, *SPREAD)]
        change, gain = "", ""
        if point["rule"]:
            mean, low, high = (100 * share for share in recall_change(point, by_score))
            change = f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"
            gain = f"{100 * coverage_gain(point, by_score):+.0f}"
        print(f"| {' | '.join([point['name'], *values[:3], change, *values[3:5], gain, *values[5:]])} |")


def validate(folder: Path, reporter: Reporter) -> dict[str, Any]:
    """Returns every rule in November, what is chosen, and what choosing costs; trains where it must."""
    workflow = Workflow(november_config(), folder, reporter=reporter)
    workflow.learn()
    validation = measure(workflow, RULES)
    return {
        "num_rules": len(RULES),
        "max_loss": MAX_LOSS,
        "chosen": choose(validation),
        "validation": validation,
        "cpu_ms_a_user": {SECTION[level]: time_lists(workflow, level) for level in workflow.config.levels},
        "provenance": read_provenance(),
    }


def test(folder: Path, chosen: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Returns December by score and as chosen; trains the demo's models where they are not there."""
    workflow = Workflow(load_config("demo"), folder, reporter=reporter)
    workflow.learn()
    return {**measure(workflow, [RerankRule.model_validate(chosen)]), "provenance": read_provenance()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("runs/diversity/november"))
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"), help="the demo's run, for --test")
    parser.add_argument("--test", action="store_true", help="score December with what is chosen")
    asked, path = parser.parse_args(), RESULTS / "scale-diversity.json"
    with ConsoleReporter() as reporter:
        if asked.test:
            found = artifacts.read_json(path)
            found["test"] = test(asked.demo, found["chosen"], reporter)
        else:
            found = validate(asked.output, reporter)
    artifacts.write_json(path, found)
    for part in ("validation", "test"):
        for target in SECTION.values():
            if target in found.get(part, {}):
                show(f"{target}, {part}", found[part][target])
    print(f"\nchosen of {found['num_rules']}: {found['chosen']}\nCPU ms a user: {found['cpu_ms_a_user']}")


if __name__ == "__main__":
    main()
