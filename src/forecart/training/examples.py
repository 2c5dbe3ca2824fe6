"""The order of training: which (user, cut) rows make up each step's batch, by seed and epoch alone.

Takes labels; gives batches of row numbers. A batch holds rows of one cut (of one group of cuts for the dense
objective), so that its candidates share one prior. The batches of a cut are of about one size: a remainder of
a few rows would weigh as much as a full batch. The order is a pure function of (seed, epoch): a resumed run
needs no generator state.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from forecart.errors import DataError
from forecart.sequences.batches import Batch, BatchBuilder, select_labels
from forecart.sequences.population import Population
from forecart.sequences.split import Labels
from forecart.training.settings import TrainingSettings

IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Examples:
    """The training rows of one model.

    Attributes:
        builder: turns rows into batches.
        labels: [X] rows.
        populations: statistics by cut, of the earliest of each group of cuts (`group_starts`).
        settings: batch size and objective.
        seed: of the order.
    """

    builder: BatchBuilder
    labels: Labels
    populations: dict[int, Population]
    settings: TrainingSettings
    seed: int

    def __post_init__(self) -> None:
        if len(self.labels) == 0:
            raise DataError(
                "training needs users who convert before and after a training cut, there are none: "
                "use an earlier first cut, a longer label window, or more event types as positives"
            )

    @property
    def num_rows(self) -> int:
        """X."""
        return len(self.labels)

    @property
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has, the same for every epoch."""
        return sum(self._num_batches(rows) for rows in self._groups)

    def batch(self, rows: IndexArray) -> Batch:
        """Returns the batch of these rows, with labels."""
        labels = select_labels(self.labels, rows)
        population = self.population_of(labels.cut_us)
        return self.builder.build(labels.user_index, labels.cut_us, population=population, labels=labels)

    def population_of(self, cut_us: IndexArray) -> Population:
        """Returns the statistics that a batch with these cuts reads."""
        return self.populations[self._group_start[int(cut_us.min())]]

    def order(self, epoch: int) -> list[IndexArray]:
        """Returns the rows of each batch of an epoch, shuffled within and between cuts."""
        generator = np.random.default_rng([self.seed, epoch])
        batches = [batch for rows in self._groups for batch in self._split(rows, generator)]
        return [batches[at] for at in generator.permutation(len(batches))]

    def batches(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """Yields the batches of an epoch, from batch number `first` on."""
        for rows in self.order(epoch)[first:]:
            yield self.batch(rows)

    @cached_property
    def _group_start(self) -> dict[int, int]:
        return group_starts(self.labels.cut_us, self.settings)

    @cached_property
    def _groups(self) -> list[IndexArray]:
        """Rows of each group of cuts."""
        cuts, at = np.unique(self.labels.cut_us, return_inverse=True)
        start = np.array([self._group_start[int(cut)] for cut in cuts])[at]
        return [np.flatnonzero(start == one) for one in np.unique(start)]

    def _num_batches(self, rows: IndexArray) -> int:
        return -(-len(rows) // self.settings.batch_rows)

    def _split(self, rows: IndexArray, generator: np.random.Generator) -> list[IndexArray]:
        """Splits one group into batches of about one size; the rows of a user stay together."""
        users, user = np.unique(self.labels.user_index[rows], return_inverse=True)
        place = generator.permutation(len(users))[user]
        shuffled = rows[np.lexsort((self.labels.cut_us[rows], place))]
        parts = np.array_split(shuffled, self._num_batches(rows))
        # Within a batch by user, so that reading memory-mapped histories goes forward.
        return [part[np.lexsort((self.labels.cut_us[part], self.labels.user_index[part]))] for part in parts]


def group_starts(cut_us: IndexArray, settings: TrainingSettings) -> dict[int, int]:
    """Returns the earliest cut of each cut's group: itself, or of a run of `cuts_per_history` cuts."""
    size = settings.cuts_per_history if settings.objective == "dense_all_action" else 1
    cuts = np.unique(cut_us)
    return {int(cut): int(cuts[at - at % size]) for at, cut in enumerate(cuts)}
