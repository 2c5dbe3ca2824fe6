"""The baselines by name, so that a configuration and a table say the same word for the same thing."""

from collections.abc import Callable, Iterable
from typing import Final

from forecart.baselines.contract import Baseline
from forecart.baselines.ease import BasketEasePopularity, DecayedEasePopularity, Ease
from forecart.baselines.markov import Markov
from forecart.baselines.neighbours import ItemNeighbours
from forecart.baselines.own_history import (
    BasketPopularity,
    DecayedPopularity,
    FrequencyPopularity,
    HistoryThenPopularity,
)
from forecart.baselines.popularity import Popularity
from forecart.baselines.skip_markov import SkipMarkov
from forecart.errors import ConfigError

BASELINES: Final[dict[str, Callable[[], Baseline]]] = {
    "popularity_7d": lambda: Popularity(7),
    "popularity_all": lambda: Popularity(None),
    "frequency_popularity": FrequencyPopularity,
    "decayed_popularity": DecayedPopularity,
    "basket_popularity": BasketPopularity,
    "frequency_popularity_7d": lambda: FrequencyPopularity(last_days=7),
    "decayed_popularity_7d": lambda: DecayedPopularity(last_days=7),
    "basket_popularity_7d": lambda: BasketPopularity(last_days=7),
    "history_then_popularity": HistoryThenPopularity,
    "markov": Markov,
    "skip_markov": SkipMarkov,
    "item_knn": ItemNeighbours,
    "ease": Ease,
    "decayed_ease_popularity": DecayedEasePopularity,
    "basket_ease_popularity": BasketEasePopularity,
}


def build_baselines(names: Iterable[str]) -> list[Baseline]:
    """Returns a new baseline for each name, in order, with the settings of record.

    Raises:
        ConfigError: there is no baseline of that name.
    """
    built = []
    for name in names:
        if name not in BASELINES:
            raise ConfigError(f"there is no baseline {name!r}: choose from {', '.join(BASELINES)}")
        built.append(BASELINES[name]())
    return built
