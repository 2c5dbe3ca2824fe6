"""The outcome log: what was answered, as Parquet, for rankers and off-policy estimates to learn from.

A row per ad and answer. Rows wait in memory until there are enough or they are old, and are then written as
one file, whole or not at all. Where that fails they wait on, and it is tried again after a pause that doubles
with every failure. A process that is killed loses what waits, never more than the limit.
"""

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from forecart import artifacts
from forecart.errors import ArtifactError

PARTS: Final = "outcomes-*.parquet"
_US: Final = 1_000_000
_FIRST_PAUSE_US: Final = 1 * _US
_LONGEST_PAUSE_US: Final = 60 * _US
SCHEMA: Final[dict[str, Any]] = {
    "request_id": pl.String,
    "at_us": pl.Int64,
    "release_id": pl.String,
    "user_key": pl.String,
    "position": pl.Int32,
    "ad_id": pl.String,
    "advertiser_id": pl.String,
    "source": pl.String,
    "score": pl.Float64,
    "propensity": pl.Float64,
}


@dataclass(frozen=True)
class Outcome:
    """An ad of an answer.

    Attributes:
        request_id: of the request.
        at_us: the moment, microseconds since the epoch.
        release_id: that answered; empty for none.
        user_key: a pseudonym, never the id; None for nobody.
        position: in the answer, from 1.
        ad_id: of the ad.
        advertiser_id: whose.
        source: where the candidate came from.
        score: of the candidate.
        propensity: probability that this ad stood here; 1 for an order without chance.
    """

    request_id: str
    at_us: int
    release_id: str
    user_key: str | None
    position: int
    ad_id: str
    advertiser_id: str
    source: str
    score: float
    propensity: float = 1.0


class OutcomeLog:
    """The log of one process, in a folder that several may share.

    Args:
        folder: of the files.
        rows_per_file: written when so many wait,
        max_age_s: or when the oldest has waited so long.
        max_waiting: beyond so many (where the disk refuses) rows are dropped, and counted.
    """

    def __init__(
        self, folder: Path, *, rows_per_file: int = 10_000, max_age_s: float = 60, max_waiting: int = 100_000
    ) -> None:
        self.folder, self.num_dropped, self.num_failures = folder, 0, 0
        self._rows_per_file, self._max_age_us, self._max_waiting = rows_per_file, max_age_s * _US, max_waiting
        self._waiting: list[Outcome] = []
        self._pause_us, self._failed_us = 0, 0

    def add(self, outcomes: Sequence[Outcome], *, now_us: int) -> None:
        """Takes the rows of an answer, or none; writes what waits where that is due, if the disk lets it."""
        room = self._max_waiting - len(self._waiting)
        self._waiting.extend(outcomes[:room])
        self.num_dropped += max(len(outcomes) - room, 0)
        if not self._is_due(now_us):
            return
        try:
            self.flush()
        except Exception:  # whatever it is, they wait on; what does not fit is counted
            self.num_failures += 1
            self._failed_us = now_us
            self._pause_us = min(max(2 * self._pause_us, _FIRST_PAUSE_US), _LONGEST_PAUSE_US)

    def flush(self) -> None:
        """Writes everything that waits.

        Raises:
            OSError: the disk refused; the rows wait on.
        """
        if not self._waiting:
            return
        rows = pl.DataFrame([asdict(one) for one in self._waiting], schema=SCHEMA)
        name = f"outcomes-{self._waiting[0].at_us:020d}-{secrets.token_hex(4)}.parquet"
        try:
            artifacts.write_parquet(self.folder / name, rows)
        except pl.exceptions.PolarsError as error:  # how polars says that the disk is full
            raise OSError(f"{self.folder} cannot be written: {error}") from error
        self._waiting, self._pause_us = [], 0

    def _is_due(self, now_us: int) -> bool:
        # A clock that was set back ends a pause.
        is_paused = 0 <= now_us - self._failed_us < self._pause_us
        if not self._waiting or is_paused:
            return False
        return (
            len(self._waiting) >= self._rows_per_file or now_us - self._waiting[0].at_us >= self._max_age_us
        )


def read_outcomes(folder: Path) -> pl.DataFrame:
    """Returns all rows of a log, by time, request and position.

    Raises:
        ArtifactError: a file is no part of an outcome log.
    """
    parts = sorted(folder.glob(PARTS))
    if not parts:
        return pl.DataFrame(schema=SCHEMA)
    try:
        rows = pl.concat([pl.read_parquet(path) for path in parts])
        return rows.select(list(SCHEMA)).sort("at_us", "request_id", "position")
    except pl.exceptions.PolarsError as error:
        raise ArtifactError(f"{folder} must hold an outcome log, it does not: {error}") from None
