"""The lists that the figures come from, as one Parquet file per level that anyone can recompute them from."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

from forecart import artifacts, columns
from forecart.evaluation.protocol import POOLS, Evaluation
from forecart.sequences.split import ID_COLUMN
from forecart.sequences.vocabulary import Vocabulary


def write_lists(path: Path, evaluation: Evaluation, *, users: Vocabulary, candidates: Vocabulary) -> None:
    """Writes `pool, list, cut, user_id, rank, advertiser_id | item_id, score`, one row per listed candidate.

    Sorted by pool, list, cut, user_index and rank; ranks are 1 to K, a short list has fewer rows. A pool has
    the users with something relevant in it. Written a pool and list at a time: memory is one of them.
    """
    frames = list_frames(evaluation, users=users, candidates=candidates)

    def write(temporary: Path) -> None:
        first = next(frames).to_arrow()
        with pq.ParquetWriter(temporary, first.schema, compression="zstd") as writer:
            writer.write_table(first)
            for frame in frames:
                writer.write_table(frame.to_arrow())

    artifacts.write_atomically(path, write)


def list_frames(
    evaluation: Evaluation, *, users: Vocabulary, candidates: Vocabulary
) -> Iterator[pl.DataFrame]:
    """Yields the rows of the file, a frame per pool and list."""
    names = [name for seeds in evaluation.list_names.values() for name in seeds]
    for pool in POOLS:
        for name in names:
            yield _frame(evaluation, (pool, name), users=users, candidates=candidates)


def _frame(
    evaluation: Evaluation, which: tuple[str, str], *, users: Vocabulary, candidates: Vocabulary
) -> pl.DataFrame:
    pool, name = which
    ranked, rows = evaluation.lists[pool][name], evaluation.pool_rows[pool]
    at, rank = np.nonzero(ranked.candidate >= 0)
    row = rows[at]
    return pl.DataFrame(
        {
            columns.POOL: pl.repeat(pool, len(row), dtype=pl.String, eager=True),
            columns.LIST: pl.repeat(name, len(row), dtype=pl.String, eager=True),
            columns.CUT: pl.Series(evaluation.labels.cut_us[row]).cast(pl.Datetime("us", "UTC")),
            columns.USER_ID: users.id_series(evaluation.labels.user_index[row]),
            columns.RANK: (rank + 1).astype(np.int32),
            ID_COLUMN[evaluation.settings.level]: candidates.id_series(ranked.candidate[at, rank]),
            columns.SCORE: ranked.score[at, rank],
        }
    )
