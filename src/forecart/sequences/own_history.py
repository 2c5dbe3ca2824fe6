"""A user's own statistics per candidate, over the whole history: the sparse list that repeats live in.

Takes a `PairLog`, users with their cuts, and the population at (or before) those cuts; gives one row per
(user, candidate) pair with a fixed list of features. Repeats dominate this task, so these features and their
learned weights stand beside the tower score (docs/adr/0005).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from forecart import columns
from forecart.sequences.pair_log import PairLog, run_starts
from forecart.sequences.population import Population
from forecart.sequences.split import DAY_US

FloatArray = npt.NDArray[np.float32]

# What a pair without a conversion has for "days since": beyond any that occurs in a year of data.
NEVER_DAYS: Final = 400.0
_INTENT_CODES: Final = [columns.EVENT_TYPE_CODES[name] for name in ("add_to_cart", "signup", "lead")]
_DECAYS_DAYS: Final = (7.0, 30.0, 120.0)

FEATURES: Final = (
    "has_converted",
    "log_rows",
    "log_visits",
    "log_visits_7d",
    "log_visits_30d",
    "log_visits_120d",
    "log_days_since_last",
    "months_since_last",
    "week_since_last",
    "weekday_phase",
    "log_days_since_first",
    "log_gap",
    "is_repeated",
    "due",
    "due_for_candidate",
    "log_rows_per_visit",
    "log_decayed_visits",
    "log_share_of_visits",
    "log_share_of_recent_visits",
    "log_user_visits",
    "log_user_recent_visits",
    "log_user_days_since_last",
    "log_candidate_share_7d",
    "log_candidate_share_28d",
    "log_candidate_share",
    "log_candidate_trend",
    "log_candidate_visits_per_user",
    "log_candidate_gap",
    "log_intents",
    "intents_7d",
    "log_views",
    "views_7d",
    "log_days_since_any",
    "day_since_any",
)


@dataclass(frozen=True, eq=False)
class OwnHistory:
    """M pairs (row, candidate), ascending by row and then by candidate; the row is a position in a batch.

    Attributes:
        row: [M].
        candidate: [M].
        feature: [M, F] float32 in the order of `FEATURES`, not standardised.
        has_converted: [M].
    """

    row: npt.NDArray[np.int64]
    candidate: npt.NDArray[np.int32]
    feature: FloatArray
    has_converted: npt.NDArray[np.bool_]


def read_own_history(
    log: PairLog,
    *,
    user_index: npt.NDArray[np.int32],
    cut_us: npt.NDArray[np.int64],
    population: Population,
) -> OwnHistory:
    """Returns the features of every candidate that each user had an event with before the user's cut.

    A user without events has no row. A pair without a conversion has zero counts and `NEVER_DAYS`.

    Args:
        log: events by pair.
        user_index: [B].
        cut_us: [B], microseconds since the epoch; events that arrived at or after it are not read.
        population: statistics as of the cut or before.
    """
    position, event = log.rows_of(user_index, cut_us)
    candidate = log.candidate[event]
    first = np.flatnonzero(run_starts(position, candidate))
    if len(first) == 0:
        nothing = np.zeros(0, np.int64)
        empty = np.zeros((0, len(FEATURES)), np.float32)
        return OwnHistory(nothing, nothing.astype(np.int32), empty, nothing.astype(bool))
    events = _PairEvents(
        first=first,
        age_days=(cut_us[position] - log.occurred_us[event]) / DAY_US,
        is_conversion=log.is_conversion[event],
        is_intent=np.isin(log.event_type[event], _INTENT_CODES) & ~log.is_conversion[event],
        is_visit=_visits(log, position, event),
    )
    row, pair_candidate = position[first], candidate[first]
    own = events.statistics()
    user = user_index[row]
    named = {
        **_pair_features(own),
        **_relative_features(own, population, user, pair_candidate),
        **_population_features(population, user, pair_candidate),
    }
    feature = np.stack([named[name] for name in FEATURES], axis=1).astype(np.float32)
    return OwnHistory(row, pair_candidate, feature, own["rows"] > 0)


def _visits(
    log: PairLog, position: npt.NDArray[np.int64], event: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Marks the first conversion row of each distinct time of a pair: a basket of ten rows is one visit."""
    is_visit = np.zeros(len(event), bool)
    converted = np.flatnonzero(log.is_conversion[event])
    is_visit[converted] = run_starts(
        position[converted], log.candidate[event[converted]], log.occurred_us[event[converted]]
    )
    return is_visit


@dataclass(frozen=True, eq=False)
class _PairEvents:
    """The events of all pairs in one run of rows; `first` says where each pair begins."""

    first: npt.NDArray[np.int64]
    age_days: npt.NDArray[np.float64]
    is_conversion: npt.NDArray[np.bool_]
    is_intent: npt.NDArray[np.bool_]
    is_visit: npt.NDArray[np.bool_]

    def statistics(self) -> dict[str, npt.NDArray[np.float64]]:
        age, other = self.age_days, ~self.is_conversion & ~self.is_intent
        week = np.exp(-age / 7)
        far = np.where(self.is_conversion, age, np.inf)
        found = {
            "rows": self._sum(self.is_conversion),
            "visits": self._sum(self.is_visit),
            "intents": self._sum(self.is_intent),
            "intents_7d": self._sum(self.is_intent * week),
            "views": self._sum(other),
            "views_7d": self._sum(other * week),
            "last": np.minimum(np.minimum.reduceat(far, self.first), NEVER_DAYS),
            "since": np.maximum.reduceat(np.where(self.is_conversion, age, 0.0), self.first),
            "any": np.minimum.reduceat(age, self.first),
        }
        for days in _DECAYS_DAYS:
            found[f"visits_{days:.0f}d"] = self._sum(self.is_visit * np.exp(-age / days))
        return found

    def _sum(self, value: npt.NDArray[np.float64] | npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        summed: npt.NDArray[np.float64] = np.add.reduceat(value.astype(np.float64), self.first)
        return summed


def _pair_features(own: dict[str, npt.NDArray[np.float64]]) -> dict[str, npt.NDArray[np.float64]]:
    gap = _gap_days(own)
    return {
        "has_converted": (own["rows"] > 0).astype(np.float64),
        "log_rows": np.log1p(own["rows"]),
        "log_visits": np.log1p(own["visits"]),
        "log_visits_7d": np.log1p(own["visits_7d"]),
        "log_visits_30d": np.log1p(own["visits_30d"]),
        "log_visits_120d": np.log1p(own["visits_120d"]),
        "log_days_since_last": np.log1p(own["last"]),
        "months_since_last": own["last"] / 30,
        "week_since_last": np.exp(-own["last"] / 3.5),
        "weekday_phase": np.abs((own["last"] + 3.5) % 7 - 3.5),
        "log_days_since_first": np.log1p(own["since"]),
        "log_gap": np.log1p(gap),
        "is_repeated": (own["visits"] > 1).astype(np.float64),
        "due": np.where(own["visits"] > 1, np.minimum(own["last"] / np.maximum(gap, 1), 5), 0),
        "log_rows_per_visit": np.log(np.maximum(own["rows"], 1) / np.maximum(own["visits"], 1)),
        "log_decayed_visits": np.log(own["visits_120d"] + 0.1),
        "log_intents": np.log1p(own["intents"]),
        "intents_7d": np.log1p(own["intents_7d"]),
        "log_views": np.log1p(own["views"]),
        "views_7d": np.log1p(own["views_7d"]),
        "log_days_since_any": np.log1p(own["any"]),
        "day_since_any": np.exp(-own["any"]),
    }


def _gap_days(own: dict[str, npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Mean days between a pair's visits, 0 where there was no second one."""
    is_repeated = own["visits"] > 1
    return np.where(is_repeated, (own["since"] - own["last"]) / np.maximum(own["visits"] - 1, 1), 0.0)


def _relative_features(
    own: dict[str, npt.NDArray[np.float64]],
    population: Population,
    user: npt.NDArray[np.int32],
    candidate: npt.NDArray[np.int32],
) -> dict[str, npt.NDArray[np.float64]]:
    visits, recent = population.user_visits[user], population.user_visits_30d[user]
    return {
        "due_for_candidate": np.minimum(own["last"] / np.maximum(population.gap_days[candidate], 1), 5),
        "log_share_of_visits": np.log(np.minimum(own["visits"] / np.maximum(visits, 1), 1) + 1e-3),
        # 120 / 30: so that a user with a steady pace has a share of about one.
        "log_share_of_recent_visits": np.log(own["visits_120d"] / np.maximum(4 * recent, 1) + 1e-3),
    }


def _population_features(
    population: Population, user: npt.NDArray[np.int32], candidate: npt.NDArray[np.int32]
) -> dict[str, npt.NDArray[np.float32]]:
    log_share = population.log_share[candidate]
    return {
        "log_user_visits": np.log1p(population.user_visits[user]),
        "log_user_recent_visits": np.log1p(population.user_visits_30d[user]),
        "log_user_days_since_last": np.log1p(population.user_last_days[user]),
        "log_candidate_share_7d": log_share[:, 0],
        "log_candidate_share_28d": log_share[:, 1],
        "log_candidate_share": log_share[:, 2],
        "log_candidate_trend": log_share[:, 0] - log_share[:, 1],
        "log_candidate_visits_per_user": np.log(population.visits_per_user[candidate]),
        "log_candidate_gap": np.log1p(population.gap_days[candidate]),
    }
