"""Sequences as arrays of item numbers, and lists from scores, for peers that are a model and no more.

Items are numbered from 1 in the order of their ids, as all these models count, and 0 is none. What a script
adds is its training steps and how it scores; all of a user's events say what was seen, also where the model
reads only the latest. Needs numpy, polars and torch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from protocol import IsOver

Row = npt.NDArray[np.int64]
Score = Callable[[Sequence[Row]], torch.Tensor]
"""Sequences of users -> [B, N + 1], larger is better; column 0 is nothing."""
BLOCK_USERS = 128


@dataclass(frozen=True)
class Sequences:
    """What users did: user_id [U], and of each the numbers of the items in order."""

    user_id: pl.Series
    rows: list[Row]


class ItemNumbers:
    """The items of a file by number, from 1; `item_id` is theirs in this order."""

    def __init__(self, rows: pl.DataFrame) -> None:
        self.item_id = rows["item_id"].unique().sort()

    def __len__(self) -> int:
        return len(self.item_id)

    def read(self, rows: pl.DataFrame) -> Sequences:
        """Returns sequences without items that have no number; a user with none of them is left out.

        Args:
            rows: user_id, item_id and pos, ordered by user and pos.
        """
        numbers = pl.DataFrame({"item_id": self.item_id}).with_row_index("number", offset=1)
        known = rows.join(numbers, on="item_id", how="inner", maintain_order="left")
        users = known.group_by("user_id", maintain_order=True).agg(pl.col("number").cast(pl.Int64))
        return Sequences(users["user_id"], [row.to_numpy() for row in users["number"]])


def pad(rows: Sequence[Row], length: int, *, value: int = 0, is_left: bool = True) -> Row:
    """Returns the latest events of each row as [B, length], filled with a value before them, or after."""
    padded = np.full((len(rows), length), value, np.int64)
    for number, row in enumerate(rows):
        latest = row[-length:]
        where = slice(length - len(latest), None) if is_left else slice(len(latest))
        padded[number, where] = latest
    return padded


def mark_seen(rows: Sequence[Row], num_items: int) -> npt.NDArray[np.bool_]:
    """Returns [B, N + 1], true for what is in a row."""
    is_seen = np.zeros((len(rows), num_items + 1), np.bool_)
    for number, row in enumerate(rows):
        is_seen[number, row] = True
    return is_seen


def shuffled(
    rows: Sequence[Row], batch_size: int, rng: np.random.Generator
) -> Iterator[tuple[float, list[Row]]]:
    """Yields batches of all rows in a new random order each epoch, with the epochs after each."""
    num_batches = -(-len(rows) // batch_size)
    number = 0
    while True:
        order = rng.permutation(len(rows))
        for first in range(0, len(rows), batch_size):
            number += 1
            yield number / num_batches, [rows[one] for one in order[first : first + batch_size]]


class SequenceLearner:
    """A peer as its training steps and its scores (`protocol.Learner`).

    Args:
        items: those it knows.
        learned_from: what it learns from.
        steps: yields the epochs so far after each batch; goes on in the next round where it stopped.
        score: the model after the last step.
    """

    def __init__(
        self, items: ItemNumbers, learned_from: Sequences, *, steps: Iterator[float], score: Score
    ) -> None:
        self.items, self.learned_from = items, learned_from
        self.steps, self.score = steps, score
        self.epochs = 0.0

    def prepare(self, rows: pl.DataFrame) -> Sequences:
        """Returns the sequences of a file."""
        return self.items.read(rows)

    def learn(self, is_over: IsOver) -> None:
        """Takes steps until the round is over."""
        for epochs in self.steps:
            self.epochs = epochs
            if is_over(epochs):
                return

    def recommend(self, history: Sequences, *, top_k: int, is_filtered: bool) -> pl.DataFrame:
        """Returns user_id, item_id, rank of every user of a history."""
        top_k = min(top_k, len(self.items))
        blocks: list[dict[str, Any]] = []
        for first in range(0, len(history.rows), BLOCK_USERS):
            rows = history.rows[first : first + BLOCK_USERS]
            with torch.no_grad():
                score_BN = self.score(rows)
            score_BN[:, 0] = -torch.inf
            if is_filtered:
                score_BN[torch.from_numpy(mark_seen(rows, len(self.items)))] = -torch.inf
            value_BK, item_BK = score_BN.topk(top_k)
            row, rank = np.nonzero(np.isfinite(value_BK.numpy()))
            blocks.append({"user": first + row, "item": item_BK.numpy()[row, rank] - 1, "rank": rank + 1})
        joined = {
            name: np.concatenate([block[name] for block in blocks]) for name in ("user", "item", "rank")
        }
        return pl.DataFrame(
            {
                "user_id": history.user_id.gather(joined["user"]),
                "item_id": self.items.item_id.gather(joined["item"]),
                "rank": joined["rank"],
            }
        )
