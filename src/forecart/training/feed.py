"""Batches on the device in the order of the steps; those of a large catalogue are read ahead of their step.

Takes examples, and a store where there is one; gives `TowerBatch`es. With a store a batch comes with its
negatives and is numbered among the items that it names or draws, so that a step computes and holds nothing
else of the catalogue (docs/adr/0016). Draws follow from the seed and the step alone: what is read ahead, or
read again after a kill, is the same.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from forecart.model.negatives import CandidatePool, DrawnNegatives
from forecart.model.tensors import CandidateRows, TowerBatch, to_tensors
from forecart.sequences.batches import Batch
from forecart.sequences.candidate_store import CandidateStore
from forecart.sequences.vocabulary import FIRST_INDEX
from forecart.training.examples import Examples
from forecart.training.objective import Objective

_NUM_AHEAD: Final = 2
_PADDING: Final = np.arange(FIRST_INDEX)
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Feed:
    """What a trainer's steps are taken on.

    Attributes:
        examples: the rows.
        objective: draws the negatives of batches from a store; unused without one.
        device: of the batches.
        seed: of the negatives.
        store: of the items; None when the model holds the features of all candidates itself.
    """

    examples: Examples
    objective: Objective
    device: torch.device
    seed: int
    store: CandidateStore | None = None

    def batches(self, step: int, *, steps_per_epoch: int) -> Iterator[TowerBatch]:
        """Yields the batches of the present epoch from step number `step` on."""
        epoch, first = divmod(step, steps_per_epoch)
        batches = self.examples.batches(epoch, first=first)
        store = self.store
        if store is None:
            return (to_tensors(batch, self.device) for batch in batches)
        return read_ahead(self._read(batch, step + at, store) for at, batch in enumerate(batches))

    def _read(self, batch: Batch, step: int, store: CandidateStore) -> TowerBatch:
        """Draws the negatives of a step and reads what it needs of the store."""
        assert batch.positives is not None
        positive_P = torch.from_numpy(batch.positives.candidate.astype(np.int64))
        drawn = self.objective.draw(positive_P, generator=negatives_generator(self.seed, step))
        pool = drawn.pool.index_N.numpy()
        index = np.unique(np.concatenate([_PADDING, pool, *_candidates_of(batch)]))
        batch = _number_among(index, batch)
        population = self.examples.population_of(batch.cut_us)
        batch = replace(batch, log_share=population.log_share[population.rows_of(index)])
        static, advertiser = store.read(index)

        def on_device(array: npt.NDArray[np.float32] | npt.NDArray[np.int64]) -> torch.Tensor:
            return torch.from_numpy(array).to(self.device, non_blocking=True)

        rows = CandidateRows(
            index_N=on_device(index),
            static_NF=on_device(static),
            advertiser_N=on_device(advertiser.astype(np.int64)),
            drawn=DrawnNegatives(
                CandidatePool(on_device(np.searchsorted(index, pool)), drawn.pool.log_q_N.to(self.device)),
                drawn.log_q_P.to(self.device),
            ),
        )
        return replace(to_tensors(batch, self.device), rows=rows)


def read_ahead(source: Iterator[T], *, num_ahead: int = _NUM_AHEAD) -> Iterator[T]:
    """Yields what the source does, in order, while a thread of its own has the next few made.

    What the source raises is raised where its value would have come. None ends it.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as worker:
        ahead = deque(worker.submit(next, source, None) for _ in range(num_ahead))
        while (value := ahead.popleft().result()) is not None:
            ahead.append(worker.submit(next, source, None))
            yield value


def negatives_generator(seed: int, step: int) -> torch.Generator:
    """Returns the generator that draws the negatives of a step."""
    # Not the same seed, or the negatives would be drawn from the numbers that dropout uses.
    return torch.Generator().manual_seed(derive_seed(~seed, step))


def derive_seed(seed: int, step: int) -> int:
    """Returns the seed of one step: the same for the same (seed, step), far apart for neighbours."""
    return ((seed + 1) * 0x9E3779B97F4A7C15 + (step + 1) * 0xBF58476D1CE4E5B9) % (1 << 63)


def _candidates_of(batch: Batch) -> list[npt.NDArray[np.int32]]:
    """Returns every item that a batch with labels names."""
    assert batch.positives is not None
    positives = batch.positives
    return [batch.events.item, batch.own.candidate, positives.candidate, positives.future_candidate]


def _number_among(index: npt.NDArray[np.int64], batch: Batch) -> Batch:
    """Returns the batch with each item's place in `index` in its place."""

    def place(candidate: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        return np.searchsorted(index, candidate).astype(np.int32)

    assert batch.positives is not None
    positives = batch.positives
    return replace(
        batch,
        events=replace(batch.events, item=place(batch.events.item)),
        own=replace(batch.own, candidate=place(batch.own.candidate)),
        positives=replace(
            positives,
            candidate=place(positives.candidate),
            future_candidate=place(positives.future_candidate),
        ),
    )
