"""Cut-offs and label windows: which candidates each user converted with in the days after a cut.

Takes histories, cuts and the label contract; gives one row per (user, cut) with its positives. What may be
known is kept apart from what happened: a history is what had *arrived* before the cut, a label is what
*occurred* in the window, and for training only if it had arrived before the training cut-off. With
`training_cuts` every training window is over before that cut-off, so no label is cut short.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, field_validator

from forecart import columns
from forecart.errors import ConfigError
from forecart.sequences.histories import Histories
from forecart.sequences.vocabulary import FIRST_INDEX

Level = Literal["advertiser", "item"]
SECTION: Final[dict[Level, str]] = {"advertiser": "next_advertiser", "item": "next_product"}
"""What a level's target is called in configurations, reports and folders."""
PLURAL: Final[dict[Level, str]] = {"advertiser": "advertisers", "item": "products"}
"""What a level's candidates are called in file names and tables."""
ID_COLUMN: Final[dict[Level, str]] = {"advertiser": columns.ADVERTISER_ID, "item": columns.ITEM_ID}
"""The column that holds a candidate's id."""

DAY_US: Final = 86_400_000_000
_FOREVER_US: Final = np.iinfo(np.int64).max


class LabelContract(BaseModel):
    """What counts as a positive. Closed: an unknown key or event type is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    positives: dict[str, Annotated[FiniteFloat, Field(gt=0)]] = Field(min_length=1)
    """Event types that are conversions, each with its weight (> 0)."""
    window_days: PositiveInt = 7
    """K: conversions that occur in [cut + gap, cut + gap + K days) are positives."""
    gap_days: int = Field(default=0, ge=0)
    """Days between the cut and the window."""
    cuts_per_user: PositiveInt = 8
    """How many training cuts there are, the newest first; passed to `training_cuts`."""
    max_positives: PositiveInt | None = 32
    """Positives kept per (user, cut): the largest weights, then the earliest. None keeps all (evaluation)."""

    @field_validator("positives")
    @classmethod
    def _are_canonical(cls, positives: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(positives) - set(columns.EVENT_TYPES))
        if unknown:
            raise ValueError(f"a positive is one of {', '.join(columns.EVENT_TYPES)}, {unknown} arrived")
        return positives

    @property
    def conversion_codes(self) -> frozenset[int]:
        """The event type codes of the positives."""
        return frozenset(columns.EVENT_TYPE_CODES[name] for name in self.positives)

    @property
    def span_us(self) -> int:
        """From a cut to the end of its label window, in microseconds."""
        return (self.gap_days + self.window_days) * DAY_US

    def without_cap(self) -> Self:
        """Returns this contract with every positive kept, as evaluation needs it."""
        return self.model_copy(update={"max_positives": None})


@dataclass(frozen=True, eq=False)
class Labels:
    """Positives per example: X rows (user, cut), by cut in the order given, then by user_index.

    Row x has the candidates `candidate[offsets[x] : offsets[x + 1]]`, ascending.

    Attributes:
        user_index: [X].
        cut_us: [X].
        offsets: [X + 1].
        candidate: [nnz], advertiser_index or item_index.
        weight: [nnz], the summed weights of the positive types that occurred, each type once.
        is_repeat: [nnz], whether a conversion of this user with the candidate had arrived before the cut.
    """

    user_index: npt.NDArray[np.int32]
    cut_us: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    candidate: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float32]
    is_repeat: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.user_index)

    def rows(self) -> npt.NDArray[np.int64]:
        """Returns the row of each positive, [nnz]."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))


def training_cuts(
    as_of_us: int, *, window_days: int, num_cuts: int, stride_days: int, gap_days: int = 0
) -> npt.NDArray[np.int64]:
    """Returns `num_cuts` cut-offs, ascending, whose label windows are all over at `as_of_us`.

    The last cut is `as_of - gap - window`: cut + gap + window <= as_of holds for each.

    Raises:
        ConfigError: a number is out of range.
    """
    if min(window_days, num_cuts, stride_days) < 1 or gap_days < 0:
        raise ConfigError(
            "window_days, num_cuts and stride_days are at least 1 and gap_days at least 0, "
            f"{window_days}, {num_cuts}, {stride_days} and {gap_days} arrived"
        )
    last = as_of_us - (gap_days + window_days) * DAY_US
    return np.int64(last) - np.arange(num_cuts, dtype=np.int64)[::-1] * stride_days * DAY_US


def label_windows(
    histories: Histories,
    *,
    cuts_us: npt.ArrayLike,
    contract: LabelContract,
    level: Level,
    known_before_us: int | None = None,
    with_prior_only: bool = True,
) -> Labels:
    """Returns the distinct candidates that each user converted with in the window after each cut.

    A (user, cut) without a positive has no row. Events without a candidate at this level are no positives.

    Args:
        histories: what is known; it must reach past the last window.
        cuts_us: [C] cut-offs, microseconds since the epoch.
        contract: positive types and weights, window, gap, and the cap on positives.
        level: which candidates, "advertiser" or "item".
        known_before_us: only events that arrived before this moment make a label (training: `as_of`).
        with_prior_only: keep only users with a conversion, of any candidate, that arrived before the cut.

    Raises:
        ValueError: a cut comes twice.
    """
    cuts = np.atleast_1d(np.asarray(cuts_us, dtype=np.int64))
    if len(np.unique(cuts)) < len(cuts):
        raise ValueError(f"cuts are distinct, {cuts.tolist()} arrived: name each once")
    known_before = _FOREVER_US if known_before_us is None else known_before_us
    found: list[list[_Positives]] = [[] for _ in cuts]
    for first_user, users in histories.blocks():
        conversions = _conversions_of(users, contract, level)
        prior_us = _first_conversion_us(users, contract) if with_prior_only else None
        for blocks, cut in zip(found, cuts.tolist(), strict=True):
            block = _label_cut(conversions, cut, contract, known_before)
            if prior_us is not None:
                block = block.take(prior_us[block.user_index] < cut)
            blocks.append(replace(block, user_index=block.user_index + first_user))
    return _join([block for blocks in found for block in blocks])


@dataclass(frozen=True, eq=False)
class _Conversions:
    """All conversions by time of occurrence, and by pair when the first of each had arrived.

    A pair is one number: user_index * num_candidates + candidate.
    """

    num_candidates: int
    pair: npt.NDArray[np.int64]
    type_bit: npt.NDArray[np.int64]
    occurred_us: npt.NDArray[np.int64]
    arrived_us: npt.NDArray[np.int64]
    known_pairs: npt.NDArray[np.int64]
    pair_first_us: npt.NDArray[np.int64]

    def is_known(self, pairs: npt.NDArray[np.int64], cut_us: int) -> npt.NDArray[np.bool_]:
        """Says of each pair of this table whether one of its conversions had arrived before the cut."""
        is_known: npt.NDArray[np.bool_] = (
            self.pair_first_us[np.searchsorted(self.known_pairs, pairs)] < cut_us
        )
        return is_known


def _conversions_of(histories: Histories, contract: LabelContract, level: Level) -> _Conversions:
    candidate = histories.advertiser if level == "advertiser" else histories.item
    rows = np.flatnonzero(_is_conversion(histories, contract) & (candidate >= FIRST_INDEX))
    rows = rows[np.argsort(histories.occurred_us[rows], kind="stable")]
    num_candidates = int(candidate.max(initial=0)) + 1
    pair = histories.event_users()[rows].astype(np.int64) * num_candidates + candidate[rows]
    arrived = histories.arrived_us[rows]
    order = np.lexsort((arrived, pair))
    first = order[_group_begins(pair[order])]
    return _Conversions(
        num_candidates=num_candidates,
        pair=pair,
        type_bit=np.left_shift(1, histories.event_type[rows].astype(np.int64)),
        occurred_us=histories.occurred_us[rows],
        arrived_us=arrived,
        known_pairs=pair[first],
        pair_first_us=arrived[first],
    )


def _is_conversion(histories: Histories, contract: LabelContract) -> npt.NDArray[np.bool_]:
    return np.isin(histories.event_type, sorted(contract.conversion_codes))


def _first_conversion_us(histories: Histories, contract: LabelContract) -> npt.NDArray[np.int64]:
    """Returns when each user's first conversion arrived, [U]; the end of time for a user without one."""
    rows = np.flatnonzero(_is_conversion(histories, contract))
    first_us = np.full(histories.num_users, _FOREVER_US, np.int64)
    np.minimum.at(first_us, histories.event_users()[rows], histories.arrived_us[rows])
    return first_us


@dataclass(frozen=True, eq=False)
class _Positives:
    """The positives of one cut, by user and then by candidate."""

    cut_us: int
    user_index: npt.NDArray[np.int64]
    candidate: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]
    is_repeat: npt.NDArray[np.bool_]

    def take(self, kept: npt.NDArray[np.bool_]) -> "_Positives":
        return _Positives(
            self.cut_us, self.user_index[kept], self.candidate[kept], self.weight[kept], self.is_repeat[kept]
        )


def _label_cut(
    conversions: _Conversions, cut_us: int, contract: LabelContract, known_before_us: int
) -> _Positives:
    window_us = cut_us + contract.gap_days * DAY_US + np.array([0, contract.window_days * DAY_US])
    begin, end = np.searchsorted(conversions.occurred_us, window_us)
    rows = begin + np.flatnonzero(conversions.arrived_us[begin:end] < known_before_us)
    rows = rows[np.argsort(conversions.pair[rows], kind="stable")]
    group = _group_begins(conversions.pair[rows])
    pair, first_us = conversions.pair[rows][group], conversions.occurred_us[rows][group]
    weight = _weigh(np.bitwise_or.reduceat(conversions.type_bit[rows], group), contract)
    user_index, candidate = np.divmod(pair, conversions.num_candidates)
    positives = _Positives(cut_us, user_index, candidate, weight, conversions.is_known(pair, cut_us))
    if contract.max_positives is None:
        return positives
    order = np.lexsort((candidate, first_us, -weight, user_index))
    kept = np.zeros(len(pair), bool)
    kept[order] = _rank_in_group(user_index[order]) < contract.max_positives
    return positives.take(kept)


def _weigh(type_bits: npt.NDArray[np.int64], contract: LabelContract) -> npt.NDArray[np.float64]:
    """Returns the summed weights of the event types whose bits are set."""
    total = np.zeros(len(type_bits))
    for name, weight in sorted(contract.positives.items()):
        total += weight * (type_bits >> columns.EVENT_TYPE_CODES[name] & 1)
    return total


def _group_begins(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Returns where each run of equal keys begins."""
    is_first = np.ones(len(keys), bool)
    is_first[1:] = keys[1:] != keys[:-1]
    return np.flatnonzero(is_first)


def _rank_in_group(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns each row's place, from 0, in its run of equal keys."""
    begin = _group_begins(keys)
    sizes = np.diff(begin, append=len(keys))
    return np.arange(len(keys)) - np.repeat(begin, sizes)


def _join(blocks: list[_Positives]) -> Labels:
    """Returns the blocks as one table; with no block at all, an empty one."""
    no_number, no_flag = np.empty(0, np.int64), np.empty(0, bool)
    begins = [_group_begins(block.user_index) for block in blocks]
    pairs = list(zip(blocks, begins, strict=True))
    users = [block.user_index[begin] for block, begin in pairs]
    cuts = [np.full(len(begin), block.cut_us) for block, begin in pairs]
    sizes = [np.diff(begin, append=len(block.user_index)) for block, begin in pairs]
    return Labels(
        user_index=np.concatenate([no_number, *users]).astype(np.int32),
        cut_us=np.concatenate([no_number, *cuts]),
        offsets=np.cumsum(np.concatenate([np.zeros(1, np.int64), *sizes])),
        candidate=np.concatenate([no_number, *(block.candidate for block in blocks)]).astype(np.int32),
        weight=np.concatenate([no_number, *(block.weight for block in blocks)]).astype(np.float32),
        is_repeat=np.concatenate([no_flag, *(block.is_repeat for block in blocks)]),
    )
