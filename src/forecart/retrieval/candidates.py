"""The candidate tables: the top K of everyone, written part by part so that a killed run goes on.

Takes a scorer and a mask of eligible candidates; gives Parquet parts with a row per (user, rank), beside each
the vectors of its users, and what an index and a list for nobody in particular are made of. A file is written
whole or not at all, and a part is not computed again when it is there. Parts are tasks of an engine: a worker
opens the run's folder itself and computes with one thread, so that every engine writes the same bytes.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from forecart import artifacts, columns
from forecart.embedding.users import UserEmbeddings
from forecart.engine.contract import Engine, Work
from forecart.engine.cost import CostMeter
from forecart.engine.local import LocalEngine
from forecart.retrieval.candidate_files import (
    FALLBACK,
    PARTS,
    PRIOR,
    VECTORS,
    part_name,
    user_vectors_name,
)
from forecart.retrieval.carry import Carry
from forecart.retrieval.diversity import Reranker, choose_lists
from forecart.retrieval.exact import score_exact, search_exact
from forecart.retrieval.fallback import find_people, list_popular, make_fallback_table
from forecart.retrieval.scorer import ModelScorer
from forecart.retrieval.top_k import TopK
from forecart.sequences.vocabulary import FIRST_INDEX, Vocabulary

LISTING: Final = "listing candidates"
"""What is told of the progress."""
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


@dataclass(frozen=True, eq=False)
class Listing:
    """What a worker has open to make parts.

    Attributes:
        task: what is listed, and for whom.
        carry: lists of an earlier day that are kept where nothing is new; they keep their `as_of`.
        report: called with (users done, users in all) within a part; the engine tells of whole ones.
    """

    task: CandidateTask
    carry: Carry | None = None
    report: Callable[[int, int], None] | None = None


@dataclass(frozen=True)
class PartOrder:
    """A part to be made: its number, and the folder that it goes to."""

    folder: Path
    number: int


def write_candidates(
    listing: Listing,
    folder: Path,
    *,
    engine: Engine | None = None,
    reopen: Callable[[], Listing] | None = None,
) -> dict[str, Any]:
    """Writes the lists of every user to `part-*.parquet` and returns counts and what it cost.

    Columns: user_id, rank (from 1), the candidate's id, score, is_repeat (converted with before), as_of.
    Where lists are re-ranked, scores do not fall with the rank.
    `vectors-*.npy` holds the unit vectors of the users of each part, float16, in the order of the vocabulary;
    `candidate_vectors.npy` and `candidate_prior.npy` what they are multiplied with and what is added, -inf
    for what may not be listed; `fallback.parquet` popular candidates by country and everywhere
    (`fallback.py`).

    Args:
        listing: what to list.
        folder: parts that are there already are kept; empty it when the inputs changed.
        engine: whose workers make the parts; this process does when not given.
        reopen: gives the same listing in a worker, from what is on the disk.
    """
    task, meter = listing.task, CostMeter(engine := engine or LocalEngine())
    num_parts = -(-task.users.num_ids // task.users_per_part)
    missing = [number for number in range(num_parts) if not (folder / part_name(number)).exists()]
    num_users = sum(len(_users_of(task, number)) for number in missing)
    num_done = task.users.num_ids - num_users
    work = Work(
        name=f"listing {task.id_column}s",
        open=reopen or (lambda: listing),
        do=make_part,
        here=listing,
    )
    orders = [PartOrder(folder.absolute(), number) for number in missing]
    for done in meter.watch((engine if reopen else LocalEngine()).run(work, orders)):
        num_done += done.value
        if listing.report is not None:
            listing.report(num_done, task.users.num_ids)
    with _one_thread():
        _write_candidates_themselves(task, folder)
    written = [name(number) for number in missing for name in (part_name, user_vectors_name)]
    num_bytes = sum((folder / name).stat().st_size for name in [*written, VECTORS, PRIOR, FALLBACK])
    return {**_count(task, folder), "cost": meter.describe(num_users=num_users, bytes_written=num_bytes)}


def make_part(listing: Listing, order: PartOrder) -> int:
    """Writes a part with the vectors of its users and returns how many users it is of."""
    user_index = _users_of(listing.task, order.number)
    with _one_thread():
        lists, vectors = _make_lists(listing, order.number, user_index)
    # The part last: where it is, its vectors are.
    artifacts.write_npy(order.folder / user_vectors_name(order.number), vectors)
    artifacts.write_parquet(order.folder / part_name(order.number), lists)
    del lists, vectors
    return_memory()
    return len(user_index)


def _users_of(task: CandidateTask, number: int) -> npt.NDArray[np.int32]:
    first = number * task.users_per_part
    last = min(first + task.users_per_part, task.users.num_ids)
    return np.arange(FIRST_INDEX + first, FIRST_INDEX + last, dtype=np.int32)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keeps sums from depending on how many cores the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _make_lists(
    listing: Listing, number: int, user_index: npt.NDArray[np.int32]
) -> tuple[pl.DataFrame, npt.NDArray[np.float16]]:
    """Returns the lists and vectors of the users of a part, those that are carried among them."""
    task, reranker = listing.task, listing.task.scorer.reranker_at(listing.task.as_of_us)
    carried = listing.carry.read_part(number, user_index) if listing.carry else None
    is_new = np.ones(len(user_index), np.bool_) if carried is None else ~carried.is_carried
    new = user_index[is_new]
    frames = [] if carried is None else [carried.lists]
    found = [] if carried is None else [carried.vectors]
    for at in range(0, len(new), task.block_users):
        users = task.scorer.embed(task.as_of_us, new[at : at + task.block_users])
        frames.append(_list_block(task, users, reranker))
        found.append(users.vector_BD.cpu().numpy().astype(np.float16))
        if listing.report is not None:
            done = int(new[min(at + task.block_users, len(new)) - 1]) + 1 - FIRST_INDEX
            listing.report(done, task.users.num_ids)
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


def _list_block(task: CandidateTask, users: UserEmbeddings, reranker: Reranker | None) -> pl.DataFrame:
    score_BN = score_exact(users, task.scorer.candidates_at(task.as_of_us))
    is_eligible_N = torch.from_numpy(task.is_eligible).to(score_BN.device)
    found = choose_lists(
        lambda num: search_exact(score_BN, top_k=num, is_eligible_N=is_eligible_N),
        reranker,
        top_k=task.top_k,
    )
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
    num_users = num_rows = num_short = num_carried = 0
    # Part by part: all of a user's rows are in one, and the ids of every row would not fit in memory.
    for path in sorted(folder.glob(PARTS)):
        part = pl.read_parquet(path, columns=[columns.USER_ID, columns.AS_OF])
        length = part[columns.USER_ID].rle().struct["len"].to_numpy()
        num_users, num_rows = num_users + len(length), num_rows + len(part)
        num_short += int((length < task.top_k).sum())
        as_of_us = part[columns.AS_OF].dt.timestamp("us").to_numpy()
        num_carried += int((as_of_us[np.cumsum(length) - 1] < task.as_of_us).sum())
    rerank = task.scorer.rerank
    return {
        **({} if rerank is None else {"rerank": rerank.model_dump(mode="json")}),
        "num_users": num_users,
        "num_rows": num_rows,
        "top_k": task.top_k,
        "num_eligible": int(task.is_eligible.sum()),
        "num_users_with_fewer_than_k": num_short,
        "num_carried": num_carried,
        "as_of_us": task.as_of_us,
        "users_per_part": task.users_per_part,
    }
