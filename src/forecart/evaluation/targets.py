"""One target measured: systems and baselines over all test cuts, tables, lists and a few people.

Takes scorers and sequences; gives the sections of `report.json` and the top-100 files. It does not know how
a scorer was made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from forecart.baselines.contract import BaselineScorer
from forecart.baselines.conversions import read_conversions
from forecart.baselines.standard import build_baselines
from forecart.errors import ConfigError
from forecart.evaluation.lists import write_lists
from forecart.evaluation.people import describe_list, pick_users
from forecart.evaluation.protocol import Evaluation, EvaluationSettings, Scorer, evaluate
from forecart.evaluation.slices import build_slices
from forecart.evaluation.tables import name_cut, summarise, tabulate
from forecart.sequences.build import Sequences
from forecart.sequences.split import LabelContract, Labels, Level, label_windows

MODEL: Final = "model"
RERANKED: Final = "reranked"
"""The list of the model that is written where it is not the best by score."""


@dataclass(frozen=True, eq=False)
class TargetData:
    """What a target is measured on.

    Attributes:
        sequences: histories and vocabularies.
        level: `advertiser` or `item`.
        contract: what counts as a positive.
        cuts_us: the test cuts.
        learn_until_us: what the weights knew; decides head, torso, tail and unseen.
        with_prior_only: whether only users with a conversion before the cut are measured.
    """

    sequences: Sequences
    level: Level
    contract: LabelContract
    cuts_us: list[int]
    learn_until_us: int
    with_prior_only: bool = True

    @property
    def num_candidates(self) -> int:
        """N."""
        return len(self.vocabulary)

    @property
    def vocabulary(self) -> Any:
        """The vocabulary of the candidates."""
        return self.sequences.advertisers if self.level == "advertiser" else self.sequences.items

    def labels(self) -> Labels:
        """Returns the labels at the cuts, every positive kept."""
        return label_windows(
            self.sequences.histories,
            cuts_us=np.array(self.cuts_us, np.int64),
            contract=self.contract.without_cap(),
            level=self.level,
            with_prior_only=self.with_prior_only,
        )

    def check_rows(self) -> None:
        """Refuses cuts at which nobody could be measured.

        Raises:
            ConfigError: no user with a conversion before a cut has one in the label window after it.
        """
        if len(self.labels()) == 0:
            cuts = ", ".join(name_cut(cut_us) for cut_us in self.cuts_us)
            raise ConfigError(
                f"measuring needs users who convert before a cut and in the {self.contract.window_days} days "
                f"after it, there are none at {cuts}: move as_of or the test_cuts, set validate_before to "
                "false, or count more event types as positives"
            )

    def settings(self, *, index_size: int = 0, seed: int = 0) -> EvaluationSettings:
        """Returns the settings of an evaluation of this target."""
        return EvaluationSettings(
            level=self.level,
            num_candidates=self.num_candidates,
            conversion_codes=self.contract.conversion_codes,
            index_size=index_size,
            seed=seed,
        )


def measure_target(
    data: TargetData,
    scorers: Sequence[Scorer],
    *,
    baselines: Sequence[str],
    index_size: int,
    seed: int,
    freeze_baselines: bool = False,
) -> Evaluation:
    """Returns the lists of the scorers and of the named baselines at every cut.

    Args:
        data: what is measured.
        scorers: systems, fitted.
        baselines: by name; they read a user's own rows up to each cut.
        index_size: as in `TargetData.settings`.
        seed: likewise.
        freeze_baselines: what they learn from everyone is of `data.learn_until_us`, like the weights of a
            model; else they are fitted anew at each cut and know more than the model.

    Raises:
        ConfigError: nobody can be measured at the cuts.
    """
    data.check_rows()
    fitted = [
        BaselineScorer(
            baseline,
            data.sequences.histories,
            data.level,
            data.num_candidates,
            data.contract.conversion_codes,
            data.learn_until_us if freeze_baselines else None,
        )
        for baseline in build_baselines(baselines)
    ]
    return evaluate(
        [*scorers, *fitted],
        histories=data.sequences.histories,
        labels=data.labels(),
        settings=data.settings(index_size=index_size, seed=seed),
    )


def tabulate_target(data: TargetData, evaluation: Evaluation, *, num_samples: int) -> dict[str, Any]:
    """Returns the section of `report.json` for this target."""
    known = read_conversions(
        data.sequences.histories,
        cut_us=data.learn_until_us,
        level=data.level,
        num_candidates=data.num_candidates,
        conversion_codes=data.contract.conversion_codes,
    )
    slices = build_slices(evaluation.labels, known)
    return summarise(evaluation, slices=slices, num_samples=num_samples)


def validation_measures(evaluation: Evaluation) -> dict[str, float]:
    """Returns Recall of the model: of the pool `all` under the metric's name, of `novel` with a prefix."""
    everything = np.ones(len(evaluation.labels.candidate), bool)
    # The intervals are not looked at; a standard deviation needs two samples.
    tables = {
        pool: tabulate(evaluation, pool, everything, num_samples=2)["model"] for pool in ("all", "novel")
    }
    chosen = {name: tables["all"][name] for name in ("recall_at_10", "recall_at_20", "recall_at_100")}
    if "recall_at_100" in tables["novel"]:
        chosen["novel_recall_at_100"] = tables["novel"]["recall_at_100"]
    return chosen


def record_target(
    path: Path,
    data: TargetData,
    evaluation: Evaluation,
    *,
    num_samples: int,
    num_examples: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Writes the lists that the figures come from; returns the figures and the lists of a few users."""
    write_lists(path, evaluation, users=data.sequences.users, candidates=data.vocabulary)
    table = tabulate_target(data, evaluation, num_samples=num_samples)
    return table, show_people(data, evaluation, num_users=num_examples, seed=seed)


def show_people(
    data: TargetData, evaluation: Evaluation, *, num_users: int, seed: int, limit: int = 20
) -> dict[str, list[dict[str, Any]]]:
    """Returns, by user id, a few users' lists as they are written, with what they converted with."""
    labels, by_name = evaluation.labels, evaluation.lists["all"]
    lists = by_name.get(RERANKED, by_name[MODEL])
    shown = {}
    for row in pick_users(labels, num_users=num_users, seed=seed):
        window = slice(int(labels.offsets[row]), int(labels.offsets[row + 1]))
        converted = labels.candidate[window]
        known = read_conversions(
            data.sequences.histories,
            cut_us=int(labels.cut_us[row]),
            level=data.level,
            num_candidates=data.num_candidates,
            conversion_codes=data.contract.conversion_codes,
        )
        repeats = known.candidate[known.user == labels.user_index[row]]
        user_id = data.sequences.users.ids(labels.user_index[row : row + 1])[0]
        shown[user_id] = describe_list(
            lists.candidate[row, :limit],
            lists.score[row, :limit],
            vocabulary=data.vocabulary,
            repeats=set(repeats.tolist()),
            converted=set(converted.tolist()),
        )
    return shown
