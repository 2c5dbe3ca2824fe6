"""How sure a figure is: a bootstrap that resamples users, because one user's rows at several cuts are alike.

Takes a value (or a paired difference) per row and the user each row belongs to; gives mean, percentile
interval and standard error. A resample is a vector of how often each user was drawn, so thousands of them are
one matrix product and every column of a table sees the same draws.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
CONFIDENCE: Final = 0.95
"""Share of the samples inside an interval."""
POWER: Final = 0.8
_BLOCK_ENTRIES: Final = 1 << 22


@dataclass(frozen=True)
class Interval:
    """Means of M columns with their bootstrap intervals; every array is [M]."""

    mean: FloatArray
    ci_low: FloatArray
    ci_high: FloatArray
    standard_error: FloatArray


def bootstrap_by_user(
    value_RM: FloatArray,
    user_R: npt.NDArray[np.integer],
    *,
    num_samples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Returns mean and percentile interval of each column over rows, users drawn with replacement.

    A sample draws as many users as there are, takes all rows of each drawn user, and is the mean over those
    rows. For a paired comparison give per-row differences. Without rows everything is NaN.

    Args:
        value_RM: [R, M], one column per figure; finite.
        user_R: [R], any integers; rows of one user move together.
        num_samples: S, resamples.
        seed: of the draws; the same seed and users, the same draws whatever the values.

    Raises:
        ValueError: a value is not finite.

    Source: Efron and Tibshirani, 1993, chapters 8 and 13; Field and Welsh, 2007, for clusters.
    """
    if not np.isfinite(value_RM).all():
        raise ValueError("a bootstrap needs finite values, some are not: leave rows without a value out")
    if len(value_RM) == 0:
        nothing = np.full(value_RM.shape[1], np.nan)
        return Interval(nothing, nothing, nothing, nothing)
    _, cluster_R = np.unique(user_R, return_inverse=True)
    sum_UM, size_U = _cluster_sums(value_RM, cluster_R)
    mean_SM = _sample_means(sum_UM, size_U, num_samples, np.random.default_rng(seed))
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(mean_SM, [tail, 1.0 - tail], axis=0)
    return Interval(value_RM.mean(axis=0), low, high, mean_SM.std(axis=0, ddof=1))


def _cluster_sums(
    value_RM: FloatArray, cluster_R: npt.NDArray[np.integer]
) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    size_U = np.bincount(cluster_R)
    sums = [np.bincount(cluster_R, weights=column, minlength=len(size_U)) for column in value_RM.T]
    return np.stack(sums, axis=1), size_U


def _sample_means(
    sum_UM: FloatArray, size_U: npt.NDArray[np.int64], num_samples: int, generator: np.random.Generator
) -> FloatArray:
    """Returns the mean of every sample, [S, M], a block of samples at a time."""
    num_users = len(size_U)
    block = max(1, _BLOCK_ENTRIES // num_users)
    means = []
    for first in range(0, num_samples, block):
        drawn_SU = _draw_counts(min(block, num_samples - first), num_users, generator)
        means.append((drawn_SU @ sum_UM) / (drawn_SU @ size_U)[:, None])
    return np.concatenate(means)


def _draw_counts(num_samples: int, num_users: int, generator: np.random.Generator) -> FloatArray:
    """Returns how often each user is drawn in each sample, [S, U]: multinomial, each row sums to U."""
    drawn_SU = generator.integers(0, num_users, (num_samples, num_users))
    flat = (drawn_SU + np.arange(num_samples)[:, None] * num_users).ravel()
    return np.bincount(flat, minlength=num_samples * num_users).reshape(num_samples, -1).astype(np.float64)


def minimum_detectable_difference(standard_error: float) -> float:
    """Returns the smallest true difference that this test finds with probability `POWER`.

    (z(1 - (1 - CONFIDENCE) / 2) + z(POWER)) * standard error of the difference: about 2.8 standard errors.
    """
    normal = NormalDist()
    return (normal.inv_cdf((1 + CONFIDENCE) / 2) + normal.inv_cdf(POWER)) * standard_error
