"""Factors and neighbours of implicit as peers (`protocol.py`): no order, no neural network, one round.

    python -m venv PEER; PEER/bin/pip install implicit polars pyarrow
    yes | head -1 | PEER/bin/python benchmarks/peers/implicit_neighbours.py TRAIN.parquet OUTPUT

`--model als` is alternating least squares, `--model bm25` item-item neighbours of BM25 weights, both with
their defaults. Users of a history are listed from that history: als computes their factors anew from it.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import BM25Recommender
from protocol import IsOver, build_parser, read_rows, read_versions, serve
from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class Counts:
    """How often each user did each item: user_id [U] and a matrix [U, N]."""

    user_id: pl.Series
    count_UN: csr_matrix


class ImplicitLearner:
    """implicit by a round (`protocol.Learner`); a later round learns nothing more."""

    def __init__(self, asked: argparse.Namespace) -> None:
        rows = read_rows(asked.train)
        self.item_id = rows["item_id"].unique().sort()
        self.learned_from = self.prepare(rows)
        self.epochs = 0.0
        self.is_als = asked.model == "als"
        if self.is_als:
            self.model = AlternatingLeastSquares(num_threads=1, random_state=asked.seed)
        else:
            self.model = BM25Recommender(num_threads=1)

    def prepare(self, rows: pl.DataFrame) -> Counts:
        """Returns counts of the items that were learned from; a user with none of them is left out."""
        numbers = pl.DataFrame({"item_id": self.item_id}).with_row_index("item")
        known = rows.join(numbers, on="item_id", how="inner")
        user_id = known["user_id"].unique().sort()
        users = pl.DataFrame({"user_id": user_id}).with_row_index("user")
        known = known.join(users, on="user_id", how="inner")
        where = (known["user"].to_numpy(), known["item"].to_numpy())
        shape = (len(user_id), len(self.item_id))
        return Counts(user_id, csr_matrix((np.ones(known.height, np.float32), where), shape=shape))

    def learn(self, is_over: IsOver) -> None:
        """Fits, the first time."""
        if not self.epochs:
            self.model.fit(self.learned_from.count_UN, show_progress=False)
            self.epochs = 1.0

    def recommend(self, history: Counts, *, top_k: int, filters: Sequence[bool]) -> pl.DataFrame:
        """Returns user_id, item_id, rank, is_filtered; of neighbours only those with a score."""
        return pl.concat([self._list(history, top_k, is_filtered=one) for one in filters])

    def _list(self, history: Counts, top_k: int, *, is_filtered: bool) -> pl.DataFrame:
        asked = {"recalculate_user": True} if self.is_als else {}
        item_UK, score_UK = self.model.recommend(
            np.arange(len(history.user_id)),
            history.count_UN,
            N=min(top_k, len(self.item_id)),
            filter_already_liked_items=is_filtered,
            **asked,
        )
        # What is left out or has no score is still named, with the lowest number there is or a zero.
        lowest = np.finfo(np.float32).min if self.is_als else 0
        user, rank = np.nonzero((item_UK >= 0) & (score_UK > lowest))
        return pl.DataFrame(
            {
                "user_id": history.user_id.gather(user),
                "item_id": self.item_id.gather(item_UK[user, rank]),
                "rank": rank + 1,
            }
        ).with_columns(is_filtered=pl.lit(is_filtered))


def main() -> None:
    """Runs the command line."""
    parser = build_parser(__doc__)
    parser.add_argument("--model", choices=("als", "bm25"), default="als")
    asked = parser.parse_args()
    serve(asked, ImplicitLearner(asked), versions=read_versions(["implicit"]), num_threads=1)


if __name__ == "__main__":
    main()
