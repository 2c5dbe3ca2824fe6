"""Packed batches: the events, own history, prior and positives of some (user, cut) rows, as flat arrays.

Takes histories, a `PairLog` and rows; gives a `Batch` without padding. One code path serves training,
batch embedding and (later) the online path. Nothing that arrived at or after a row's cut is in it, but for
the positives and the user's own future, which only the loss reads.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from forecart.sequences.histories import Histories
from forecart.sequences.own_history import OwnHistory, read_own_history
from forecart.sequences.pair_log import EventArray, PairLog, expand_ranges, run_starts
from forecart.sequences.population import Population
from forecart.sequences.split import DAY_US, Labels

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]
OwnContent = Literal["features", "pairs", "nothing"]
"""Of the own histories in a batch: the pairs with their statistics, the pairs alone, or none of them."""

TIME_FEATURES: Final = (
    "log_days_before_cut",
    "log_days_before_latest",
    "log_days_since_previous",
    "sin_weekday",
    "cos_weekday",
    "sin_hour",
    "cos_hour",
)
_WEEK_US: Final = 7 * DAY_US


@dataclass(frozen=True, eq=False)
class Events:
    """T events of S histories, packed; within a history in time order (in arrival order when causal).

    Attributes:
        offsets: [S + 1], where each history begins.
        advertiser: [T].
        item: [T], 0 where the event has none.
        event_type: [T], codes.
        log_price: [T] float32, log(1 + unit price), 0 where unknown.
        time: [T, 7] float32 in the order of `TIME_FEATURES`.
        position: [T], 0 for the latest event (for the oldest when causal).
    """

    offsets: IndexArray
    advertiser: npt.NDArray[np.int32]
    item: npt.NDArray[np.int32]
    event_type: npt.NDArray[np.uint8]
    log_price: FloatArray
    time: FloatArray
    position: IndexArray


@dataclass(frozen=True, eq=False)
class Positives:
    """P positives of B rows, by row, with the user's other future conversions.

    Attributes:
        row: [P].
        candidate: [P].
        weight: [P] float32.
        future_row: [F], rows of conversions after the cut that are no positives of the row.
        future_candidate: [F].
        is_in_window: [F], conversions of the row's own label window that a cap left out of its positives.
    """

    row: IndexArray
    candidate: npt.NDArray[np.int32]
    weight: FloatArray
    future_row: IndexArray
    future_candidate: npt.NDArray[np.int32]
    is_in_window: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Batch:
    """B rows (user, cut) over S histories.

    Attributes:
        user_index: [B].
        cut_us: [B].
        events: the packed histories.
        history: [B], which of the S histories a row reads.
        last_event: [B], the row's latest event in the packed arrays; -1 for an empty history.
        own: the rows' own statistics per candidate.
        log_share: [N, 5] float32, the candidates' prior as of the cut, or before.
        positives: only in training.
    """

    user_index: npt.NDArray[np.int32]
    cut_us: IndexArray
    events: Events
    history: IndexArray
    last_event: IndexArray
    own: OwnHistory
    log_share: FloatArray
    positives: Positives | None = None

    def __len__(self) -> int:
        return len(self.user_index)


@dataclass(frozen=True, eq=False)
class BatchBuilder:
    """Builds batches from memory-mapped histories.

    Attributes:
        histories: every user's events.
        log: the same by pair, at the level of the candidates.
        history_length: L, the most recent events that the encoder reads.
        is_causal: rows of one user share a history and read a prefix of it (`dense_all_action`).
        known_before_us: for the own future; what arrived later is not known to training.
        gap_us: from a cut to the begin of its label window.
        window_us: from a cut to the end of its label window; 0 before it is known.
        own_content: what batches hold of the candidates of the rows' own histories.
        reads_future: whether positives come with the user's other future conversions.
    """

    histories: Histories
    log: PairLog
    history_length: int
    is_causal: bool = False
    known_before_us: int | None = None
    gap_us: int = 0
    window_us: int = 0
    own_content: OwnContent = "features"
    reads_future: bool = True

    def build(
        self,
        user_index: npt.NDArray[np.int32],
        cut_us: IndexArray,
        *,
        population: Population,
        labels: Labels | None = None,
    ) -> Batch:
        """Returns the batch of these rows.

        Args:
            user_index: [B]; when causal, the rows of a user stand together.
            cut_us: [B].
            population: as of the earliest of the cuts, or before.
            labels: exactly these rows' labels, in this order.

        Raises:
            ValueError: the labels are of other rows.
        """
        history_users, history_cuts, history = self._histories_of(user_index, cut_us)
        events, first = self._read_events(history_users, history_cuts)
        known = self.histories.end_at(user_index, cut_us) - first[history]
        last_event = np.where(known > 0, events.offsets[history] + known - 1, -1)
        # Of no row where nobody reads them: it is a pass over every pair of every row.
        own_rows = slice(0) if self.own_content == "nothing" else slice(None)
        own = read_own_history(
            self.log,
            user_index=user_index[own_rows],
            cut_us=cut_us[own_rows],
            population=population,
            with_features=self.own_content == "features",
        )
        positives = None if labels is None else self._read_positives(user_index, cut_us, labels)
        return Batch(user_index, cut_us, events, history, last_event, own, population.log_share, positives)

    def _histories_of(
        self, user_index: npt.NDArray[np.int32], cut_us: IndexArray
    ) -> tuple[npt.NDArray[np.int32], IndexArray, IndexArray]:
        if not self.is_causal:
            return user_index, cut_us, np.arange(len(user_index))
        is_new = run_starts(user_index)
        latest = np.maximum.reduceat(cut_us, np.flatnonzero(is_new)) if len(cut_us) else cut_us
        return user_index[is_new], latest, np.cumsum(is_new) - 1

    def _read_events(
        self, user_index: npt.NDArray[np.int32], cut_us: IndexArray
    ) -> tuple[Events, IndexArray]:
        end = self.histories.end_at(user_index, cut_us)
        first = np.maximum(end - self.history_length, self.histories.start[user_index])
        position, event = expand_ranges(first, end)
        length = end - first
        offsets = np.concatenate([[0], np.cumsum(length)])
        place = np.arange(len(event)) - offsets[position]
        if not self.is_causal:
            # A stable sort: events of one time stay in order of arrival.
            event = event[np.lexsort((self.histories.occurred_us[event], position))]
            place = length[position] - 1 - place
        price = np.maximum(np.nan_to_num(self.histories.price[event]), 0)
        events = Events(
            offsets=offsets,
            advertiser=self.histories.advertiser[event],
            item=self.histories.item[event],
            event_type=self.histories.event_type[event],
            log_price=np.log1p(price),
            time=self._time_features(self.histories.occurred_us[event], position, offsets, cut_us),
            position=place,
        )
        return events, first

    def _time_features(
        self, occurred: IndexArray, position: IndexArray, offsets: IndexArray, cut_us: IndexArray
    ) -> FloatArray:
        """Three distances in time and two phases; a causal event may not know how far ahead the cut is."""
        gap_us = np.diff(occurred, prepend=occurred[:1])
        gap_us[run_starts(position)] = 0
        before_cut_us = before_latest_us = np.zeros_like(occurred)
        if not self.is_causal:
            before_cut_us = cut_us[position] - occurred
            before_latest_us = occurred[offsets[position + 1] - 1] - occurred
        distances = [
            np.log1p(np.maximum(value, 0) / DAY_US) for value in (before_cut_us, before_latest_us, gap_us)
        ]
        week, day = (
            ((occurred % period) * (2 * np.pi / period)).astype(np.float32) for period in (_WEEK_US, DAY_US)
        )
        phases = [np.sin(week), np.cos(week), np.sin(day), np.cos(day)]
        return np.stack(distances + phases, axis=1).astype(np.float32)

    def _read_positives(
        self, user_index: npt.NDArray[np.int32], cut_us: IndexArray, labels: Labels
    ) -> Positives:
        if not (np.array_equal(labels.user_index, user_index) and np.array_equal(labels.cut_us, cut_us)):
            raise ValueError("labels are of the rows of the batch in the same order, they are of other rows")
        row = labels.rows()
        future_row, event = self._read_future(user_index, cut_us)
        num, future = self.log.num_candidates, self.log.candidate[event]
        ahead_us = self.histories.occurred_us[event] - cut_us[future_row]
        is_in_window = (ahead_us >= self.gap_us) & (ahead_us < self.window_us)
        kept = ~np.isin(future_row * num + future, row * num + labels.candidate)
        return Positives(
            row, labels.candidate, labels.weight, future_row[kept], future[kept], is_in_window[kept]
        )

    def _read_future(
        self, user_index: npt.NDArray[np.int32], cut_us: IndexArray
    ) -> tuple[IndexArray, EventArray]:
        """Returns the row and the event of the first conversion after the cut with each candidate."""
        log = self.log
        if not self.reads_future:
            user_index = user_index[:0]
        position, event = log.events_of(user_index)
        is_future = log.is_conversion(event) & (self.histories.occurred_us[event] >= cut_us[position])
        if self.known_before_us is not None:
            is_future &= self.histories.arrived_us[event] < self.known_before_us
        position, event = position[is_future], event[is_future]
        is_first = run_starts(position, log.candidate[event])
        return position[is_first], event[is_first]


def select_labels(labels: Labels, rows: IndexArray) -> Labels:
    """Returns the labels of some rows, in the order given."""
    _, entry = expand_ranges(labels.offsets[rows], labels.offsets[rows + 1])
    length = labels.offsets[rows + 1] - labels.offsets[rows]
    return Labels(
        user_index=labels.user_index[rows],
        cut_us=labels.cut_us[rows],
        offsets=np.concatenate([[0], np.cumsum(length)]),
        candidate=labels.candidate[entry],
        weight=labels.weight[entry],
        is_repeat=labels.is_repeat[entry],
    )
