"""A user's own statistics per candidate, over the whole history: the sparse list that repeats live in.

Takes a `PairLog`, users with their cuts, and the population at (or before) those cuts; gives one row per
(user, candidate) pair with a fixed list of features. Repeats dominate this task, so these features and their
learned weights stand beside the tower score (docs/adr/0005).
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from forecart import columns
from forecart.sequences.own_groups import GROUP_FEATURES, group_features
from forecart.sequences.pair_log import PairLog, run_ends, run_starts
from forecart.sequences.population import NEVER_DAYS, FloatArray, Population
from forecart.sequences.split import DAY_US

Columns = dict[str, FloatArray]

_DECAYS_DAYS: Final = (7.0, 30.0, 120.0)
_MAX_DUE: Final = 5.0
# In the order of the rows of `Population.log_user` and `Population.log_candidate`.
_USER_FEATURES: Final = ("log_user_visits", "log_user_recent_visits", "log_user_days_since_last")
_CANDIDATE_FEATURES: Final = (
    "log_candidate_share_7d",
    "log_candidate_share_28d",
    "log_candidate_share",
    "log_candidate_trend",
    "log_candidate_visits_per_user",
    "log_candidate_gap",
)
# By event type code: what shows intent when it is no conversion itself.
_IS_INTENT: Final = np.zeros(256, bool)
_IS_INTENT[[columns.EVENT_TYPE_CODES[name] for name in ("add_to_cart", "signup", "lead")]] = True

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
    *GROUP_FEATURES,
)


@dataclass(frozen=True, eq=False)
class OwnHistory:
    """M pairs (row, candidate), ascending by row and then by candidate; the row is a position in a batch.

    Attributes:
        row: [M].
        candidate: [M].
        feature: [M, F] float32 in the order of `FEATURES`, not standardised; in memory a column is
            contiguous, because that is how it is filled. [M, 0] where nothing reads them.
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
    with_features: bool = True,
) -> OwnHistory:
    """Returns the features of every candidate that each user had an event with before the user's cut.

    A user without events has no row. A pair without a conversion has zero counts and `NEVER_DAYS`.

    Args:
        log: events by pair.
        user_index: [B].
        cut_us: [B], microseconds since the epoch; events that arrived at or after it are not read.
        population: statistics as of the cut or before.
        with_features: without, only which pairs there are and whether they hold a conversion.
    """
    position, event = log.events_before(user_index, cut_us)
    candidate = log.candidate[event]
    is_first = run_starts(position, candidate)
    first = np.flatnonzero(is_first)
    row, pair_candidate = position[first], candidate[first]
    is_conversion = log.is_conversion(event)
    if not with_features:
        has_converted = np.zeros(len(first), bool)
        has_converted[(np.cumsum(is_first) - 1)[is_conversion]] = True
        return OwnHistory(row, pair_candidate, np.empty((len(first), 0), np.float32), has_converted)
    other = np.flatnonzero(~is_conversion)
    is_intent = _IS_INTENT[log.histories.event_type[event[other]]]
    own = _PairEvents(
        num_pairs=len(first),
        pair=np.cumsum(is_first) - 1,
        age_days=((cut_us[position] - log.histories.occurred_us[event]) / DAY_US).astype(np.float32),
        conversion=np.flatnonzero(is_conversion),
        visit=np.flatnonzero(log.is_visit[event]),
        intent=other[is_intent],
        view=other[~is_intent],
    ).statistics()
    user, place = user_index[row], population.rows_of(pair_candidate)
    named = {
        **_pair_features(own),
        **_relative_features(own, population, user, place),
        **_population_features(population, user, place),
        **group_features(row, log.group[pair_candidate], own),
    }
    feature = np.empty((len(FEATURES), len(row)), np.float32)
    for at, name in enumerate(FEATURES):
        feature[at] = named[name]
    return OwnHistory(row, pair_candidate, feature.T, own["rows"] > 0)


@dataclass(frozen=True, eq=False)
class _PairEvents:
    """R events of M pairs, by pair and then by time; the last four are the row numbers of some of them."""

    num_pairs: int
    pair: npt.NDArray[np.int64]
    age_days: FloatArray
    conversion: npt.NDArray[np.int64]
    visit: npt.NDArray[np.int64]
    intent: npt.NDArray[np.int64]
    view: npt.NDArray[np.int64]

    def statistics(self) -> Columns:
        first_days, last_days = self._first_and_last_conversion()
        visit_days = self.age_days[self.visit]
        decayed = {
            f"visits_{days:.0f}d": self._sum(self.visit, np.exp(visit_days / -days)) for days in _DECAYS_DAYS
        }
        return decayed | {
            "rows": self._sum(self.conversion),
            "visits": self._sum(self.visit),
            "first": first_days,
            "last": last_days,
            "intents": self._sum(self.intent),
            "intents_7d": self._sum(self.intent, np.exp(self.age_days[self.intent] / -7)),
            "views": self._sum(self.view),
            "views_7d": self._sum(self.view, np.exp(self.age_days[self.view] / -7)),
            "any": self.age_days[run_ends(self.pair)],
        }

    def _first_and_last_conversion(self) -> tuple[FloatArray, FloatArray]:
        """Days since each pair's first conversion and since its last; 0 and infinity without one."""
        pair, age_days = self.pair[self.conversion], self.age_days[self.conversion]
        is_first, is_last = run_starts(pair), run_ends(pair)
        first_days = np.zeros(self.num_pairs, np.float32)
        last_days = np.full(self.num_pairs, np.inf, np.float32)
        first_days[pair[is_first]] = age_days[is_first]
        last_days[pair[is_last]] = age_days[is_last]
        return first_days, last_days

    def _sum(self, rows: npt.NDArray[np.int64], weight: FloatArray | None = None) -> FloatArray:
        return np.bincount(self.pair[rows], weight, minlength=self.num_pairs).astype(np.float32)


def _log1p(values: FloatArray) -> FloatArray:
    # In single precision numpy's log is several times faster than its log1p; here nothing is near 0 but 0.
    logs: FloatArray = np.log(values + 1)
    return logs


def _pair_features(own: Columns) -> Columns:
    last, gap = np.minimum(own["last"], NEVER_DAYS), _gap_days(own)
    is_repeated = own["visits"] > 1
    return {
        "has_converted": (own["rows"] > 0).astype(np.float32),
        "log_rows": _log1p(own["rows"]),
        "log_visits": _log1p(own["visits"]),
        "log_visits_7d": _log1p(own["visits_7d"]),
        "log_visits_30d": _log1p(own["visits_30d"]),
        "log_visits_120d": _log1p(own["visits_120d"]),
        "log_days_since_last": _log1p(last),
        "months_since_last": last / 30,
        "week_since_last": np.exp(-last / 3.5),
        "weekday_phase": np.abs((last + 3.5) % 7 - 3.5),
        "log_days_since_first": _log1p(own["first"]),
        "log_gap": _log1p(gap),
        "is_repeated": is_repeated.astype(np.float32),
        "due": np.where(is_repeated, np.minimum(last / np.maximum(gap, 1), _MAX_DUE), 0),
        "log_rows_per_visit": np.log(np.maximum(own["rows"], 1) / np.maximum(own["visits"], 1)),
        "log_decayed_visits": np.log(own["visits_120d"] + 0.1),
        "log_intents": _log1p(own["intents"]),
        "intents_7d": _log1p(own["intents_7d"]),
        "log_views": _log1p(own["views"]),
        "views_7d": _log1p(own["views_7d"]),
        "log_days_since_any": _log1p(own["any"]),
        "day_since_any": np.exp(-own["any"]),
    }


def _gap_days(own: Columns) -> FloatArray:
    """Mean days between a pair's visits, 0 where there was no second one."""
    is_repeated = own["visits"] > 1
    return np.where(is_repeated, (own["first"] - own["last"]) / np.maximum(own["visits"] - 1, 1), 0)


def _relative_features(
    own: Columns, population: Population, user: npt.NDArray[np.int32], place: npt.NDArray[Any]
) -> Columns:
    last, gap = np.minimum(own["last"], NEVER_DAYS), population.gap_days[place]
    visits, recent = population.user_visits[user], population.user_visits_30d[user]
    return {
        "due_for_candidate": np.minimum(last / np.maximum(gap, 1), _MAX_DUE),
        "log_share_of_visits": np.log(np.minimum(own["visits"] / np.maximum(visits, 1), 1) + 1e-3),
        # 120 / 30: so that a user with a steady pace has a share of about one.
        "log_share_of_recent_visits": np.log(own["visits_120d"] / np.maximum(4 * recent, 1) + 1e-3),
    }


def _population_features(
    population: Population, user: npt.NDArray[np.int32], place: npt.NDArray[Any]
) -> dict[str, FloatArray]:
    of_user = population.log_user[:, user]
    of_candidate = population.log_candidate[:, place]
    pairs = [*zip(_USER_FEATURES, of_user, strict=True), *zip(_CANDIDATE_FEATURES, of_candidate, strict=True)]
    return dict(pairs)
