"""The candidate tables: the top K of everyone, written block by block so that a killed run goes on.

Takes a scorer and a mask of eligible candidates; gives Parquet parts with a row per (user, rank). A part is
written whole or not at all and is not computed again when it is there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from forecart import artifacts, columns
from forecart.retrieval.exact import TopK, score_exact, search_exact
from forecart.retrieval.scorer import ModelScorer
from forecart.sequences.vocabulary import FIRST_INDEX, Vocabulary

BLOCKS_PER_PART: Final = 32


@dataclass(frozen=True, eq=False)
class CandidateTask:
    """What to list, and for whom.

    Attributes:
        scorer: of the trained model.
        as_of_us: up to when histories are read.
        top_k: candidates per user.
        is_eligible: [N].
        users: vocabulary of users; every user in it gets a list.
        candidates: vocabulary of the level.
        id_column: `advertiser_id` or `item_id`.
        block_users: users scored at once.
    """

    scorer: ModelScorer
    as_of_us: int
    top_k: int
    is_eligible: npt.NDArray[np.bool_]
    users: Vocabulary
    candidates: Vocabulary
    id_column: str
    block_users: int

    def blocks(self) -> list[npt.NDArray[np.int32]]:
        """Returns the users of each block."""
        everyone = np.arange(FIRST_INDEX, len(self.users), dtype=np.int32)
        return [everyone[at : at + self.block_users] for at in range(0, len(everyone), self.block_users)]


def write_candidates(
    task: CandidateTask, folder: Path, *, report: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Writes the lists of every user to `part-*.parquet` and returns counts.

    Columns: user_id, rank (from 1), the candidate's id, score, is_repeat (converted with before), as_of.

    Args:
        task: what to list.
        folder: parts that are there already are kept; empty it when the inputs changed.
        report: called with (users done, users in all).
    """
    blocks = task.blocks()
    for number, start in enumerate(range(0, len(blocks), BLOCKS_PER_PART)):
        path = folder / f"part-{number:05d}.parquet"
        if not path.exists():
            frames = []
            for at, users in enumerate(blocks[start : start + BLOCKS_PER_PART], start):
                frames.append(_list_block(task, users))
                if report is not None:
                    report(at * task.block_users + len(users), len(task.users) - FIRST_INDEX)
            artifacts.write_parquet(path, pl.concat(frames))
    return _count(task, folder)


def _list_block(task: CandidateTask, user_index: npt.NDArray[np.int32]) -> pl.DataFrame:
    users = task.scorer.embed(task.as_of_us, user_index)
    score_BN = score_exact(users, task.scorer.candidates_at(task.as_of_us))
    is_eligible_N = torch.from_numpy(task.is_eligible).to(score_BN.device)
    found = search_exact(score_BN, top_k=task.top_k, is_eligible_N=is_eligible_N)
    converted = users.has_converted_M.cpu().numpy()
    num = len(task.candidates)
    keys = users.own_row_M.cpu().numpy()[converted] * num + users.own_candidate_M.cpu().numpy()[converted]
    return _to_frame(task, user_index, found, keys)


def _to_frame(
    task: CandidateTask, user_index: npt.NDArray[np.int32], found: TopK, repeat_keys: npt.NDArray[np.int64]
) -> pl.DataFrame:
    row, rank = np.nonzero(found.candidate >= FIRST_INDEX)
    candidate = found.candidate[row, rank]
    return pl.DataFrame(
        {
            columns.USER_ID: task.users.id_series(user_index).gather(row),
            columns.RANK: (rank + 1).astype(np.int32),
            task.id_column: task.candidates.id_series(candidate),
            columns.SCORE: found.score[row, rank],
            columns.IS_REPEAT: np.isin(row * len(task.candidates) + candidate, repeat_keys),
            columns.AS_OF: np.full(len(row), task.as_of_us),
        }
    ).with_columns(pl.col(columns.AS_OF).cast(pl.Datetime("us", "UTC")))


def _count(task: CandidateTask, folder: Path) -> dict[str, Any]:
    lengths = (
        pl.scan_parquet(sorted(folder.glob("part-*.parquet")))
        .group_by(columns.USER_ID)
        .len()
        .select(
            pl.len().alias("users"),
            pl.col("len").sum().alias("rows"),
            (pl.col("len") < task.top_k).sum().alias("short"),
        )
        .collect()
        .row(0, named=True)
    )
    return {
        "num_users": lengths["users"],
        "num_rows": lengths["rows"],
        "top_k": task.top_k,
        "num_eligible": int(task.is_eligible.sum()),
        "num_users_with_fewer_than_k": lengths["short"],
        "as_of_us": task.as_of_us,
    }
