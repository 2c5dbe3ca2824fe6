"""Lists that a peer wrote, held to the protocol of record like any system of ours.

A peer is a script of `benchmarks/peers` run by the Python of an environment of its own: `PYTHON SCRIPT TRAIN
FOLDER --history NAME=FILE ...`, as `benchmarks/peers/protocol.py` says. Which round is reported is chosen on
validation, as for our own models.
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

from forecart import artifacts
from forecart.evaluation.targets import MODEL, TargetData, measure_target, tabulate_target
from forecart.observe import Reporter
from forecart.sequences.vocabulary import FIRST_INDEX

SHARED: Final = ("protocol.py", "indexed.py")
"""What scripts of peers stand on, beside them."""


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
        """Returns one over the place in the list; -inf for what was not listed, all of it for a user without.

        Args:
            cut_us: one of those that there are lists of.
            user_index: [B].

        Returns:
            [B, N], larger is better.
        """
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
        folder: of its lists and of nothing else that is called `lists-*`.
    """

    name: str
    command: Sequence[str]
    num_rounds: int
    folder: Path

    def lists_path(self, number: int, history: str) -> Path:
        """Returns where the lists of a round (from 1) are, of the users of a history."""
        return self.folder / f"lists-{number}-{history}.parquet"

    def learn(self, train: Path, histories: Mapping[str, Path], *, reporter: Reporter) -> None:
        """Runs the peer, where the same script has not ended well on the same files before.

        Another commit of a checkout is not noticed: its folder must go for the peer to learn again.

        Args:
            train: the sequences it learns from.
            histories: by name, the sequences whose users it lists.
            reporter: told of the stage.

        Raises:
            RuntimeError: it ended with an error.
        """
        script = Path(self.command[1])
        shared = [path for name in SHARED if (path := script.with_name(name)).exists()]
        files = [script, *shared, train, *histories.values()]
        hashes = [artifacts.hash_file(path) for path in files]
        key = artifacts.hash_value([self.command, self.num_rounds, sorted(histories), hashes])
        is_done = artifacts.is_stage_complete(self.folder, key)
        reporter.stage(f"peer: {self.name}", is_done=is_done)
        if is_done:
            return
        (self.folder / artifacts.MANIFEST).unlink(missing_ok=True)
        for stale in self.folder.glob("lists-*"):
            stale.unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        named = [word for name, path in histories.items() for word in ("--history", f"{name}={path}")]
        with self._log.open("w") as log:
            done = subprocess.run(
                [*self.command, str(train), str(self.folder), *named],
                input="\n" * self.num_rounds,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                env=os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
            )
        if done.returncode:
            raise RuntimeError(f"{self.name} ended with {done.returncode}: see {self._log}")
        artifacts.complete_stage(self.folder, key, {})

    @property
    def _log(self) -> Path:
        return self.folder / "output.log"

    def read_round(self, number: int) -> dict[str, Any]:
        """Returns the peer's own line of a round (from 1): settings, versions, what it took."""
        lines = self._log.read_text().splitlines()
        rounds: list[dict[str, Any]] = [json.loads(line) for line in lines if line.startswith('{"round"')]
        return rounds[number - 1]

    def scorer(self, number: int, data: TargetData, histories: Mapping[int, str]) -> ListScorer:
        """Returns the lists of a round as a scorer.

        Args:
            number: of the round, from 1.
            data: whose vocabularies number users and candidates.
            histories: cut -> name of the history whose lists are those of the cut.
        """
        score_UN = {
            cut_us: read_lists(pl.read_parquet(self.lists_path(number, name)), data)
            for cut_us, name in histories.items()
        }
        return ListScorer(self.name, score_UN)

    def best_round(
        self, data: TargetData, histories: Mapping[int, str], *, pool: str, metric: str
    ) -> tuple[int, list[float]]:
        """Returns the number of the round with the best metric, of equal ones the earliest, and all values.

        Args:
            data: of validation.
            histories: cut -> name of the history whose lists are those of the cut.
            pool: of the metric.
            metric: by its name in the tables.
        """
        values = []
        for number in range(1, self.num_rounds + 1):
            scorer = ListScorer(MODEL, self.scorer(number, data, histories).score_UN)
            measured = measure_target(data, [scorer], baselines=(), index_size=0, seed=0)
            # The intervals are not looked at; a standard deviation needs two samples.
            table = tabulate_target(data, measured, num_samples=2)[pool]["model"]
            values.append(float(table[metric]))
        return 1 + int(np.argmax(values)), values
