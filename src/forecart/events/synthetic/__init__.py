"""A seeded world with a known generating process, its events, its catalogue and its ceiling."""

from forecart.events.synthetic.ceiling import LabelWindow, bayes_scores, filter_states
from forecart.events.synthetic.generate import generate_events, write_world
from forecart.events.synthetic.world import SyntheticConfig, World, build_world, world_catalogue

__all__ = [
    "LabelWindow",
    "SyntheticConfig",
    "World",
    "bayes_scores",
    "build_world",
    "filter_states",
    "generate_events",
    "world_catalogue",
    "write_world",
]
