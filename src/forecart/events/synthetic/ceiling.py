"""The ceiling of a synthetic world: what the Bayes filter predicts from the observed history alone.

The hidden state is a Markov process in continuous time and events are marks on an independent Poisson clock:
the posterior follows from a forward pass (propagate over the gap, multiply by the probability of the
advertiser, normalise). Type and delay do not depend on the state, so an event that has not arrived is the
same as one that never was. Matrix exponentials are sums over the number of ticks (uniformisation, Jensen
1953): all terms are positive, nothing cancels.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from forecart.errors import DataError
from forecart.events.synthetic.world import DAY_US, OFFSITE_TYPES, World

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_FIRST_INDEX: Final = 2
_BATCH_USERS: Final = 512
_TAIL: Final = 1e-12


class ObservedHistories(Protocol):
    """Columns of events, each user's a slice in order of arrival (the histories of the next stage fit it)."""

    @property
    def start(self) -> npt.NDArray[np.int64]:
        """[users] first event of each user index."""

    @property
    def length(self) -> npt.NDArray[np.int64]:
        """[users] number of events of each user index."""

    @property
    def advertiser(self) -> npt.NDArray[np.int32]:
        """[E] advertiser index: the number in the world + 2."""

    @property
    def occurred_us(self) -> npt.NDArray[np.int64]:
        """[E] microseconds since the epoch."""

    @property
    def arrived_us(self) -> npt.NDArray[np.int64]:
        """[E] microseconds since the epoch."""


@dataclass(frozen=True)
class LabelWindow:
    """What is to be predicted at a cut: conversions in [cut + gap, cut + gap + window)."""

    level: Literal["advertiser", "item"] = "advertiser"
    """Which candidates are ranked."""
    window_days: float = 7.0
    """Length of the label window."""
    gap_days: float = 0.0
    """Days between the cut and the window."""
    positives: tuple[str, ...] = ("add_to_cart", "checkout", "signup")
    """The event types that are conversions; a signup has no item."""


class _Known(NamedTuple):
    """What is known of a batch of users at the cut, in order of user and time of occurrence."""

    row: Indices
    advertiser: Indices
    occurred_us: Indices


def bayes_scores(
    world: World,
    histories: ObservedHistories,
    *,
    cut_us: int,
    user_index: npt.NDArray[np.integer],
    window: LabelWindow | None = None,
) -> npt.NDArray[np.float32]:
    """[B, N] the probability that a user converts with a candidate in the label window, given what arrived.

    Reads only rows with `arrived_us` before the cut. A user with none gets the long-run answer. Columns 0
    (padding) and 1 (unknown) are -inf.

    Ranking by this probability maximises the expected number of hits in the top K, because expectations add
    up. Recall@K divides the hits by the number of relevant candidates; as the number of conversions has the
    same Poisson distribution in every state, that divisor hardly depends on which candidates they are, and
    the ranking is the best for expected Recall@K too, up to that dependence.

    Args:
        world: the world that the histories come from, with this very configuration.
        histories: observed events; advertiser index = number in the world + 2; rows below 2 are ignored.
        cut_us: the cut-off, microseconds since the epoch.
        user_index: [B] rows of `histories`.
        window: what is to be predicted; 7 days of conversions with advertisers unless told otherwise.

    Raises:
        DataError: the histories hold an event that cannot happen in this world.
    """
    survival = _survival(world, cut_us, window or LabelWindow())
    scores = np.full((len(user_index), survival.shape[1] + _FIRST_INDEX), -np.inf, dtype=np.float32)
    for first in range(0, len(user_index), _BATCH_USERS):
        batch = slice(first, first + _BATCH_USERS)
        posterior = filter_states(world, histories, cut_us=cut_us, user_index=user_index[batch])
        scores[batch, _FIRST_INDEX:] = posterior @ (1.0 - survival)
    return scores


def filter_states(
    world: World, histories: ObservedHistories, *, cut_us: int, user_index: npt.NDArray[np.integer]
) -> Floats:
    """[B, S] the posterior over hidden states at the cut, given the events that arrived before it."""
    users = np.asarray(user_index, dtype=np.int64)
    known = _read_known(histories, cut_us, users)
    count = np.bincount(known.row, minlength=len(users))
    first = np.cumsum(count) - count
    # Longest histories first: the users that have a step-th event are then a prefix.
    order = np.argsort(-count, kind="stable")
    posterior = np.full((len(users), world.num_states), 1.0 / world.num_states)
    seen_us = np.full(len(users), cut_us, dtype=np.int64)
    likelihood = _likelihood(world)
    for step in range(int(count.max(initial=0))):
        active = order[: np.searchsorted(-count[order], -step, side="left")]
        event = first[active] + step
        now_us = known.occurred_us[event]
        gap_us = now_us - seen_us[active] if step else np.zeros(len(active), dtype=np.int64)
        era = (now_us >= world.launch_us).astype(np.int64)
        joint = (
            _propagate(world, posterior[active], gap_us / DAY_US) * likelihood[era, known.advertiser[event]]
        )
        posterior[active] = _normalise(joint)
        seen_us[active] = now_us
    return _propagate(world, posterior, (cut_us - seen_us) / DAY_US)


def _normalise(joint: Floats) -> Floats:
    evidence: Floats = joint.sum(axis=1, keepdims=True)
    if not np.all(evidence > 0):
        raise DataError(
            "histories must come from this very world, an event is impossible in it; "
            "build the world with the configuration that generated them"
        )
    return joint / evidence


def _read_known(histories: ObservedHistories, cut_us: int, users: Indices) -> _Known:
    length = histories.length[users]
    row = np.repeat(np.arange(len(users)), length)
    event = np.repeat(histories.start[users] - (np.cumsum(length) - length), length) + np.arange(len(row))
    is_known = (histories.arrived_us[event] < cut_us) & (histories.advertiser[event] >= _FIRST_INDEX)
    row, event = row[is_known], event[is_known]
    order = np.lexsort((histories.occurred_us[event], row))
    row, event = row[order], event[order]
    advertiser = histories.advertiser[event].astype(np.int64) - _FIRST_INDEX
    return _Known(row=row, advertiser=advertiser, occurred_us=histories.occurred_us[event])


def _likelihood(world: World) -> Floats:
    """[2, N, S] the probability of the advertiser of an event given the state."""
    return np.ascontiguousarray(world.emission[:, world.edge_intents[:, 1]].transpose(0, 2, 1))


def _poisson(mean: Floats) -> Iterator[Floats]:
    """Yields P(0), P(1), ... of Poisson counts until what is left is below 1e-12 for every mean."""
    share = np.exp(-mean)
    highest = float(mean.max(initial=0.0))
    for count in range(math.ceil(highest + 9 * math.sqrt(highest) + 12)):
        yield share
        share = share * mean / (count + 1)
        if count > highest and share.max(initial=0.0) < _TAIL:
            return


def _propagate(world: World, posterior: Floats, days: Floats) -> Floats:
    """The posterior [B, S] after `days` [B] without an observation."""
    moved, total = posterior, np.zeros_like(posterior)
    for ticks, share in enumerate(_poisson(world.config.intent_changes_per_day * days)):
        if ticks:
            moved = moved @ world.state_changes
        total += share[:, None] * moved
    return total


def _survival(world: World, cut_us: int, window: LabelWindow) -> Floats:
    """[S, N] the probability of no conversion in the window, given the state at the cut."""
    opens_us = cut_us + round(window.gap_days * DAY_US)
    closes_us = opens_us + round(window.window_days * DAY_US)
    launch_us = min(max(world.launch_us, opens_us), closes_us)
    rate = _conversion_rates(world, window)
    survival = np.ones((world.num_states, rate.shape[2]))
    survival = _thin_backwards(world, survival, rate[1], (closes_us - launch_us) / DAY_US)
    survival = _thin_backwards(world, survival, rate[0], (launch_us - opens_us) / DAY_US)
    return _thin_backwards(world, survival, np.zeros_like(rate[0]), window.gap_days)


def _conversion_rates(world: World, window: LabelWindow) -> Floats:
    """[2, S, N] conversions per day with each candidate, by era and state."""
    shares = dict(zip(OFFSITE_TYPES, world.config.type_shares, strict=True))
    counted = [name for name in window.positives if window.level == "advertiser" or name != "signup"]
    rate = world.config.events_per_day * sum(shares[name] for name in counted)
    by_state = world.emission[:, world.edge_intents[:, 1]] * rate
    if window.level == "advertiser":
        return by_state
    return by_state[:, :, world.item_advertiser] * world.item_share[:, None, :]


def _thin_backwards(world: World, survival: Floats, rate: Floats, days: float) -> Floats:
    """`survival` [S, N] moved from the end of `days` to their start, conversions coming at `rate` [S, N]."""
    change = world.config.intent_changes_per_day
    highest = float(rate.max(initial=0.0))
    total, term = np.zeros_like(survival), survival
    for ticks, share in enumerate(_poisson(np.array([(change + highest) * days]))):
        if ticks:
            term = (change * (world.state_changes @ term) + (highest - rate) * term) / (change + highest)
        total += share * term
    return total
