"""What to serve, as plain values that travel to the processes that serve it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from forecart.serving.settings import ServingSettings

METRICS_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Variable that names the folder in which several processes put their metrics together."""
ClockName = Literal["now", "as-of"]


@dataclass(frozen=True)
class Launch:
    """What to serve.

    Attributes:
        releases: root folder of the releases.
        store: URL of a Redis or Valkey; None for the embedded store.
        inventory: folder of the ads; None for answers without ads.
        outcomes: folder of the outcome log; None for none.
        clock: `now`, or `as-of` for a log that is not of today.
        settings: budgets and limits.
    """

    releases: Path
    store: str | None = None
    inventory: Path | None = None
    outcomes: Path | None = None
    clock: ClockName = "now"
    settings: ServingSettings = field(default_factory=ServingSettings)
