"""A training run as it is watched: TensorBoard events, and progress on the reporter.

Takes steps and epochs; leaves an event file. What the report shows of the curves comes from the manifest.
"""

from pathlib import Path
from typing import Any, Self

from forecart.observe import Reporter
from forecart.training.loop import Progress

_EVERY_STEPS = 10


class CurveWriter:
    """Writes scalars to a folder that `tensorboard --logdir` reads, and tells the reporter."""

    def __init__(self, folder: Path, reporter: Reporter) -> None:
        # Imported here: it takes a second, and only training needs it.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))
        self._reporter = reporter

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def step(self, progress: Progress) -> None:
        """Tells of the step; writes loss and throughput of every tenth."""
        note = f"loss {progress.loss:.3f}, {progress.rows_per_s:,.0f} rows/s"
        self._reporter.progress("training", progress.step, progress.num_steps, note)
        if progress.step % _EVERY_STEPS == 0:
            self._write("train/loss", progress.loss, progress.step)
            self._write("train/rows_per_s", progress.rows_per_s, progress.step)

    def epoch(self, entry: dict[str, Any]) -> None:
        """Tells of the epoch; writes its validation."""
        validation = entry.get("validation", {})
        measures = ", ".join(f"{name} {value:.4f}" for name, value in validation.items())
        self._reporter.say(f"epoch {entry['epoch']}: loss {entry['loss']:.4f} {measures}".rstrip())
        for name, value in validation.items():
            self._write(f"validation/{name}", value, entry["step"])

    def _write(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)
