"""What the report of a run says at its head: how it was made, of what data, and when.

Takes the plan of a run whose models are trained; gives plain values and writes nothing.
"""

from typing import Any

from forecart.evaluation.people import to_moment
from forecart.evaluation.provenance import describe_data, describe_training, read_provenance
from forecart.run_plan import RunPlan
from forecart.sequences.split import SECTION


def describe_run(plan: RunPlan) -> dict[str, Any]:
    """Returns configuration, provenance, moments, data and training of a run."""
    config = plan.config
    training = {}
    for level in config.levels:
        seeds = [config.seed + number for number in range(config.target(level).num_seeds)]
        training[SECTION[level]] = describe_training(plan.model_folder(level), seeds)
    return {
        "schema_version": 1,
        "name": config.name,
        "provenance": read_provenance(),
        "config": config.model_dump(mode="json"),
        "as_of": config.split.as_of.isoformat(),
        "learned_until": to_moment(config.learn_until_us).isoformat(),
        "cuts": [cut.isoformat() for cut in config.split.test_cuts],
        "label_window_days": config.labels.window_days,
        "data": describe_data(plan.folder / "events"),
        "training": training,
    }
