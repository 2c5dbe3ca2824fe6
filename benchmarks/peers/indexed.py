"""Sequences as arrays of item numbers, and lists from scores, for peers that are a model and no more.

Items are numbered from 1 in the order of their ids, as all these models count, and 0 is none. What a script
adds is its training steps and how it scores; all of a user's events say what was seen, also where the model
reads only the latest. Needs numpy, polars and torch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

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

    def recommend(self, history: Sequences, *, top_k: int, filters: Sequence[bool]) -> pl.DataFrame:
        """Returns user_id, item_id, rank, is_filtered of every user of a history."""
        frames = []
        for first in range(0, len(history.rows), BLOCK_USERS):
            rows = history.rows[first : first + BLOCK_USERS]
            with torch.no_grad():
                score_BN = self.score(rows)
            score_BN[:, 0] = -torch.inf
            # What is left out cannot come back: the lists of everything are taken first.
            for is_filtered in sorted(filters):
                if is_filtered:
                    score_BN[torch.from_numpy(mark_seen(rows, len(self.items)))] = -torch.inf
                lists = pick_top(score_BN, min(top_k, len(self.items)))
                frames.append(lists.with_columns(pl.col("user") + first, is_filtered=pl.lit(is_filtered)))
        found = pl.concat(frames)
        return found.select(
            history.user_id.gather(found["user"]).alias("user_id"),
            self.items.item_id.gather(found["number"] - 1).alias("item_id"),
            "rank",
            "is_filtered",
        )


def pick_top(score_BN: torch.Tensor, top_k: int) -> pl.DataFrame:
    """Returns user (its row), number (of the item) and rank (from 1) of the largest scores but -inf."""
    value_BK, number_BK = score_BN.topk(top_k)
    user, rank = np.nonzero(np.isfinite(value_BK.numpy()))
    return pl.DataFrame({"user": user, "number": number_BK.numpy()[user, rank], "rank": rank + 1})
