"""The engine that a name on the command line means."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from forecart.engine.contract import Engine
from forecart.engine.local import LocalEngine
from forecart.engine.ray import opened_ray
from forecart.errors import ConfigError

EngineName = Literal["local", "ray"]


@contextmanager
def opened_engine(
    name: EngineName = "local", *, num_workers: int | None = None, address: str | None = None
) -> Iterator[Engine]:
    """Gives an engine.

    Args:
        name: which.
        num_workers: tasks at once; 0 for as many as there are cores. When not given, 1 on this machine and
            every core of a cluster.
        address: of a Ray cluster.

    Raises:
        ConfigError: an address is given and the engine is not Ray.
        EngineError: Ray is not installed, or there is no cluster at the address.
    """
    if name == "ray":
        with opened_ray(num_workers=num_workers or None, address=address) as cluster:
            yield cluster
        return
    if address is not None:
        raise ConfigError(f"an address of a Ray cluster goes with the engine ray, {name} was asked for")
    engine = LocalEngine(len(os.sched_getaffinity(0)) if num_workers == 0 else num_workers or 1)
    try:
        yield engine
    finally:
        engine.close()
