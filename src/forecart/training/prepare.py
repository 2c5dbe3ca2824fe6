"""From sequences to the training rows of one model: cuts, labels, population statistics, batches.

Takes sequences, the label contract and settings; gives `Examples`. Everything here stops at
`learn_until_us`: labels, statistics, features and the own future know nothing that arrived later.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from forecart.sequences.batches import BatchBuilder
from forecart.sequences.build import Sequences
from forecart.sequences.own_groups import read_candidate_groups
from forecart.sequences.pair_log import PairLog
from forecart.sequences.population import read_population
from forecart.sequences.split import DAY_US, SECTION, LabelContract, Level, label_windows, training_cuts
from forecart.training.examples import Examples, group_starts
from forecart.training.settings import TrainingSettings


@dataclass(frozen=True, eq=False)
class PairLogs(Mapping[Level, PairLog]):
    """The events by pair of each level, sorted when they are first asked for."""

    sequences: Sequences
    contract: LabelContract
    _built: dict[Level, PairLog] = field(default_factory=dict, repr=False)

    def __getitem__(self, level: Level) -> PairLog:
        """Returns the log of a level."""
        if level not in self._built:
            vocabulary = self.sequences.advertisers if level == "advertiser" else self.sequences.items
            self._built[level] = PairLog.build(
                self.sequences.histories,
                level=level,
                num_candidates=len(vocabulary),
                conversion_codes=self.contract.conversion_codes,
                group=read_candidate_groups(self.sequences, level),
            )
        return self._built[level]

    def __iter__(self) -> Iterator[Level]:
        """Iterates over the levels."""
        return iter(SECTION)

    def __len__(self) -> int:
        return len(SECTION)


def prepare_examples(
    builder: BatchBuilder,
    *,
    level: Level,
    contract: LabelContract,
    settings: TrainingSettings,
    learn_until_us: int,
    seed: int,
) -> Examples:
    """Returns the training rows of one model.

    Cuts without history before them have no rows; only users with a conversion before the cut do.

    Args:
        builder: of the model's batches; its own future is limited to `learn_until_us` here.
        level: of the candidates.
        contract: of the labels.
        settings: of the training.
        learn_until_us: what arrived later is not read.
        seed: of the order of the rows.
    """
    if settings.objective == "next":
        # Of equal weights the earliest is kept: the first conversion, whatever its type.
        equal = dict.fromkeys(contract.positives, 1.0)
        contract = contract.model_copy(update={"positives": equal, "max_positives": 1})
    cuts = training_cuts(
        learn_until_us,
        window_days=contract.window_days,
        gap_days=contract.gap_days,
        num_cuts=contract.cuts_per_user,
        stride_days=settings.cut_stride_days,
    )
    labels = label_windows(
        builder.histories, cuts_us=cuts, contract=contract, level=level, known_before_us=learn_until_us
    )
    starts = set(group_starts(labels.cut_us, settings).values())
    populations = {cut: read_population(builder.log, cut) for cut in sorted(starts)}
    cap = contract.max_positives
    is_capped = cap is not None and int(np.diff(labels.offsets).max(initial=0)) >= cap
    builder = replace(
        builder,
        known_before_us=learn_until_us,
        gap_us=contract.gap_days * DAY_US,
        window_us=(contract.gap_days + contract.window_days) * DAY_US,
        reads_future=is_capped or settings.loss.mask_own_future,
    )
    return Examples(builder, labels, populations, settings, seed)
