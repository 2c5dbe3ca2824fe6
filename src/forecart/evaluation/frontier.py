"""What choosing lists otherwise than by score costs and gives: recall against coverage, a row per rule.

Takes a trained scorer and rules; gives the figures of the best by score and of each rule on the same rows,
with intervals of the differences in recall. The lists are those of the pool `all`; scores are made once.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from forecart.evaluation.protocol import Evaluation, RankedLists, is_relevant_in
from forecart.evaluation.tables import RECALL_K, measure_exposure, measure_rows
from forecart.evaluation.targets import TargetData
from forecart.metrics import catalog
from forecart.metrics.ranking import NO_CANDIDATE
from forecart.metrics.significance import bootstrap_by_user
from forecart.retrieval.diversity import RerankRule, choose_lists
from forecart.retrieval.exact import score_exact, search_exact
from forecart.retrieval.scorer import ModelScorer
from forecart.retrieval.top_k import TopK
from forecart.sequences.split import Labels

BY_SCORE: Final = "by score"
_BATCH_USERS: Final = 128
_METRICS: Final = tuple(f"recall_at_{k}" for k in RECALL_K)


def measure_frontier(
    data: TargetData,
    scorer: ModelScorer,
    rules: Sequence[RerankRule],
    *,
    listed: RerankRule | None = None,
    num_samples: int = 2000,
) -> dict[str, Any]:
    """Returns `num_rows` and `points`, the best by score first, then the rules in their order.

    A point has its `name`, its `rule` (None by score), `is_listed`, `is_default` (of the rule as it comes),
    `values` by metric (Recall@K, also of novel positives at 100, coverage, Gini, intra-list similarity), and
    but for the first `difference`: Recall@K less that by score, with its interval.

    Args:
        data: what is measured.
        scorer: its scores; what it does with lists does not matter.
        rules: to measure; those that are the same are measured once.
        listed: the rule of the lists that are written, measured too; None where these are by score.
        num_samples: of the bootstrap.
    """
    unique = list(dict.fromkeys([*rules, *([listed] if listed else [])]))
    names = {BY_SCORE: None} | {name_rule(rule): rule for rule in unique}
    labels = data.labels()
    evaluation = _list_all(data, labels, scorer, names)
    vector_ND = scorer.candidates_at(max(data.cuts_us)).vector_ND.cpu().numpy()
    rows = {name: _measure(evaluation, name, _METRICS) for name in names}
    points = []
    for name, rule in names.items():
        point = {
            "name": name,
            "rule": rule and rule.model_dump(mode="json"),
            "is_listed": rule == listed,
            "is_default": rule == RerankRule(),
            "values": _values(evaluation, name, rows[name], vector_ND),
        }
        if rule:
            change_RM = rows[name] - rows[BY_SCORE]
            found = bootstrap_by_user(change_RM, labels.user_index, num_samples=num_samples)
            point["difference"] = {
                metric: {
                    "mean": float(found.mean[at]),
                    "ci_low": float(found.ci_low[at]),
                    "ci_high": float(found.ci_high[at]),
                }
                for at, metric in enumerate(_METRICS)
            }
        points.append(point)
    return {"num_rows": len(labels), "points": points}


def name_rule(rule: RerankRule) -> str:
    """Returns a rule in words, the same for the same rule only."""
    parts = [f"popularity {rule.popularity:g}"] if rule.popularity or not rule.similarity else []
    parts += [f"similarity {rule.similarity:g}"] if rule.similarity else []
    return ", ".join([*parts, f"kept {rule.kept_share:g}", f"of {rule.pool_factor:g} K"])


def _list_all(
    data: TargetData, labels: Labels, scorer: ModelScorer, names: dict[str, RerankRule | None]
) -> Evaluation:
    settings = data.settings()
    sizes = [rule.pool_size(settings.top_k) for rule in names.values() if rule]
    depth = max([settings.top_k, *sizes])
    lists = {name: _no_lists(len(labels), settings.top_k) for name in names}
    for cut_us in np.unique(labels.cut_us).tolist():
        rows = np.flatnonzero(labels.cut_us == cut_us)
        rerankers = {
            name: None if rule is None else scorer.reranker_by(rule, cut_us) for name, rule in names.items()
        }
        for first in range(0, len(rows), _BATCH_USERS):
            batch = rows[first : first + _BATCH_USERS]
            users = scorer.embed(cut_us, labels.user_index[batch])
            candidates = scorer.candidates_at(cut_us)
            best = search_exact(
                score_exact(users, candidates), top_k=depth, is_eligible_N=candidates.prior_N.isfinite()
            )
            for name, reranker in rerankers.items():
                found = choose_lists(partial(_best_of, best), reranker, top_k=settings.top_k)
                is_there = found.score > -np.inf
                lists[name].candidate[batch] = np.where(is_there, found.candidate, NO_CANDIDATE)
                lists[name].score[batch] = found.score
    everything = np.arange(len(labels))
    return Evaluation(settings, labels, {name: [name] for name in names}, {"all": everything}, {"all": lists})


def _best_of(lists: TopK, num: int) -> TopK:
    return TopK(lists.candidate[:, :num], lists.score[:, :num])


def _no_lists(num_rows: int, top_k: int) -> RankedLists:
    return RankedLists(np.zeros((num_rows, top_k), np.int32), np.zeros((num_rows, top_k), np.float32))


def _measure(evaluation: Evaluation, name: str, metrics: Sequence[str]) -> npt.NDArray[np.float64]:
    everything = np.ones(len(evaluation.labels.candidate), np.bool_)
    measures = measure_rows(evaluation, "all", name, everything)
    return np.stack([measures[metric] for metric in metrics], axis=1)


def _values(
    evaluation: Evaluation, name: str, row_RM: npt.NDArray[np.float64], vector_ND: npt.NDArray[np.float32]
) -> dict[str, float]:
    values = dict(zip(_METRICS, row_RM.mean(axis=0).tolist(), strict=True))
    values |= measure_exposure(evaluation, "all", name, evaluation.pool_rows["all"])
    novel = measure_rows(evaluation, "all", name, is_relevant_in(evaluation.labels, "novel"))
    similarity_R = catalog.intra_list_similarity(evaluation.lists["all"][name].candidate, vector_ND)
    more = {"recall_at_100_of_novel": novel["recall_at_100"], "intra_list_similarity": similarity_R}
    known = {metric: value_R[~np.isnan(value_R)] for metric, value_R in more.items()}
    return values | {metric: float(value_R.mean()) for metric, value_R in known.items() if len(value_R)}
