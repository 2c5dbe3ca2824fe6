"""What a finished run hands to a release: its candidate tables as records, block by block.

Takes the folder of a run; gives `ReleaseParts`. Who is suppressed is left out here, before anything of them
is written. The tables are read part by part, so that a population need not fit into memory.
"""

from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from forecart import artifacts, columns
from forecart.errors import ArtifactError
from forecart.metrics.calibration import Calibration
from forecart.publish.calibrations import CALIBRATIONS, read_calibrations
from forecart.publish.records import RecordLayout
from forecart.publish.release import ReleaseParts
from forecart.publish.suppression import suppression_key
from forecart.retrieval.candidate_files import FALLBACK, PRIOR, VECTORS, part_name, user_vectors_name
from forecart.sequences.split import ID_COLUMN, PLURAL, SECTION, Level
from forecart.sequences.vocabulary import FIRST_INDEX, Vocabulary

_WEIGHTS: Final = "weights.safetensors"
_METRICS: Final = ("recall_at_10", "recall_at_20", "recall_at_100", "p90_coverage")
_SERVED: Final = "model-0"
_RERANKED: Final = "reranked"


def read_run(
    run: Path, *, day: Path | None = None, suppressed: Set[str] = frozenset(), ttl_s: int
) -> ReleaseParts:
    """Returns the parts of a release from the folder of a finished run.

    Args:
        run: with candidates of one level or both.
        day: the folder of a day of it, whose candidates are published in place of the run's own.
        suppressed: keys of who is left out (`suppression_key`).
        ttl_s: how long a record is served.

    Raises:
        ArtifactError: the run has no candidates, its levels are of different moments, or its calibrations
            do not rise or are those of other models.
    """
    made = day or run
    levels: list[Level] = [level for level in PLURAL if (_folder(made, level) / artifacts.MANIFEST).is_file()]
    if not levels:
        raise ArtifactError(f"{made} has no candidates to publish: finish it with `forecart run CONFIG`")
    tables = {level: CandidateTable.open(made, level) for level in levels}
    moments = {table.facts["as_of_us"] for table in tables.values()}
    if len(moments) > 1:
        raise ArtifactError(f"all candidates of {made} must be of one moment, they are not: run it again")
    vocabularies = made / "sequences" / "vocabularies"
    users = Vocabulary.load(vocabularies / "users")
    everyone = users.id_series(np.arange(FIRST_INDEX, len(users)))
    is_kept = _find_kept(everyone, suppressed)
    items = tables.get("item")
    calibration_key, calibrations = _read_calibrations(run, levels)
    layout = RecordLayout(
        num_advertisers=tables["advertiser"].facts["top_k"] if "advertiser" in tables else 0,
        num_items=items.facts["top_k"] if items else 0,
        width=items.vectors.shape[1] if items else 0,
    )
    return ReleaseParts(
        as_of_us=moments.pop(),
        embedding_space_id=artifacts.hash_value([_hash_weights(run, level) for level in levels]),
        layout=layout,
        users=Vocabulary.build(everyone.filter(pl.Series(is_kept, dtype=pl.Boolean))),
        advertisers=Vocabulary.load(vocabularies / "advertisers"),
        items=Vocabulary.load(vocabularies / "items"),
        blocks=_read_blocks(tables, layout, is_kept),
        fallback={PLURAL[level]: _fallback(tables[level]) if level in tables else {} for level in PLURAL},
        metrics=_read_metrics(run, levels),
        source={
            "suppressed": artifacts.hash_value(sorted(suppressed)),
            **{PLURAL[level]: table.facts["key"] for level, table in tables.items()},
            **({"calibration": calibration_key} if calibration_key is not None else {}),
        },
        ttl_s=ttl_s,
        item_vectors=(items.vectors, items.prior) if items else None,
        calibrations=calibrations,
    )


@dataclass(frozen=True, eq=False)
class CandidateTable:
    """The finished candidate table of a level.

    Attributes:
        folder: of its parts.
        level: of its candidates.
        facts: its manifest.
        users: vocabulary of the run.
        candidates: vocabulary of the level.
    """

    folder: Path
    level: Level
    facts: dict[str, Any]
    users: Vocabulary
    candidates: Vocabulary

    @classmethod
    def open(cls, run: Path, level: Level) -> "CandidateTable":
        """Opens the table of a run."""
        folder, vocabularies = _folder(run, level), run / "sequences" / "vocabularies"
        names = {"advertiser": "advertisers", "item": "items"}
        return cls(
            folder,
            level,
            artifacts.read_json(folder / artifacts.MANIFEST),
            Vocabulary.load(vocabularies / "users"),
            Vocabulary.load(vocabularies / names[level]),
        )

    @cached_property
    def vectors(self) -> npt.NDArray[np.float16]:
        """[N, D] unit vectors of the candidates."""
        return artifacts.read_npy(self.folder / VECTORS)

    @cached_property
    def prior(self) -> npt.NDArray[np.float32]:
        """[N], what is added to the product of the vectors."""
        return artifacts.read_npy(self.folder / PRIOR)

    def fill(self, records: npt.NDArray[Any], number: int) -> None:
        """Writes the lists of a part into records, one for each of its users in the order of the ids."""
        kind, top_k = self.level, self.facts["top_k"]
        part = pl.read_parquet(self.folder / part_name(number))
        first = FIRST_INDEX + number * self.facts["users_per_part"]
        row = self.users.index(part[columns.USER_ID]) - first
        place = part[columns.RANK].to_numpy() - 1
        if len(row) and (row.min() < 0 or row.max() >= len(records) or place.max() >= top_k):
            raise ArtifactError(f"{self.folder} must list users in their order, it does not: run it again")
        records[f"{kind}_index"][row, place] = self.candidates.index(part[ID_COLUMN[self.level]])
        records[f"{kind}_score"][row, place] = part[columns.SCORE].to_numpy()
        records[f"is_repeat_{kind}"][row, place] = part[columns.IS_REPEAT].to_numpy()
        records[f"num_{kind}s"] = np.bincount(row, minlength=len(records))
        # A list that a day carried is as old as it is, and a record as its older list.
        as_of_us = part[columns.AS_OF].dt.timestamp("us").to_numpy()
        np.minimum.at(records["as_of_us"], row, as_of_us)
        if kind == "item":
            records["vector"] = artifacts.read_npy(self.folder / user_vectors_name(number))


def _read_blocks(
    tables: dict[Level, CandidateTable], layout: RecordLayout, is_kept: npt.NDArray[np.bool_]
) -> Iterator[npt.NDArray[Any]]:
    per_part = {table.facts["users_per_part"] for table in tables.values()}
    if len(per_part) > 1:
        raise ArtifactError("parts of both levels must hold the same users, they do not: run it again")
    step = per_part.pop()
    as_of_us = next(iter(tables.values())).facts["as_of_us"]
    for number, first in enumerate(range(0, len(is_kept), step)):
        records = layout.empty(min(step, len(is_kept) - first))
        records["as_of_us"] = as_of_us
        for table in tables.values():
            table.fill(records, number)
        yield records[is_kept[first : first + step]]


def _find_kept(everyone: pl.Series, suppressed: Set[str]) -> npt.NDArray[np.bool_]:
    if not suppressed:
        return np.ones(len(everyone), np.bool_)
    return np.fromiter(
        (suppression_key(user) not in suppressed for user in everyone), np.bool_, len(everyone)
    )


def _fallback(table: CandidateTable) -> dict[str, list[tuple[int, float]]]:
    listed = pl.read_parquet(table.folder / FALLBACK)
    index = pl.Series("index", table.candidates.index(listed[ID_COLUMN[table.level]]))
    by_country = listed.select(columns.COUNTRY, columns.SCORE, index).partition_by(
        columns.COUNTRY, maintain_order=True, as_dict=True, include_key=False
    )
    return {country: rows.select("index", columns.SCORE).rows() for (country,), rows in by_country.items()}


def _read_metrics(run: Path, levels: list[Level]) -> dict[str, float]:
    path = run / "evaluation" / "report.json"
    if not path.is_file():
        return {}
    report = artifacts.read_json(path)
    tables = {level: report.get(SECTION[level], {}).get("all", {}) for level in levels}
    # Of the lists that are published: those chosen anew, where they are.
    found = {
        level: table.get("baselines", {}).get(_RERANKED) or table.get("model", {})
        for level, table in tables.items()
    }
    return {
        f"{SECTION[level]}.{name}": float(values[name])
        for level, values in found.items()
        for name in _METRICS
        if name in values
    }


def _read_calibrations(run: Path, levels: list[Level]) -> tuple[str | None, dict[str, Calibration]]:
    """Returns the key of the calibrations and themselves; None and none where the run did not fit any."""
    path = run / "calibration" / artifacts.MANIFEST
    if not path.is_file():
        return None, {}
    facts = artifacts.read_json(path)
    for level in levels:
        model = artifacts.read_json(_model_folder(run, level) / artifacts.MANIFEST)
        if facts["model_keys"].get(PLURAL[level]) != model["key"]:
            raise ArtifactError(f"the calibration of {run} must be of its models, it is not: run it again")
    return facts["key"], read_calibrations(path.parent / CALIBRATIONS)


def _hash_weights(run: Path, level: Level) -> str:
    return artifacts.stage_files(_model_folder(run, level))[_WEIGHTS]


def _model_folder(run: Path, level: Level) -> Path:
    return run / "training" / SECTION[level] / _SERVED


def _folder(run: Path, level: Level) -> Path:
    return run / "candidates" / PLURAL[level]
