"""The parameters of the seeded synthetic world, drawn once from a configuration.

Every user has a hidden intent that changes at the ticks of a Poisson clock. Which intent comes next depends
on the present one **and on the one before it**: the hidden state is an edge "previous -> present" of a sparse
directed graph, and each edge has one favoured next edge. At the ticks of a second clock the user acts on an
advertiser of the present intent (or, as noise, on a popular one). The type of an event, its item given the
advertiser and its delay do not depend on the intent: this keeps the Bayes filter exact (ceiling.py).
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from forecart.columns import (
    ADVERTISER_ID,
    AVAILABILITY,
    CATEGORY,
    EMBEDDING,
    ITEM_ID,
    PRICE,
    TITLE,
)

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

DAY_US: Final = 86_400_000_000
OFFSITE_TYPES: Final = ("view", "add_to_cart", "checkout", "signup")
INTENTS_PER_DEPARTMENT: Final = 4
SHELVES_PER_CATEGORY: Final = 3


class SyntheticConfig(BaseModel):
    """What the world is like. `num_events` alone sets its size; the rest sets how hard it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    seed: int = Field(default=0, ge=0, lt=2**63)
    """Every random number of the world and of its events follows from it."""
    num_events: int = Field(default=600_000, ge=1)
    """About how many events to generate: sets the number of users, exact to the noise of a Poisson count."""
    num_intents: int = Field(default=12, ge=3, le=999)
    """Hidden intents; each has a category of its own in the catalogue."""
    successors_per_intent: int = Field(default=3, ge=2, le=8)
    """How many intents can follow an intent, and how many it can follow."""
    favoured_share: float = Field(default=0.97, gt=0, le=1)
    """Share of the changes of intent that go to the successor favoured after this pair of intents."""
    restart_share: float = Field(default=0.02, ge=0, le=1)
    """Share of the changes of intent that forget the past."""
    intent_changes_per_day: float = Field(default=0.4, gt=0)
    """Rate of the clock of intents."""
    events_per_day: float = Field(default=1.5, gt=0)
    """Rate of the clock of events, the same for every user."""
    span_days: int = Field(default=90, ge=1)
    """Length of the log."""
    join_days: int = Field(default=45, ge=0)
    """Users join at random within the first so many days and stay to the end."""
    start_at: AwareDatetime = datetime(2025, 1, 1, tzinfo=UTC)
    """When the log starts."""
    advertisers_per_intent: int = Field(default=20, ge=1, le=999)
    """Advertisers that belong to each intent."""
    items_per_advertiser: int = Field(default=8, ge=1, le=999)
    """Products of each advertiser."""
    zipf_exponent: float = Field(default=0.9, ge=0)
    """How unequal the advertisers of one intent, and the products of one advertiser, are."""
    noise_share: float = Field(default=0.06, ge=0, lt=1)
    """Share of events that follow the world's popularity and not the intent."""
    type_shares: tuple[float, float, float, float] = (0.4, 0.3, 0.22, 0.08)
    """Shares of view, add_to_cart, checkout and signup; they sum to one."""
    late_share: float = Field(default=0.15, ge=0, le=1)
    """Share of conversions that arrive late; a view arrives when it occurs."""
    late_hours: tuple[float, float] = (2.0, 120.0)
    """Shortest and longest delay of a late conversion; log-uniform between them."""
    cold_share: float = Field(default=0.04, ge=0, lt=1)
    """Share of the advertisers, and of the products of the others, that do not exist before the launch."""
    launch_day: float = Field(default=70.0, ge=0)
    """The day of the log on which they appear."""
    embedding_width: int = Field(default=32, ge=4)
    """Width of a product's content vector."""
    embedding_noise: float = Field(default=0.6, ge=0)
    """Length of what is a product's own in its content vector, against 1 for its category."""

    @model_validator(mode="after")
    def _check_together(self) -> "SyntheticConfig":
        if abs(sum(self.type_shares) - 1) > 1e-9 or min(self.type_shares) < 0:
            raise ValueError(f"type_shares must be shares that sum to 1, got {self.type_shares}")
        if not 0 < self.late_hours[0] <= self.late_hours[1]:
            raise ValueError(f"late_hours must be (shortest, longest), above 0, got {self.late_hours}")
        if self.successors_per_intent >= self.num_intents:
            raise ValueError(
                f"successors_per_intent must be below num_intents, got {self.successors_per_intent} "
                f"of {self.num_intents}"
            )
        if not self.join_days < self.span_days:
            raise ValueError(f"join_days must be below span_days, got {self.join_days} of {self.span_days}")
        return self

    @property
    def num_users(self) -> int:
        """The users that make about `num_events` events."""
        mean_days = self.span_days - self.join_days / 2
        return max(1, round(self.num_events / (self.events_per_day * mean_days)))

    @property
    def start_us(self) -> int:
        """Start of the log in microseconds since the epoch."""
        return (self.start_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@dataclass(frozen=True)
class World:
    """The generating process: S states (edges between intents), I intents, N advertisers, M items.

    Arrays that begin with 2 hold the era before the launch and the one after it. Advertiser a has index
    a + 2 in a vocabulary of the catalogue, item m has index m + 2: ids sort as the numbers do.
    """

    config: SyntheticConfig
    edge_intents: Indices
    """[S, 2] previous and present intent of each state."""
    next_edges: Indices
    """[S, successors] the states that can follow a state; the favoured one is first."""
    emission: Floats
    """[2, I, N] the probability of each advertiser given the intent."""
    item_share: Floats
    """[2, M] the probability of each item given its advertiser."""
    advertiser_intent: Indices
    """[N] the intent that each advertiser belongs to."""
    is_cold_advertiser: npt.NDArray[np.bool_]
    """[N] does not exist before the launch."""
    item_advertiser: Indices
    """[M] ascending, `items_per_advertiser` each."""
    item_shelf: Indices
    """[M] the shelf within the intent's category."""
    item_price: Floats
    """[M] in USD."""
    item_vector: npt.NDArray[np.float32]
    """[M, W] unit content vectors."""

    @property
    def num_advertisers(self) -> int:
        """N."""
        return len(self.advertiser_intent)

    @property
    def num_items(self) -> int:
        """M."""
        return len(self.item_advertiser)

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.edge_intents)

    @property
    def end_us(self) -> int:
        """End of the log in microseconds since the epoch."""
        return self.config.start_us + self.config.span_days * DAY_US

    @property
    def launch_us(self) -> int:
        """When the cold advertisers and items appear."""
        return self.config.start_us + round(self.config.launch_day * DAY_US)

    @property
    def item_intent(self) -> Indices:
        """[M] the intent that each item belongs to."""
        return self.advertiser_intent[self.item_advertiser]

    @property
    def is_cold_item(self) -> npt.NDArray[np.bool_]:
        """[M] does not exist before the launch."""
        cold: npt.NDArray[np.bool_] = (self.item_share[0] == 0) | self.is_cold_advertiser[
            self.item_advertiser
        ]
        return cold

    @property
    def advertiser_ids(self) -> list[str]:
        """[N] external ids, ascending."""
        return [f"adv{number:06d}" for number in range(self.num_advertisers)]

    @property
    def item_ids(self) -> list[str]:
        """[M] external ids, ascending."""
        return [f"item{number:08d}" for number in range(self.num_items)]

    @property
    def item_categories(self) -> list[str]:
        """[M] category paths."""
        pairs = zip(self.item_intent.tolist(), self.item_shelf.tolist(), strict=True)
        return [
            f"Department {intent // INTENTS_PER_DEPARTMENT:02d} > Category {intent:03d} > Shelf {shelf}"
            for intent, shelf in pairs
        ]

    @cached_property
    def state_changes(self) -> Floats:
        """[S, S] the probability of each next state when the intent changes; doubly stochastic."""
        config, (states, width) = self.config, self.next_edges.shape
        share = np.full(width, (1 - config.favoured_share) / (width - 1))
        share[0] = config.favoured_share
        change = np.full((states, states), config.restart_share / states)
        change[np.arange(states)[:, None], self.next_edges] += (1 - config.restart_share) * share
        return change

    @cached_property
    def intent_changes(self) -> Floats:
        """[I, I] the long-run probability that one intent follows another: the planted succession."""
        size, previous, present = self.config.num_intents, *self.edge_intents.T
        change = np.full((size, size), self.config.restart_share / size)
        change[previous, present] += (1 - self.config.restart_share) / self.config.successors_per_intent
        return change


def build_world(config: SyntheticConfig) -> World:
    """Draws the parameters of the world; the same configuration gives the same world."""
    graph, market, content = (np.random.default_rng((config.seed, part)) for part in range(3))
    edge_intents, next_edges = _draw_succession(config, graph)
    num_advertisers = config.num_intents * config.advertisers_per_intent
    advertiser_intent = market.permutation(
        np.repeat(np.arange(config.num_intents), config.advertisers_per_intent)
    )
    is_cold = _draw_cold(num_advertisers, config.cold_share, market)
    item_advertiser = np.repeat(np.arange(num_advertisers), config.items_per_advertiser)
    shelf = content.integers(SHELVES_PER_CATEGORY, size=len(item_advertiser))
    return World(
        config=config,
        edge_intents=edge_intents,
        next_edges=next_edges,
        emission=_draw_emission(config, advertiser_intent, is_cold, market),
        item_share=_draw_item_shares(config, num_advertisers, market),
        advertiser_intent=advertiser_intent,
        is_cold_advertiser=is_cold,
        item_advertiser=item_advertiser,
        item_shelf=shelf,
        item_price=_draw_prices(advertiser_intent[item_advertiser], shelf, content),
        item_vector=_draw_vectors(config, advertiser_intent[item_advertiser], shelf, content),
    )


def _draw_succession(config: SyntheticConfig, rng: np.random.Generator) -> tuple[Indices, Indices]:
    """A directed graph with the same number of edges in and out of each intent, and each edge's next edges.

    Within an intent the favoured ways out are a permutation of the ways in, so that states are equally
    likely in the long run and popularity gives no intent away.
    """
    size, width = config.num_intents, config.successors_per_intent
    successors = _draw_successors(size, width, rng)
    edge_intents = np.stack([np.repeat(np.arange(size), width), successors.ravel()], axis=1)
    next_edges = np.empty((size * width, width), dtype=np.int64)
    for intent in range(size):
        ways_in = np.flatnonzero(edge_intents[:, 1] == intent)
        ways_out = rng.permutation(width)
        for shift, edge in enumerate(ways_in):
            next_edges[edge] = intent * width + np.roll(ways_out, -shift)
    return edge_intents, next_edges


def _draw_successors(size: int, width: int, rng: np.random.Generator) -> Indices:
    """[size, width] `width` permutations without fixed points that never agree."""
    taken = np.eye(size, dtype=bool)
    rows = np.arange(size)
    columns: list[Indices] = []
    while len(columns) < width:
        # Swapping away collisions ends quickly where drawing whole permutations anew would not.
        image = rng.permutation(size)
        for _ in range(50 * size):
            clashes = np.flatnonzero(taken[rows, image])
            if len(clashes) == 0:
                break
            one, other = clashes[0], rng.integers(size)
            image[one], image[other] = image[other], image[one]
        else:
            continue
        taken[rows, image] = True
        columns.append(image)
    return np.stack(columns, axis=1)


def _draw_cold(size: int, share: float, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    cold = np.zeros(size, dtype=bool)
    cold[rng.choice(size, size=round(share * size), replace=False)] = True
    return cold


def _zipf_by_group(groups: int, size: int, exponent: float, rng: np.random.Generator) -> Floats:
    """[groups, size] weights rank ** -exponent, the ranks shuffled within each group."""
    weights = np.arange(1, size + 1, dtype=np.float64) ** -exponent
    return rng.permuted(np.tile(weights, (groups, 1)), axis=1)


def _draw_emission(
    config: SyntheticConfig, intent: Indices, is_cold: npt.NDArray[np.bool_], rng: np.random.Generator
) -> Floats:
    ranked = _zipf_by_group(config.num_intents, config.advertisers_per_intent, config.zipf_exponent, rng)
    weight = np.empty(len(intent))
    weight[np.argsort(intent, kind="stable")] = ranked.ravel()
    return np.stack([_emission_of(config, intent, live) for live in (np.where(is_cold, 0.0, weight), weight)])


def _emission_of(config: SyntheticConfig, intent: Indices, weight: Floats) -> Floats:
    own = np.zeros((config.num_intents, len(intent)))
    own[intent, np.arange(len(intent))] = weight
    popular = weight / weight.sum()
    total = own.sum(axis=1, keepdims=True)
    # An intent all of whose advertisers are still to come follows popularity.
    own = np.where(total > 0, own / np.where(total > 0, total, 1.0), popular)
    emission: Floats = (1 - config.noise_share) * own + config.noise_share * popular
    return emission


def _draw_item_shares(config: SyntheticConfig, num_advertisers: int, rng: np.random.Generator) -> Floats:
    size = config.items_per_advertiser
    late = _zipf_by_group(num_advertisers, size, config.zipf_exponent, rng)
    cold = _draw_cold(num_advertisers * size, config.cold_share, rng).reshape(late.shape)
    # An advertiser keeps at least its heaviest item.
    cold[np.arange(num_advertisers), late.argmax(axis=1)] = False
    early = np.where(cold, 0.0, late)
    return np.stack([(shares / shares.sum(axis=1, keepdims=True)).ravel() for shares in (early, late)])


def _draw_prices(intent: Indices, shelf: Indices, rng: np.random.Generator) -> Floats:
    level = rng.normal(3.3, 0.8, size=(int(intent.max()) + 1, SHELVES_PER_CATEGORY))
    price = np.exp(level[intent, shelf] + rng.normal(0.0, 0.35, size=len(intent)))
    return np.maximum(np.round(price, 2), 0.5)


def _draw_vectors(
    config: SyntheticConfig, intent: Indices, shelf: Indices, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Category centre + a smaller step to the shelf + the item's own part, scaled to length one."""
    width, length = config.embedding_width, config.embedding_width**-0.5
    centre = rng.normal(size=(config.num_intents, 1, width)) * length
    step = rng.normal(size=(config.num_intents, SHELVES_PER_CATEGORY, width)) * (0.4 * length)
    own = rng.normal(size=(len(intent), width)) * (config.embedding_noise * length)
    vector: Floats = (centre + step)[intent, shelf] + own
    vector /= np.linalg.norm(vector, axis=1, keepdims=True)
    return vector.astype(np.float32)


def world_catalogue(world: World) -> pl.DataFrame:
    """The catalogue with the canonical columns, one row per item, sorted by id."""
    advertisers = pl.Series(world.advertiser_ids)
    brand = pl.Series(world.item_advertiser)
    number = np.arange(world.num_items) % world.config.items_per_advertiser
    return pl.DataFrame(
        {
            ITEM_ID: world.item_ids,
            ADVERTISER_ID: advertisers.gather(brand),
            CATEGORY: world.item_categories,
            PRICE: world.item_price,
            EMBEDDING: pl.Series(world.item_vector, dtype=pl.Array(pl.Float32, world.config.embedding_width)),
            "brand": brand,
            "number": number,
        }
    ).select(
        ITEM_ID,
        ADVERTISER_ID,
        pl.format(
            "Brand {} {} no. {}", "brand", pl.col(CATEGORY).str.split(" > ").list.last(), "number"
        ).alias(TITLE),
        CATEGORY,
        PRICE,
        pl.lit("in stock").alias(AVAILABILITY),
        pl.col(EMBEDDING).cast(pl.List(pl.Float32)),
    )
