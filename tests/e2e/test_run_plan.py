"""The successor term in validation: what chooses weights and settings is what is served, and keys say so."""

import pytest

from forecart.config import load_config
from forecart.evaluation.targets import measure_target, validation_measures
from forecart.run_plan import RunPlan
from forecart.training.trained_model import load_trained
from forecart.workflow import Workflow


def change_config(*, weight=0.0, patience=0, validates=True):
    config = load_config("nano")
    target = config.next_advertiser
    changes = {
        "successors": target.successors.model_copy(update={"weight": weight}),
        "training": target.training.model_copy(update={"patience": patience}),
    }
    split = config.split.model_copy(update={"validate_before": validates})
    target = target.model_copy(update=changes)
    return config.model_copy(update={"next_advertiser": target, "split": split})


def test_validation_measures_what_is_served(nano):
    def measured(weight):
        workflow = Workflow(change_config(weight=weight), nano.folder)
        model = load_trained(workflow.plan.model_folder("advertiser"))
        found = workflow.validation("advertiser")(model)
        data = workflow.target_data("advertiser", [workflow.config.learn_until_us])
        scorers = [workflow.scorer("advertiser")]
        served = measure_target(data, scorers, baselines=[], index_size=0, seed=0)
        assert found == validation_measures(served)
        return found

    assert measured(0.5) != measured(0.0)


@pytest.mark.parametrize(("patience", "validates"), [(0, False), (0, True), (2, False), (2, True)])
def test_the_term_is_in_the_key_of_weights_that_it_helps_to_choose(nano, patience, validates):
    def keys(weight):
        config = change_config(weight=weight, patience=patience, validates=validates)
        plan = RunPlan(config, nano.folder)
        return plan.trained_key("advertiser"), plan.trials_key("advertiser", "recall_at_10")

    without, some, more = keys(0.0), keys(0.1), keys(0.2)
    num_trained = len({trained for trained, _ in (without, some, more)})
    assert num_trained == (3 if patience and validates else 1)
    assert len({trials for _, trials in (without, some, more)}) == 3
    assert keys(0.1) == some
