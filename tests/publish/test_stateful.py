"""R16: random publishing, rolling back, opting out, crashes, restarts and reads, against a dictionary."""

import os
import random
from dataclasses import dataclass, field

import pytest
from tests.publish.crashing import before_each_step, check_here
from tests.publish.small_release import AS_OF_US, DAY_US, advertisers_of, make_parts

from forecart.errors import NotFoundError
from forecart.publish import publisher as publisher_module
from forecart.publish.embedded import EmbeddedStore
from forecart.publish.lookup import look_up
from forecart.publish.publisher import Publisher
from forecart.publish.release import read_manifest
from forecart.publish.releases import Releases

NUM_USERS = 12
STEPS = int(os.environ.get("FORECART_STATEFUL_STEPS", "500"))
SEEDS = range(int(os.environ.get("FORECART_STATEFUL_SEEDS", "2")))


class Crash(BaseException):
    """The process is gone: nothing but `finally` runs."""


@dataclass
class Model:
    """What must be true: the served generations, the latest last, and who is suppressed."""

    served: list[int] = field(default_factory=list)
    is_back: bool = False  # the last move was a rollback
    withdrawn: set[int] = field(default_factory=set)
    suppressed: set[str] = field(default_factory=set)
    newest: int = -1


class System:
    """The publisher and a store, opened again at each restart."""

    def __init__(self, root):
        self.root = root
        self.restart()

    def restart(self):
        self.store = EmbeddedStore(self.root)
        self.publisher = Publisher(self.root, self.store)
        self.release = None

    def publish(self, generation):
        self.publisher.publish(
            lambda suppressed: make_parts(generation, num_users=NUM_USERS, suppressed=suppressed)
        )

    def read(self, user):
        pointer = self.store.pointer()
        if pointer is None:
            return None
        if self.release is None or self.release.release_id != pointer.release_id:
            self.release = Releases(self.root).open(pointer.release_id)
        return look_up(self.store, self.release, user, now_us=self.release.manifest.as_of_us)


def crash_while(work, at):
    """Runs `work` and crashes before its `at`-th step on the file system, if it has so many."""
    num_steps = 0

    def count():
        nonlocal num_steps
        num_steps += 1
        if num_steps == at:
            raise Crash

    restore = before_each_step(count)
    try:
        work()
    except Crash:
        pass
    finally:
        restore()


def check(system, model, number):
    found = system.read(f"user-{number}")
    if not model.served:
        assert found is None
    elif f"user-{number}" in model.suppressed:
        assert found.absence == "suppressed"
    elif number >= NUM_USERS:
        assert found.absence == "unknown_user"
    else:
        assert found.record.advertisers.index.tolist() == advertisers_of(number, model.served[-1])


def settle(system, model, generation):
    """After a crash either all of the move happened or none."""
    pointer = system.store.pointer()
    if pointer is None:
        return
    moment = Releases(system.root).open(pointer.release_id).manifest.as_of_us
    now = [one for one in {*model.served, generation} if make_parts(one, num_users=1).as_of_us == moment]
    assert len(now) == 1 and now[0] in ({generation, model.served[-1]} if model.served else {generation})
    if not model.served or model.served[-1] != now[0]:
        model.served.append(now[0])
        model.is_back = False


def find_before(system, model):
    """The generation to go back to: the one served before, or the next older not gone back from."""
    if not model.is_back:
        return model.served[-2] if len(model.served) > 1 else None
    moments = [read_manifest(path).as_of_us for path in (system.root / "releases").iterdir()]
    older = [(moment - AS_OF_US) // DAY_US for moment in moments]
    left = (one for one in older if one < model.served[-1] and one not in model.withdrawn)
    return max(left, default=None)


def take_step(system, model, generator):
    kind = generator.choices(
        ["read", "publish", "roll back", "opt out", "crash", "restart"], [60, 12, 6, 6, 10, 6]
    )[0]
    if kind == "publish":
        model.newest += 1
        system.publish(model.newest)
        model.served.append(model.newest)
        model.is_back = False
    elif kind == "roll back":
        before = find_before(system, model)
        try:
            system.publisher.roll_back()
            model.withdrawn.add(model.served[-1])
            model.served.append(before)
            model.is_back = True
            model.newest = max(model.served)
        except NotFoundError:
            assert before is None
    elif kind == "opt out":
        user = f"user-{generator.randrange(NUM_USERS - 4)}"
        system.store.suppress(user, "opt_out")
        model.suppressed.add(user)
    elif kind == "crash":
        model.newest += 1
        crash_while(lambda: system.publish(model.newest), generator.randrange(1, 130))
        system.restart()
        settle(system, model, model.newest)
    elif kind == "restart":
        system.restart()
    for number in generator.sample(range(NUM_USERS + 2), 3):
        check(system, model, number)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_reads_are_those_of_a_dictionary(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(publisher_module, "check_in_fresh_process", check_here)
    generator, system, model = random.Random(seed), System(tmp_path), Model()
    for _ in range(STEPS):
        take_step(system, model, generator)
    assert len(model.served) > STEPS // 20 and model.suppressed
