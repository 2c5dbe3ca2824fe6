"""The curves of a training run as TensorBoard events.

Takes progress and epochs; leaves an event file. It is for watching a run: what the report shows of the curves
comes from the manifest.
"""

from pathlib import Path
from typing import Any, Self

from forecart.training.loop import Progress

_EVERY_STEPS = 10


class CurveWriter:
    """Writes scalars to a folder that `tensorboard --logdir` reads."""

    def __init__(self, folder: Path) -> None:
        # Imported here: it takes a second, and only training needs it.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def step(self, progress: Progress) -> None:
        """Writes loss and throughput of every tenth step."""
        if progress.step % _EVERY_STEPS == 0:
            self._write("train/loss", progress.loss, progress.step)
            self._write("train/rows_per_s", progress.rows_per_s, progress.step)

    def epoch(self, entry: dict[str, Any]) -> None:
        """Writes the validation of an epoch."""
        for name, value in entry.get("validation", {}).items():
            self._write(f"validation/{name}", value, entry["step"])

    def _write(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)
