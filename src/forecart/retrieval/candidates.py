"""The candidate tables: the top K of everyone, written block by block so that a killed run goes on.

Takes a scorer and a mask of eligible candidates; gives Parquet parts with a row per (user, rank), beside each
the vectors of its users, and what an index and a list for nobody in particular are made of. A file is written
whole or not at all, and a part is not computed again when it is there.
"""

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from forecart import artifacts, columns
from forecart.embedding.users import UserEmbeddings
from forecart.retrieval.candidate_files import (
    FALLBACK,
    PARTS,
    PRIOR,
    VECTORS,
    part_name,
    user_vectors_name,
)
from forecart.retrieval.carry import CarriedPart, Carry
from forecart.retrieval.exact import score_exact, search_exact
from forecart.retrieval.fallback import find_people, list_popular, make_fallback_table
from forecart.retrieval.scorer import ModelScorer
from forecart.retrieval.top_k import TopK
from forecart.sequences.vocabulary import FIRST_INDEX, Vocabulary

BLOCKS_PER_PART: Final = 32
CANDIDATES_FORMAT: Final = 4
"""Goes into the key of the stage: raised when its files change."""


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
        user_country: [U], see `sequences/countries.py`.
        label_window_us: length of the label window, microseconds.
    """

    scorer: ModelScorer
    as_of_us: int
    top_k: int
    is_eligible: npt.NDArray[np.bool_]
    users: Vocabulary
    candidates: Vocabulary
    id_column: str
    block_users: int
    user_country: npt.NDArray[np.uint16]
    label_window_us: int

    @property
    def users_per_part(self) -> int:
        """Users of one file; the last may hold fewer."""
        return self.block_users * BLOCKS_PER_PART


def write_candidates(
    task: CandidateTask,
    folder: Path,
    *,
    carry: Carry | None = None,
    report: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Writes the lists of every user to `part-*.parquet` and returns counts.

    Columns: user_id, rank (from 1), the candidate's id, score, is_repeat (converted with before), as_of.
    `vectors-*.npy` holds the unit vectors of the users of each part, float16, in the order of the vocabulary;
    `candidate_vectors.npy` and `candidate_prior.npy` what they are multiplied with and what is added, -inf
    for what may not be listed; `fallback.parquet` popular candidates by country and everywhere
    (`fallback.py`).

    Args:
        task: what to list.
        folder: parts that are there already are kept; empty it when the inputs changed.
        carry: lists of an earlier day that are kept where nothing is new; they keep their `as_of`.
        report: called with (users done, users in all).
    """
    num_users, num_carried = task.users.num_ids, 0
    for number, first in enumerate(range(0, num_users, task.users_per_part)):
        last = min(first + task.users_per_part, num_users)
        user_index = np.arange(FIRST_INDEX + first, FIRST_INDEX + last, dtype=np.int32)
        part = carry.read_part(number, user_index) if carry else None
        num_carried += 0 if part is None else int(part.is_carried.sum())
        if not (folder / part_name(number)).exists():
            lists, vectors = _make_part(task, user_index, part, report=report)
            artifacts.write_npy(folder / user_vectors_name(number), vectors)
            artifacts.write_parquet(folder / part_name(number), lists)
            del lists, vectors
            return_memory()
    _write_candidates_themselves(task, folder)
    return {**_count(task, folder), "num_carried": num_carried}


def _make_part(
    task: CandidateTask,
    user_index: npt.NDArray[np.int32],
    carried: CarriedPart | None,
    *,
    report: Callable[[int, int], None] | None,
) -> tuple[pl.DataFrame, npt.NDArray[np.float16]]:
    """Returns the lists and vectors of the users of a part, those that are carried among them."""
    is_new = np.ones(len(user_index), np.bool_) if carried is None else ~carried.is_carried
    new = user_index[is_new]
    frames = [] if carried is None else [carried.lists]
    found = [] if carried is None else [carried.vectors]
    for at in range(0, len(new), task.block_users):
        users = task.scorer.embed(task.as_of_us, new[at : at + task.block_users])
        frames.append(_list_block(task, users))
        found.append(users.vector_BD.cpu().numpy().astype(np.float16))
        if report is not None:
            done = int(new[min(at + task.block_users, len(new)) - 1]) + 1 - FIRST_INDEX
            report(done, task.users.num_ids)
    vectors = np.concatenate(found)
    place = np.concatenate([np.flatnonzero(~is_new), np.flatnonzero(is_new)])
    vectors[place] = vectors.copy()
    lists = pl.concat(frames)
    if carried is not None:
        order = np.lexsort((lists[columns.RANK].to_numpy(), task.users.index(lists[columns.USER_ID])))
        lists = lists[order]
    return lists, vectors


def return_memory() -> None:
    """Gives the system back what glibc's allocator keeps of what was freed; elsewhere it does nothing.

    Between blocks of unequal size it keeps 50 MB a part, which is more than the log after a hundred of them.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _write_candidates_themselves(task: CandidateTask, folder: Path) -> None:
    embedded = task.scorer.candidates_at(task.as_of_us)
    artifacts.write_npy(folder / VECTORS, embedded.vector_ND.cpu().numpy().astype(np.float16))
    prior_N = np.where(task.is_eligible, embedded.prior_N.cpu().numpy(), np.float32(-np.inf))
    prior_N[:FIRST_INDEX] = -np.inf
    artifacts.write_npy(folder / PRIOR, prior_N)
    builder = task.scorer.builder
    lists = list_popular(
        builder.log,
        task.as_of_us,
        people=find_people(builder.histories, task.user_country, task.as_of_us),
        window_us=task.label_window_us,
        is_eligible=task.is_eligible,
        top_k=task.top_k,
    )
    artifacts.write_parquet(folder / FALLBACK, make_fallback_table(lists, task.candidates, task.id_column))


def _list_block(task: CandidateTask, users: UserEmbeddings) -> pl.DataFrame:
    score_BN = score_exact(users, task.scorer.candidates_at(task.as_of_us))
    is_eligible_N = torch.from_numpy(task.is_eligible).to(score_BN.device)
    found = search_exact(score_BN, top_k=task.top_k, is_eligible_N=is_eligible_N)
    user_index, converted = users.user_index, users.has_converted_M.cpu().numpy()
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
    num_users = num_rows = num_short = 0
    # Part by part: all of a user's rows are in one, and the ids of every row would not fit in memory.
    for path in sorted(folder.glob(PARTS)):
        length = pl.read_parquet(path, columns=[columns.USER_ID])[columns.USER_ID].rle().struct["len"]
        num_users, num_rows = num_users + len(length), num_rows + int(length.sum())
        num_short += int((length < task.top_k).sum())
    return {
        "num_users": num_users,
        "num_rows": num_rows,
        "top_k": task.top_k,
        "num_eligible": int(task.is_eligible.sum()),
        "num_users_with_fewer_than_k": num_short,
        "as_of_us": task.as_of_us,
        "users_per_part": task.users_per_part,
    }
