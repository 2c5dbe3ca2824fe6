"""What a report says of its run before any figure: where it comes from, the configuration, and the data."""

from pathlib import Path
from typing import Any

from forecart.config import RunConfig
from forecart.evaluation.people import to_moment
from forecart.evaluation.provenance import describe_data, describe_training, read_provenance
from forecart.run_plan import RunPlan
from forecart.sequences.split import SECTION, Level


def describe_run(config: RunConfig, folder: Path, plan: RunPlan) -> dict[str, Any]:
    """Returns the head of the report of a run whose models are trained."""
    split = config.split
    return {
        "schema_version": 1,
        "name": config.name,
        "provenance": read_provenance(),
        "config": config.model_dump(mode="json"),
        "as_of": split.as_of.isoformat(),
        "learned_until": to_moment(config.learn_until_us).isoformat(),
        "cuts": [cut.isoformat() for cut in split.test_cuts],
        "label_window_days": config.labels.window_days,
        "data": describe_data(folder / "events"),
        "training": {SECTION[level]: _describe_training(config, plan, level) for level in config.levels},
    }


def _describe_training(config: RunConfig, plan: RunPlan, level: Level) -> dict[str, Any]:
    seeds = [config.seed + number for number in range(config.target(level).num_seeds)]
    return describe_training(plan.model_folder(level), seeds)
