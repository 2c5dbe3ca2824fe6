"""Small worlds made of arrays alone: a random one with every edge case, and one with a planted order.

No stage before the sequences is used, so that a test of the model depends on nothing but what it tests.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from forecart import columns
from forecart.model.settings import ModelSettings
from forecart.model.static_features import StaticFeatures
from forecart.model.two_tower import TwoTower
from forecart.sequences.batches import BatchBuilder
from forecart.sequences.candidate_store import CandidateStore
from forecart.sequences.histories import Histories
from forecart.sequences.pair_log import PairLog
from forecart.sequences.population import read_population
from forecart.sequences.split import LabelContract, label_windows
from forecart.training.examples import Examples
from forecart.training.settings import TrainingSettings

DAY = 86_400_000_000
START = 19_700 * DAY
CODES = columns.EVENT_TYPE_CODES


@dataclass(frozen=True)
class World:
    histories: Histories
    num_advertisers: int
    num_items: int

    def log(self, level="advertiser"):
        size = self.num_advertisers if level == "advertiser" else self.num_items
        codes = frozenset({CODES["checkout"]})
        return PairLog.build(self.histories, level=level, num_candidates=size, conversion_codes=codes)

    def builder(self, level="advertiser", *, length=20, is_causal=False):
        return BatchBuilder(self.histories, self.log(level), length, is_causal=is_causal)

    def labels(self, cuts, *, level="advertiser", window_days=1, **contract):
        contract = LabelContract(positives={"checkout": 1.0}, window_days=window_days, **contract)
        return label_windows(self.histories, cuts_us=cuts, contract=contract, level=level)

    def examples(
        self,
        cuts,
        settings: TrainingSettings,
        *,
        level="advertiser",
        seed=0,
        length=20,
        is_stored=False,
        **contract,
    ):
        is_causal = settings.objective == "dense_all_action"
        builder = self.builder(level, length=length, is_causal=is_causal)
        if is_stored:
            builder = replace(builder, log=builder.log.with_seen_only())
        populations = {int(cut): read_population(builder.log, int(cut)) for cut in cuts}
        return Examples(builder, self.labels(cuts, level=level, **contract), populations, settings, seed)

    def store(self, folder):
        """The items' static features, those of `static`, in files."""
        static = self.static("item", num_collaborative=4)
        blocks = [
            (static.item_IF[rows].numpy(), static.advertiser_N[rows].numpy().astype(np.int32))
            for rows in (slice(0, 7), slice(7, None))
        ]
        return CandidateStore.write(folder, blocks, num_candidates=self.num_items, num_collaborative=4)

    def static(self, level="advertiser", *, num_collaborative=0):
        """Advertisers and items are told apart by random features; the first columns are co-conversion."""
        rng = torch.Generator().manual_seed(1)
        advertiser_AF = torch.randn(self.num_advertisers, 8, generator=rng)
        # Halves, which a store holds without a loss.
        item_IF = torch.randn(self.num_items, 8, generator=rng).half().float()
        candidate_NF = advertiser_AF if level == "advertiser" else item_IF
        num = len(candidate_NF)
        advertiser_N = torch.arange(num) // 4 if level == "item" else torch.zeros(num, dtype=torch.int64)
        return StaticFeatures(advertiser_AF, item_IF, candidate_NF, num_collaborative, advertiser_N, level)

    def model(self, settings: ModelSettings, *, level="advertiser", is_causal=False, seed=0):
        torch.manual_seed(seed)
        static = self.static(level, num_collaborative=4)
        return TwoTower(static, settings=settings, is_causal=is_causal)


def random_world(seed=0, *, num_users=14, num_advertisers=9, num_items=25, longest=30):
    """Users with 0 to `longest` events over 40 days, a third of them late; some events without an item.

    Users 0 and 1 (padding, unknown) and user 2 have no event.
    """
    rng = np.random.default_rng(seed)
    length = rng.integers(1, longest + 1, num_users)
    length[:3] = 0
    num = int(length.sum())
    user = np.repeat(np.arange(num_users), length)
    occurred = START + rng.integers(0, 40 * DAY, num)
    arrived = occurred + np.where(rng.random(num) < 1 / 3, rng.integers(0, 5 * DAY, num), 0)
    order = np.lexsort((occurred, arrived, user))
    item = rng.integers(2, num_items, num)
    histories = Histories(
        start=np.cumsum(length) - length,
        length=length,
        event_type=rng.choice([CODES["view"], CODES["add_to_cart"], CODES["checkout"]], num).astype(np.uint8),
        advertiser=(2 + item % (num_advertisers - 2)).astype(np.int32),
        item=np.where(rng.random(num) < 0.8, item, 0).astype(np.int32),
        occurred_us=occurred[order],
        arrived_us=arrived[order],
        price=np.where(rng.random(num) < 0.8, rng.uniform(1, 50, num), np.nan).astype(np.float32),
    )
    return World(histories, num_advertisers, num_items)


def cycle_world(*, num_users=60, num_days=30, num_advertisers=12, seed=0):
    """Every user converts once a day, at noon, going round one hidden cycle of the advertisers.

    What comes next follows from the latest event alone and every advertiser is equally popular: popularity
    finds one in `num_advertisers`.
    """
    rng = np.random.default_rng(seed)
    cycle = 2 + rng.permutation(num_advertisers)
    place = rng.integers(0, num_advertisers, num_users)[:, None] + np.arange(num_days)
    advertiser = cycle[place % num_advertisers].astype(np.int32).ravel()
    occurred = np.tile(START + DAY // 2 + DAY * np.arange(num_days), num_users)
    length = np.concatenate([[0, 0], np.full(num_users, num_days)])
    histories = Histories(
        start=np.cumsum(length) - length,
        length=length,
        event_type=np.full(len(advertiser), CODES["checkout"], np.uint8),
        advertiser=advertiser,
        item=np.zeros(len(advertiser), np.int32),
        occurred_us=occurred,
        arrived_us=occurred,
        price=np.full(len(advertiser), np.nan, np.float32),
    )
    return World(histories, num_advertisers + 2, 2)
