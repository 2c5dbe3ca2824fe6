"""Calibrations on disk: JSON of (score, probability) by source, checked before anything is valued by them."""

from pathlib import Path
from typing import Final

from forecart import artifacts
from forecart.errors import ArtifactError, DataError
from forecart.metrics.calibration import Calibration, parse_calibrations

CALIBRATIONS: Final = "calibrations.json"
"""The file's name, in a run's stage and in a release."""


def read_calibrations(path: Path) -> dict[str, Calibration]:
    """Returns the calibrations of a file, by source.

    Raises:
        ArtifactError: it is missing, or holds something else or a curve that does not rise.
    """
    try:
        return parse_calibrations(artifacts.read_json(path))
    except DataError as error:
        raise ArtifactError(f"{path} must hold calibrations, it does not: {error}") from None
