"""Lists that a peer wrote, held to the protocol of record like any system of ours.

A peer is a script of `benchmarks/peers` run by the Python of an environment of its own: `PYTHON SCRIPT TRAIN
FOLDER --history NAME=FILE ...`; TRAIN and each FILE are Parquet with user_id, item_id and pos. It learns a
round from TRAIN for each line of standard input and then lists every user of each history in
`FOLDER/lists-ROUND-NAME.parquet`: user_id, item_id, rank (from 1) and is_filtered, whether what is in the
history was left out. Which round is reported is chosen on validation, as for our own models.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import csr_matrix  # type: ignore[import-untyped, unused-ignore]

from forecart.evaluation.targets import MODEL, TargetData, measure_target, tabulate_target
from forecart.observe import Reporter
from forecart.sequences.vocabulary import FIRST_INDEX

RECTOOLS: Final = Path(__file__).parent / "peers" / "rectools_sasrec.py"


@dataclass(frozen=True, eq=False)
class ListScorer:
    """A peer's lists as scores: the list of everything, then what only the list without the seen holds.

    Attributes:
        name: in tables.
        score_UN: by cut, users by candidates, sparse; what was not listed has no entry.
    """

    name: str
    score_UN: Mapping[int, Any]

    def score_at(self, cut_us: int, user_index: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Returns one over the place in the list, [B, N]; -inf for what was not listed."""
        score_BN: npt.NDArray[np.float32] = self.score_UN[cut_us][user_index].toarray()
        return np.where(score_BN > 0, score_BN, np.float32(-np.inf))


def read_lists(lists: pl.DataFrame, data: TargetData) -> Any:
    """Returns one over the place of each listed candidate, a CSR matrix [U, N].

    Args:
        lists: user_id, item_id, rank, is_filtered.
        data: whose vocabularies number users and candidates; who is in neither is left out.
    """
    # A list without the seen never contradicts the one with them: it goes on where that one ends.
    ordered = (
        lists.sort("user_id", "is_filtered", "rank")
        .unique(["user_id", "item_id"], keep="first", maintain_order=True)
        .with_columns(place=1 + pl.int_range(pl.len()).over("user_id"))
    )
    user = data.sequences.users.index(ordered["user_id"].cast(pl.String))
    candidate = data.vocabulary.index(ordered["item_id"].cast(pl.String))
    known = np.flatnonzero((user >= FIRST_INDEX) & (candidate >= FIRST_INDEX))
    value = (1 / ordered["place"].to_numpy()[known]).astype(np.float32)
    shape = (len(data.sequences.users), data.num_candidates)
    return csr_matrix((value, (user[known], candidate[known])), shape=shape)


@dataclass(frozen=True)
class Peer:
    """A peer that learns in rounds.

    Attributes:
        name: in tables.
        command: its Python, its script, and options of it.
        num_rounds: after each it can be chosen.
        folder: of its lists.
    """

    name: str
    command: Sequence[str]
    num_rounds: int
    folder: Path

    def lists_path(self, number: int, history: str) -> Path:
        """Where the lists of a round are."""
        return self.folder / f"lists-{number}-{history}.parquet"

    def learn(self, train: Path, histories: Mapping[str, Path], *, reporter: Reporter) -> None:
        """Runs the peer, where its lists are not there yet.

        Raises:
            RuntimeError: it ended with an error.
        """
        is_done = all(self.lists_path(self.num_rounds, name).exists() for name in histories)
        reporter.stage(f"peer: {self.name}", is_done=is_done)
        if is_done:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        named = [word for name, path in histories.items() for word in ("--history", f"{name}={path}")]
        log = self.folder / "said.log"
        with log.open("w") as said:
            done = subprocess.run(
                [*self.command, str(train), str(self.folder), *named],
                input="\n" * self.num_rounds,
                stdout=said,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                env=os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
            )
        if done.returncode:
            raise RuntimeError(f"{self.name} ended with {done.returncode}: see {log}")

    def said(self, number: int) -> dict[str, Any]:
        """Returns the peer's own line of a round: settings, versions, what it took."""
        lines = (self.folder / "said.log").read_text().splitlines()
        rounds: list[dict[str, Any]] = [json.loads(line) for line in lines if line.startswith('{"round"')]
        return rounds[number - 1]

    def scorer(self, number: int, data: TargetData, histories: Mapping[int, str]) -> ListScorer:
        """Returns the lists of a round as a scorer; `histories` names the history of each cut."""
        score_UN = {
            cut_us: read_lists(pl.read_parquet(self.lists_path(number, name)), data)
            for cut_us, name in histories.items()
        }
        return ListScorer(self.name, score_UN)

    def best_round(
        self, data: TargetData, histories: Mapping[int, str], *, pool: str, metric: str
    ) -> tuple[int, list[float]]:
        """Returns the round with the best metric on validation, and the metric of every round."""
        values = []
        for number in range(1, self.num_rounds + 1):
            scorer = ListScorer(MODEL, self.scorer(number, data, histories).score_UN)
            measured = measure_target(data, [scorer], baselines=(), index_size=0, seed=0)
            # The intervals are not looked at; a standard deviation needs two samples.
            table = tabulate_target(data, measured, num_samples=2)[pool]["model"]
            values.append(float(table[metric]))
        return 1 + int(np.argmax(values)), values
