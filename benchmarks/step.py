"""What a training step costs and why: `python -m benchmarks.step FILE --name ml-1m`.

Takes steps of the default sequence model (`forecart.bench`) on FILE, records the shapes of their matrix
products, then times each product alone, on operands of the same shape and precision, in the same run. The
share is what the products alone take over what the step takes, with and without those inside attention (of
which a causal row needs half: half of them count). Prints it with tokens a second, the padding of attention,
the rate of large products in float32 and bfloat16, and the operations that take most; writes
`results/step-NAME.json`.
"""

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.figures import RESULTS, build_parser
from forecart import artifacts
from forecart.bench import (
    BEFORE_LAST,
    MODEL,
    TRAINING,
    build_config,
    peak_memory_gb,
    read_sequences,
    write_events,
)
from forecart.evaluation.provenance import read_provenance
from forecart.model.layers import PackedLayout
from forecart.model.tensors import TowerBatch, to_tensors
from forecart.training.loop import Trainer, pick_device, pick_tower_dtype
from forecart.training.state import TrainingState
from forecart.workflow import Workflow

PRODUCTS: Final = {"aten::mm": 0, "aten::addmm": 1, "aten::addmm_": 1, "aten::bmm": 0}
"""Operations that multiply matrices, and which argument is the first of the two."""
_ATTENTION: Final = "aten::_scaled_dot_product_flash_attention_for_cpu"
ATTENTION: Final = {_ATTENTION: (0, 2), f"{_ATTENTION}_backward": (1, 5)}
"""Fused attention: which argument holds the queries, and how many products of their shape it takes."""
CAUSAL_SHARE: Final = 0.5
DTYPES: Final = (torch.float32, torch.bfloat16)
WARM_UP, STEPS, REPEATS = 5, 20, 5
Shape = tuple[tuple[int, ...], tuple[int, ...]]


def median_s(call: Callable[[], Any], *, at_least_s: float = 0.1) -> float:
    """Returns the median CPU-seconds of a call, over enough calls to fill some time."""
    call()
    taken: list[float] = []
    while sum(taken) < at_least_s or len(taken) < REPEATS:
        started = time.process_time()
        call()
        taken.append(time.process_time() - started)
    return statistics.median(taken)


def count_products(take_step: Callable[[], Any]) -> Counter[Shape]:
    """Returns how often a step multiplies matrices of which shapes."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        take_step()
    counted: Counter[Shape] = Counter()
    for event in profiled.key_averages(group_by_input_shape=True):
        if event.key in PRODUCTS:
            first = PRODUCTS[event.key]
            left, right = event.input_shapes[first : first + 2]
            counted[tuple(left), tuple(right)] += event.count
        elif event.key in ATTENTION:
            place, num_products = ATTENTION[event.key]
            num_rows, num_heads, length, width = event.input_shapes[place]
            rows = num_rows * num_heads
            counted[(rows, length, width), (rows, width, length)] += num_products * event.count
    return counted


def time_products(counted: Counter[Shape], dtype: torch.dtype) -> tuple[float, float]:
    """Returns the CPU-seconds that these products take alone: all of them, and those outside attention."""
    outside = inside = 0.0
    for (left, right), count in counted.items():
        a, b = torch.randn(left, dtype=dtype), torch.randn(right, dtype=dtype)
        taken = count * median_s(lambda a=a, b=b: a @ b, at_least_s=0.02)
        if len(left) == 2:
            outside += taken
        else:
            inside += CAUSAL_SHARE * taken
    return outside + inside, outside


def square_gflops(dtype: torch.dtype) -> float:
    """Returns the rate of a product of two large square matrices."""
    square = torch.randn(1024, 1024).to(dtype)
    return 2 * 1024**3 / median_s(lambda: square @ square) / 1e9


def top_operations(take_step: Callable[[], Any], *, num: int) -> dict[str, float]:
    """Returns the share of a step's time that operations take by themselves, the largest first."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        take_step()
    averages = profiled.key_averages()
    total = sum(event.self_cpu_time_total for event in averages)
    largest = sorted(averages, key=lambda event: -event.self_cpu_time_total)[:num]
    return {event.key: event.self_cpu_time_total / total for event in largest}


def padding_share(batch: TowerBatch) -> float:
    """Returns the share of attention's slots that hold no event; nothing else pads."""
    num = len(batch.offsets) - 1
    offsets = batch.offsets + torch.arange(num + 1)  # with the token in front of each history
    return 1 - float(offsets[-1]) / PackedLayout.from_offsets(offsets).num_slots


def measure(trainer: Trainer) -> dict[str, Any]:
    """Returns the figures of some steps."""
    device = pick_device(trainer.settings)
    trainer.model.tower_dtype = pick_tower_dtype(trainer.settings, device)
    state = TrainingState(trainer.model, trainer.settings)
    raw = list(islice(trainer.examples.batches(0), WARM_UP + STEPS))
    if len(raw) < WARM_UP + STEPS:
        raise SystemExit(
            f"{WARM_UP + STEPS} steps are taken, an epoch of these sequences has {len(raw)}: lower batch_rows"
        )
    batches = [to_tensors(batch, device) for batch in raw]
    for batch in batches[:WARM_UP]:
        trainer.take_step(state, batch)
    step_s: list[float] = []
    shares: list[list[float]] = []
    for number, batch in enumerate(batches[WARM_UP:]):
        started = time.process_time()
        trainer.take_step(state, batch)
        step_s.append(time.process_time() - started)
        if number % (STEPS // 4) == 0:  # in turns, so that a busy machine slows both
            counted = count_products(lambda batch=batch: trainer.take_step(state, batch))
            alone = time_products(counted, trainer.model.tower_dtype)
            shares.append([seconds / step_s[-1] for seconds in alone])
    seconds = statistics.median(step_s)
    num_events = statistics.mean(int(batch.offsets[-1]) for batch in batches)
    return {
        "step_s": seconds,
        "share_of_products": statistics.median(whole for whole, _ in shares),
        "share_of_products_outside_attention": statistics.median(outside for _, outside in shares),
        "events_per_s": num_events / seconds,
        "targets_per_s": statistics.mean(len(batch.positive_P) for batch in batches) / seconds,
        "padding_share": statistics.mean(padding_share(batch) for batch in batches),
        "gflops_of_1024_square": {str(dtype): square_gflops(dtype) for dtype in DTYPES},
        "precision": str(trainer.model.tower_dtype),
        "num_threads": torch.get_num_threads(),
        "peak_memory_gb": peak_memory_gb(),
        "top_operations": top_operations(lambda: trainer.take_step(state, batches[-1]), num=12),
    }


def main() -> None:
    """Runs the command line."""
    parser = build_parser(__doc__, seeds=1, model=MODEL, training=TRAINING)
    parser.add_argument("file", type=Path)
    parser.add_argument("--name", required=True, help="of the data set")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures are written")
    asked: argparse.Namespace = parser.parse_args()
    if not asked.file.exists():
        print(f"skipped: there are no sequences at {asked.file}")
        return
    torch.set_num_threads(1)
    folder = asked.output or Path("runs") / f"step-{asked.name}"
    write_events(read_sequences(asked.file), folder / "log.parquet")
    settings = {"model": asked.model, "training": asked.training}
    config = build_config(folder / "log.parquet", name=asked.name, settings=settings, cut=BEFORE_LAST)
    workflow = Workflow(config, folder)
    workflow.events()
    workflow.sequences()
    trainer = workflow.training_task("advertiser").build_trainer(folder / "checkpoints")
    result = {"provenance": read_provenance(), **measure(trainer)}
    artifacts.write_json(asked.results / f"step-{asked.name}.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
