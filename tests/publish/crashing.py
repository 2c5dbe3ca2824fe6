"""A publisher that is killed at any step of its writing, beside a reader that never stops reading.

Run as a script it imports everything once and forks: a child publishes and is killed with SIGKILL at its n-th
step on the file system, the next child publishes the same again. It prints what readers saw, as JSON.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from tests.publish.small_release import AS_OF_US, DAY_US, advertisers_of, items_of, make_parts, user_ids

from forecart.publish import publisher as publisher_module
from forecart.publish.check import read_previous
from forecart.publish.embedded import EmbeddedStore
from forecart.publish.gate import check_release
from forecart.publish.lookup import look_up
from forecart.publish.publisher import Publisher
from forecart.publish.release import read_manifest
from forecart.publish.releases import Releases

STEPS = ("fsync", "replace", "unlink", "mkdir", "rmdir", "write")
NUM_USERS = 30


def check_here(root, release_id, previous_id, *, suppressed, settings):
    """The check of a release without a process of its own, which takes a second to start."""
    releases = Releases(root)
    previous = read_previous(releases, previous_id)
    check_release(releases.open(release_id), previous, suppressed=suppressed, settings=settings)


def before_each_step(call):
    """Calls `call` before each step on the file system: after the one before it, too."""
    originals = {name: getattr(os, name) for name in STEPS}

    def wrap(original):
        def step(*args, **options):
            call()
            return original(*args, **options)

        return step

    for name, original in originals.items():
        setattr(os, name, wrap(original))
    return lambda: [setattr(os, name, original) for name, original in originals.items()]


def publish(root, generation, *, kill_at=None):
    """Publishes a generation; dies at a step where one is given."""
    num_steps = 0

    def count():
        nonlocal num_steps
        num_steps += 1
        if num_steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    if kill_at is not None:
        before_each_step(count)
    Publisher(root, EmbeddedStore(root)).publish(
        lambda suppressed: make_parts(generation, num_users=NUM_USERS)
    )


def read_everyone(root, store):
    """Returns the generation that everybody is served from; fails where one is of another, or not whole."""
    pointer = store.pointer()
    if pointer is None:
        return None
    manifest = read_manifest(root / "releases" / pointer.release_id)
    generation = (manifest.as_of_us - AS_OF_US) // DAY_US
    release = Releases(root).open(pointer.release_id)
    for number, user in enumerate(user_ids(NUM_USERS)):
        record = look_up(store, release, user, now_us=manifest.as_of_us).record
        assert record.as_of_us == manifest.as_of_us
        assert record.advertisers.index.tolist() == advertisers_of(number, generation)
        assert record.items.index.tolist() == items_of(number, generation)
    return generation


def fork(work):
    """Runs `work` in a child and returns its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def wait(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def read_on(root):
    """Reads until a file says to stop, and leaves the number of times everyone was read."""
    store, num_reads = EmbeddedStore(root), 0
    while not (root / "stop").exists():
        try:
            num_reads += read_everyone(root, store) is not None
            time.sleep(0.002)  # the publisher has one of few cores to itself now and then
        except Exception as error:
            (root / "broken").write_text(repr(error))
            raise
    (root / "reads").write_text(str(num_reads))


def kill_at_every_step(root, stride):
    """Kills at each step in turn, or every few, until a publisher outlives them; returns what it took."""
    fork_and_wait(lambda: publish(root, 0))
    generation, kill_at, killed = 1, 1, 0
    while True:
        status = wait(fork(lambda g=generation, k=kill_at: publish(root, g, kill_at=k)))
        assert status in (0, -signal.SIGKILL), status
        assert read_everyone(root, EmbeddedStore(root)) in (generation - 1, generation)
        if status == 0:
            return {"killed": killed}
        killed += 1
        fork_and_wait(lambda g=generation: publish(root, g))
        assert read_everyone(root, EmbeddedStore(root)) == generation
        assert not (root / "building").exists() or not list((root / "building").iterdir())
        generation, kill_at = generation + 1, kill_at + stride


def kill_at_random(root, times):
    """Kills from outside after a random while."""
    generator = random.Random(times)
    fork_and_wait(lambda: publish(root, 0))
    start_s = time.monotonic()
    fork_and_wait(lambda: publish(root, 1))
    whole_s = time.monotonic() - start_s
    killed = 0
    for generation in range(2, times + 2):
        child = fork(lambda g=generation: publish(root, g))
        time.sleep(generator.uniform(0, whole_s))
        os.kill(child, signal.SIGKILL)
        killed += wait(child) == -signal.SIGKILL
        assert read_everyone(root, EmbeddedStore(root)) in (generation - 1, generation)
        fork_and_wait(lambda g=generation: publish(root, g))
        assert read_everyone(root, EmbeddedStore(root)) == generation
    return {"killed": killed}


def fork_and_wait(work):
    status = wait(fork(work))
    assert status == 0, status


def main(root, times, stride):
    publisher_module.check_in_fresh_process = check_here
    # What the first publisher of a process loads, its children need not load again.
    publish(root / "warm", 0)
    read_everyone(root / "warm", EmbeddedStore(root / "warm"))
    reader = fork(lambda: read_on(root))
    try:
        found = kill_at_random(root, times) if times else kill_at_every_step(root, stride)
    finally:
        (root / "stop").touch()
        status = wait(reader)
    broken = (root / "broken").read_text() if (root / "broken").exists() else None
    found |= {"reader": status, "broken": broken, "reads": int((root / "reads").read_text() or 0)}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
