"""From lists and labels to the figures of the report: means over rows, paired differences, intervals.

Every figure of a system is that of the list with its own name (of its first seed, the one that is served),
so it can be recomputed from the written lists. Where systems have several seeds, their spread and the
comparison of per-row means over seeds stand beside it under `seeds`: the first is what one gets, the second
what to expect.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from forecart.evaluation.protocol import INDEX_K, POOLS, BoolArray, Evaluation, is_relevant_in
from forecart.metrics import catalog, ranking
from forecart.metrics.significance import Interval, bootstrap_by_user, minimum_detectable_difference
from forecart.sequences.vocabulary import FIRST_INDEX

RECALL_K: Final = (1, 5, 10, 20, 50, 100)
MODEL: Final = "model"
FloatArray = npt.NDArray[np.float64]
RowMeasures = dict[str, FloatArray]
Table = dict[str, Any]


def summarise(
    evaluation: Evaluation, *, slices: Mapping[str, BoolArray] | None = None, num_samples: int = 2000
) -> Table:
    """Returns the figures of one level: by pool over all cuts, `per_cut` and, where given, `slices`.

    Each table is `{"num_rows", "num_users", "num_relevant", "model": {metric: value}, "baselines": {name:
    {metric: value}}, "interval": {name: {metric: {"ci_low", "ci_high"}}}, "difference": {metric: {name:
    {"mean", "ci_low", "ci_high", "standard_error", "minimum_detectable"}}}}`; difference = model minus that
    baseline. A system called `model` is the model, all others are baselines; without one, `model` and
    `difference` are empty. A pool without rows has only its counts.

    Args:
        evaluation: the lists.
        slices: by name, which positives count, [nnz]; tables of the pool `all` with the lists unchanged.
        num_samples: of the bootstrap.
    """
    labels = evaluation.labels
    everything = np.ones(len(labels.candidate), bool)
    cut_of_positive = labels.cut_us[labels.rows()]
    result: Table = {pool: tabulate(evaluation, pool, everything, num_samples=num_samples) for pool in POOLS}
    result["per_cut"] = {
        name_cut(int(cut_us)): {
            pool: tabulate(evaluation, pool, cut_of_positive == cut_us, num_samples=num_samples)
            for pool in POOLS
        }
        for cut_us in np.unique(labels.cut_us)
    }
    if slices:
        result["slices"] = {
            name: tabulate(evaluation, "all", is_kept, num_samples=num_samples)
            for name, is_kept in slices.items()
        }
    return result


def tabulate(evaluation: Evaluation, pool: str, is_kept: BoolArray, *, num_samples: int = 2000) -> Table:
    """Returns the table of one pool, with only the marked positives relevant; see `summarise`.

    Rows with nothing relevant left are left out.

    Args:
        evaluation: the lists.
        pool: one of POOLS.
        is_kept: [nnz].
        num_samples: of the bootstrap.
    """
    is_relevant = is_kept & is_relevant_in(evaluation.labels, pool)
    row = np.unique(evaluation.labels.rows()[is_relevant])
    user_R = evaluation.labels.user_index[row]
    table: Table = {
        "num_rows": len(row),
        "num_users": len(np.unique(user_R)),
        "num_relevant": int(is_relevant.sum()),
        "model": {},
        "baselines": {},
        "difference": {},
    }
    if len(row) == 0:
        return table
    measures = {
        name: [measure_rows(evaluation, pool, seed, is_relevant) for seed in seeds]
        for name, seeds in evaluation.list_names.items()
    }
    spread = {
        name: [measure_exposure(evaluation, pool, seed, row) for seed in seeds]
        for name, seeds in evaluation.list_names.items()
    }
    _fill_means(table, measures, spread)
    first = {name: seeds[0] for name, seeds in measures.items()}
    table["interval"] = _intervals(first, user_R, num_samples)
    table["difference"] = _differences(first, user_R, num_samples)
    if any(len(seeds) > 1 for seeds in measures.values()):
        table["seeds"] = _seeds(measures, spread)
        means = {name: _mean_over_seeds(seeds) for name, seeds in measures.items()}
        table["seeds"]["difference"] = _differences(means, user_R, num_samples)
    return table


def measure_rows(evaluation: Evaluation, pool: str, list_name: str, is_relevant: BoolArray) -> RowMeasures:
    """Returns each measure of each row that has something relevant, by metric name, [R].

    Args:
        evaluation: the lists.
        pool: whose lists.
        list_name: of a system, or of one of its seeds.
        is_relevant: [nnz], within the pool.
    """
    labels, num_candidates = evaluation.labels, evaluation.settings.num_candidates
    relevant_row = labels.rows()[is_relevant]
    row, num_relevant = np.unique(relevant_row, return_counts=True)
    place = np.searchsorted(evaluation.pool_rows[pool], row)
    candidate_RK = evaluation.lists[pool][list_name].candidate[place].astype(np.int64)
    relevant_key = relevant_row * num_candidates + labels.candidate[is_relevant]
    key_RK = row[:, None] * num_candidates + candidate_RK
    is_hit_RK = np.isin(key_RK, relevant_key) & (candidate_RK >= 0)
    measures = _ranking_measures(is_hit_RK, num_relevant)
    is_whole = np.array_equal(num_relevant, np.diff(labels.offsets)[row])
    if pool == "all" and is_whole and evaluation.index_recall:
        by_k = evaluation.index_recall[list_name][row].T
        measures |= {f"index_recall_at_{k}": by_k[at] for at, k in enumerate(INDEX_K)}
    return measures


def _ranking_measures(is_hit_RK: BoolArray, num_relevant: npt.NDArray[np.int64]) -> RowMeasures:
    depth = is_hit_RK.shape[1]
    measures = {
        f"recall_at_{k}": ranking.recall_at_k(is_hit_RK, num_relevant, k=k) for k in RECALL_K if k <= depth
    }
    measures["capped_recall_at_10"] = ranking.capped_recall_at_k(is_hit_RK, num_relevant, k=10)
    measures["ndcg_at_10"] = ranking.ndcg_at_k(is_hit_RK, num_relevant, k=10)
    measures["hit_rate_at_10"] = ranking.hit_rate_at_k(is_hit_RK, num_relevant, k=10)
    measures["mrr"] = ranking.mrr(is_hit_RK, num_relevant)
    return measures


def measure_exposure(
    evaluation: Evaluation, pool: str, list_name: str, row: npt.NDArray[np.int64]
) -> dict[str, float]:
    """Returns how widely the full lists of these rows spread over the catalogue, by metric name."""
    place = np.searchsorted(evaluation.pool_rows[pool], row)
    candidate_RK = evaluation.lists[pool][list_name].candidate[place]
    count_N = catalog.exposure_counts(candidate_RK, num_candidates=evaluation.settings.num_candidates)
    count_N = count_N[FIRST_INDEX:]
    return {
        "p90_coverage": catalog.p90_coverage(count_N),
        "catalogue_coverage": catalog.catalogue_coverage(count_N),
        "gini": catalog.gini(count_N),
    }


def name_cut(cut_us: int) -> str:
    """Returns a cut as a date, or with its time where that is not midnight UTC."""
    moment = datetime.fromtimestamp(cut_us / 1e6, UTC)
    is_midnight = (moment.hour, moment.minute, moment.second, moment.microsecond) == (0, 0, 0, 0)
    return moment.strftime("%Y-%m-%d") if is_midnight else moment.isoformat().replace("+00:00", "Z")


def _fill_means(
    table: Table, measures: Mapping[str, list[RowMeasures]], spread: Mapping[str, list[dict[str, float]]]
) -> None:
    for name, seeds in measures.items():
        values = _means(seeds[0]) | spread[name][0]
        if name == MODEL:
            table["model"] = values
        else:
            table["baselines"][name] = values


def _means(measures: RowMeasures) -> dict[str, float]:
    return {metric: float(value.mean()) for metric, value in measures.items()}


def _mean_over_seeds(seeds: Sequence[RowMeasures]) -> RowMeasures:
    return {metric: np.mean([seed[metric] for seed in seeds], axis=0) for metric in seeds[0]}


def _intervals(measures: Mapping[str, RowMeasures], user_R: npt.NDArray[np.int32], num_samples: int) -> Table:
    keys = [(name, metric) for name, values in measures.items() for metric in values]
    column_RM = np.stack([measures[name][metric] for name, metric in keys], axis=1)
    interval = bootstrap_by_user(column_RM, user_R, num_samples=num_samples)
    table: Table = {name: {} for name in measures}
    for at, (name, metric) in enumerate(keys):
        table[name][metric] = _bounds(interval, at)
    return table


def _differences(
    measures: Mapping[str, RowMeasures], user_R: npt.NDArray[np.int32], num_samples: int
) -> Table:
    """Returns model minus each baseline, by metric and baseline; empty without both."""
    baselines = [name for name in measures if name != MODEL]
    if MODEL not in measures or not baselines:
        return {}
    keys = [(metric, name) for metric in measures[MODEL] for name in baselines]
    column_RM = np.stack([measures[MODEL][metric] - measures[name][metric] for metric, name in keys], axis=1)
    interval = bootstrap_by_user(column_RM, user_R, num_samples=num_samples)
    table: Table = {metric: {} for metric in measures[MODEL]}
    for at, (metric, name) in enumerate(keys):
        error = float(interval.standard_error[at])
        table[metric][name] = {
            "mean": float(interval.mean[at]),
            **_bounds(interval, at),
            "standard_error": error,
            "minimum_detectable": minimum_detectable_difference(error),
        }
    return table


def _bounds(interval: Interval, at: int) -> dict[str, float]:
    return {"ci_low": float(interval.ci_low[at]), "ci_high": float(interval.ci_high[at])}


def _seeds(measures: Mapping[str, list[RowMeasures]], spread: Mapping[str, list[dict[str, float]]]) -> Table:
    """Returns values by seed, their mean and standard deviation, of each system with several seeds."""
    table: Table = {"values": {}, "mean": {}, "standard_deviation": {}}
    for name in (name for name, seeds in measures.items() if len(seeds) > 1):
        by_seed = [
            _means(rows) | exposure for rows, exposure in zip(measures[name], spread[name], strict=True)
        ]
        values = {metric: [seed[metric] for seed in by_seed] for metric in by_seed[0]}
        table["values"][name] = values
        table["mean"][name] = {metric: float(np.mean(seeds)) for metric, seeds in values.items()}
        table["standard_deviation"][name] = {
            metric: float(np.std(seeds, ddof=1)) for metric, seeds in values.items()
        }
    return table
