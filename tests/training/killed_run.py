"""Trains once left alone, and once for each scenario: `python killed_run.py FOLDER THREADS SCENARIOS`.

SCENARIOS is a JSON object of lists of fates, one for each attempt: `["step", n]` dies after its n-th step,
`["fsync", n]` at its n-th flush to the disk while it writes a checkpoint, `["rmdir", n]` while it removes an
old one, `["time", x]` is killed from outside after x times the seconds of the run left alone, if it lasts so
long. `["damage", file, how]` spoils a file of the newest checkpoint before the next attempt. A scenario named
"stored..." reads items from a store. The last attempt is left alone. All deaths are SIGKILL. Attempts are
forks of this process, which has loaded torch and never used it. Prints what a test needs as JSON.
"""

import hashlib
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # the first step of an optimiser imports it: once here, not in each fork

from forecart.model.settings import ModelSettings
from forecart.training import checkpoint
from forecart.training.loop import Trainer
from forecart.training.objective import Objective
from forecart.training.settings import LossSettings, TrainingSettings
from planted_world import DAY, START, World, cycle_world

CUTS = START + DAY * np.arange(8, 14)


def build_trainer(folder, on_step):
    world = cycle_world(num_users=150)
    settings = TrainingSettings(
        loss=LossSettings(kind="sampled", negatives="mixed", num_negatives=8),
        num_epochs=4,
        batch_rows=150,
        warmup_steps=3,
        checkpoint_every_steps=2,
        patience=1,
        device="cpu",
    )
    is_stored = folder.name.startswith("stored")
    level = "item" if is_stored else "advertiser"
    if is_stored:
        items = replace(world.histories, item=world.histories.advertiser)
        world = World(items, world.num_advertisers, world.num_advertisers)
    examples = world.examples(CUTS, settings, level=level, length=8, is_stored=is_stored)
    model = world.model(
        ModelSettings(width=32, num_layers=2, history_length=8, id_rows=64, dropout=0.2), level=level
    )
    objective = Objective.build(
        settings.loss, examples.labels.candidate, model.num_candidates, is_sparse=is_stored
    )

    def validate(model):
        # Falls from epoch to epoch, so that the best weights are not the last ones.
        return {"recall_at_10": -float(model.candidate_tower.linear.weight.detach().square().sum())}

    store = world.store(folder / "store") if is_stored else None
    return Trainer(
        model, examples, objective, settings, folder, 0, validate=validate, on_step=on_step, store=store
    )


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_in(name, number):
    """Dies in the middle of the `number`-th call of a function of `os`."""
    real, calls = getattr(os, name), []

    def deadly(*args, **options):
        calls.append(args)
        if len(calls) == number:
            die()
        return real(*args, **options)

    setattr(os, name, deadly)


def attempt(folder, fate, num_threads):
    """One process: trains on from where the last one died, and meets its fate."""
    torch.set_num_threads(num_threads)
    started = []

    def on_step(progress):
        if not started:
            with (folder / "starts.txt").open("a") as file:
                file.write(f"{progress.step - 1}\n")
        started.append(progress.step)
        if fate[0] == "step" and len(started) == fate[1]:
            die()

    if fate[0] in ("fsync", "rmdir"):
        die_in(fate[0], fate[1])
    trainer = build_trainer(folder, on_step)
    curve = trainer.run()
    digest = hashlib.sha256()
    for name, value in sorted(trainer.model.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    losses = [[entry["loss"], entry["validation"]] for entry in curve]
    (folder / "result.json").write_text(json.dumps({"weights": digest.hexdigest(), "curve": losses}))


def run_attempt(folder, fate, num_threads, alone_s):
    """Forks an attempt; says whether it was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            attempt(folder, fate, num_threads)
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
    if fate[0] == "time":
        time.sleep(fate[1] * alone_s)
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise SystemExit(f"an attempt failed with {status}, its fate was {fate}")
    return status == -signal.SIGKILL


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "remove":
        path.unlink()
    elif how == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[2 * len(content) // 3] ^= 1
        path.write_bytes(content)


def play(folder, fates, num_threads, alone_s):
    """One scenario: returns how the run ended and what happened on the way."""
    folder.mkdir(parents=True)
    facts = {"kills": 0, "fallbacks": []}
    for fate in [*fates, ["none"]]:
        if fate[0] == "damage":
            newest, before = sorted(folder.glob("checkpoint-*"), reverse=True)[:2]
            damage(newest / fate[1], fate[2])
            expected = int(before.name.removeprefix("checkpoint-"))
            facts["fallbacks"].append([checkpoint.load_newest_checkpoint(folder).step, expected])
        else:
            facts["kills"] += run_attempt(folder, fate, num_threads, alone_s)
    facts["starts"] = [int(line) for line in (folder / "starts.txt").read_text().split()]
    return facts | json.loads((folder / "result.json").read_text())


def main(folder, num_threads, scenarios):
    begin_s = time.monotonic()
    facts = {"alone": play(folder / "alone", [], num_threads, 0.0)}
    alone_s = time.monotonic() - begin_s
    return facts | {
        name: play(folder / name, fates, num_threads, alone_s) for name, fates in scenarios.items()
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))))
