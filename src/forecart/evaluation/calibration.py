"""How likely is a conversion at a score? Fitted on one label window, held against those of later cuts.

Takes a scorer and sequences; gives a curve for the scores of a level and, at later cuts, a table of what it
predicted and what came. The curve is fitted on the window right after what the weights learned: the one that
validation keeps out of training or, without validation, the first one after `as_of`. The pairs are those that
would be served: everyone of whom an event had arrived before the cut (a sample, where there are many), with
the eligible candidates of the top K of that moment. Who converted with nothing counts, with a list of
candidates that were not converted with; what is not listed does not count. So a probability is that of "this
user converts with this listed candidate in the label window", and not of users known to convert.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from forecart import artifacts
from forecart.errors import DataError
from forecart.evaluation.protocol import Scorer, find_reranker
from forecart.evaluation.tables import name_cut
from forecart.evaluation.targets import TargetData
from forecart.metrics.calibration import (
    Calibration,
    describe_calibrations,
    fit_calibration,
    measure_reliability,
)
from forecart.metrics.ranking import NO_CANDIDATE, rank_top_k
from forecart.retrieval.diversity import choose_lists
from forecart.retrieval.top_k import TopK
from forecart.sequences.split import PLURAL, SECTION, Level, label_windows
from forecart.sequences.vocabulary import FIRST_INDEX

CALIBRATION_FORMAT: Final = 1
"""Goes into the key of the stage: raised when its files or what they mean change."""
CALIBRATIONS: Final = "calibrations.json"
RELIABILITY: Final = "reliability.json"
MAX_USERS: Final = 20_000
"""Users whose lists are held against their windows, at each cut."""
_BATCH_USERS: Final = 128


@dataclass(frozen=True, eq=False)
class ListedPairs:
    """Users and the candidates that are listed for them at some cuts, [n] each.

    Attributes:
        user: user_index.
        score: of the candidate.
        converted: whether the user converted with it in the label window.
    """

    user: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    converted: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class CalibrationTask:
    """What a level's curve is fitted on and held against.

    Attributes:
        data: sequences, level, label contract, test cuts, and `learn_until_us`, where the curve is fitted.
        scorer: of the model that is served.
        eligible_at: returns which candidates may be listed at a moment, [N].
        top_k: K, candidates of a list.
        known_before_us: only conversions that arrived before this moment are fitted on: that of the lists.
        seed: of the sample of users and of the intervals.
    """

    data: TargetData
    scorer: Scorer
    eligible_at: Callable[[int], npt.NDArray[np.bool_]]
    top_k: int
    known_before_us: int
    seed: int

    def fit(self) -> tuple[Calibration, dict[str, Any]]:
        """Returns the curve, and the users, pairs and conversions that it stands on.

        Raises:
            DataError: nobody has a history before the cut.
        """
        cut_us = self.data.learn_until_us
        pairs = self.list_pairs([cut_us], known_before_us=self.known_before_us)
        if len(pairs.score) == 0:
            raise DataError(
                f"a calibration needs users with a history before {name_cut(cut_us)}, there are none: "
                "move as_of"
            )
        return fit_calibration(pairs.score, pairs.converted), _describe(pairs, [cut_us])

    def measure(self, calibration: Calibration) -> dict[str, Any] | None:
        """Returns what the curve predicts at later cuts and what came, as plain values; None without any.

        A cut is later where the window that the curve was fitted on is over.
        """
        fitted_until_us = self.data.learn_until_us + self.data.contract.span_us
        cuts_us = [cut_us for cut_us in self.data.cuts_us if cut_us >= fitted_until_us]
        pairs = self.list_pairs(cuts_us)
        if len(pairs.score) == 0:
            return None
        probability = calibration.apply(pairs.score)
        found = measure_reliability(probability, pairs.converted, pairs.user, seed=self.seed)
        return {
            **_describe(pairs, cuts_us),
            "predicted_conversions": float(probability.sum()),
            "expected_calibration_error": found.expected_calibration_error,
            "bins": [
                dict(zip(("predicted", "observed", "ci_low", "ci_high", "num_pairs"), row, strict=True))
                for row in zip(
                    found.predicted.tolist(),
                    found.observed.tolist(),
                    found.ci_low.tolist(),
                    found.ci_high.tolist(),
                    found.num_pairs.tolist(),
                    strict=True,
                )
            ],
        }

    def list_pairs(self, cuts_us: Sequence[int], *, known_before_us: int | None = None) -> ListedPairs:
        """Returns the listed pairs at cuts, one cut after the other."""
        parts = [part for cut_us in cuts_us for part in self._list_at(cut_us, known_before_us)]
        nothing = ListedPairs(np.empty(0, np.int64), np.empty(0), np.empty(0, np.bool_))
        return ListedPairs(
            *[
                np.concatenate([getattr(part, name) for part in (nothing, *parts)])
                for name in ("user", "score", "converted")
            ]
        )

    def _list_at(self, cut_us: int, known_before_us: int | None) -> Iterator[ListedPairs]:
        data, is_eligible_N = self.data, self.eligible_at(cut_us)
        labels = label_windows(
            data.sequences.histories,
            cuts_us=[cut_us],
            contract=data.contract.without_cap(),
            level=data.level,
            known_before_us=known_before_us,
            with_prior_only=False,
        )
        keys = labels.user_index[labels.rows()].astype(np.int64) * data.num_candidates + labels.candidate
        users, reranker = self._users_at(cut_us), find_reranker(self.scorer, cut_us)
        for first in range(0, len(users), _BATCH_USERS):
            batch = users[first : first + _BATCH_USERS]
            score_BN = np.array(self.scorer.score_at(cut_us, batch), np.float32)
            score_BN[:, ~is_eligible_N] = -np.inf
            score_BN[:, :FIRST_INDEX] = -np.inf
            listed = choose_lists(partial(_search, score_BN), reranker, top_k=self.top_k)
            row, rank = np.nonzero(listed.candidate != NO_CANDIDATE)
            user = batch[row].astype(np.int64)
            is_hit = np.isin(user * data.num_candidates + listed.candidate[row, rank], keys)
            yield ListedPairs(user, listed.score[row, rank].astype(np.float64), is_hit)

    def _users_at(self, cut_us: int) -> npt.NDArray[np.int32]:
        """Returns users of whom an event had arrived before the cut, a sample where there are many."""
        histories = self.data.sequences.histories
        users = np.unique(histories.event_users()[histories.arrived_us < cut_us])
        users = users[users >= FIRST_INDEX]
        if len(users) > MAX_USERS:
            generator = np.random.default_rng([self.seed, abs(cut_us)])
            users = np.sort(generator.choice(users, MAX_USERS, replace=False))
        return users.astype(np.int32)


def _search(score_BN: npt.NDArray[np.float32], num: int) -> TopK:
    return TopK(*rank_top_k(score_BN, k=num))


def _describe(pairs: ListedPairs, cuts_us: Sequence[int]) -> dict[str, Any]:
    return {
        "cuts": [name_cut(cut_us) for cut_us in cuts_us],
        "num_users": len(np.unique(pairs.user)),
        "num_pairs": len(pairs.score),
        "num_conversions": int(pairs.converted.sum()),
    }


def write_calibration(folder: Path, tasks: Mapping[Level, CalibrationTask]) -> None:
    """Writes the curve of each level, by what its candidates are called, and how far each held."""
    calibrations, reliability = {}, {}
    for level, task in tasks.items():
        calibration, counts = task.fit()
        calibrations[PLURAL[level]] = calibration
        reliability[SECTION[level]] = {"fitted": counts, "test": task.measure(calibration)}
    artifacts.write_json(folder / CALIBRATIONS, describe_calibrations(calibrations))
    artifacts.write_json(folder / RELIABILITY, reliability)
