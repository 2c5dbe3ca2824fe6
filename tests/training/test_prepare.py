"""What training reads beside its positives depends on what its loss must leave out."""

import pytest

from forecart.sequences.split import LabelContract
from forecart.training.prepare import prepare_examples
from forecart.training.settings import LossSettings, TrainingSettings
from planted_world import DAY, START, random_world


@pytest.mark.parametrize(
    ("cap", "mask_own_future", "expected"),
    [(1, False, True), (1000, False, False), (1000, True, True), (None, False, False)],
)
def test_the_own_future_is_read_where_a_cap_bites_or_the_loss_masks_it(cap, mask_own_future, expected):
    world = random_world(num_users=20)
    contract = LabelContract(positives={"checkout": 1.0}, window_days=5, gap_days=2, max_positives=cap)
    examples = prepare_examples(
        world.builder(length=8),
        level="advertiser",
        contract=contract,
        settings=TrainingSettings(loss=LossSettings(mask_own_future=mask_own_future)),
        learn_until_us=START + 39 * DAY,
        seed=0,
    )
    assert examples.builder.reads_future is expected
    assert (examples.builder.gap_us, examples.builder.window_us) == (2 * DAY, 7 * DAY)
