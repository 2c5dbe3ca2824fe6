"""Vectors for `benchmarks.retrieval_index`: clusters of very different sizes, made from a seed."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

WIDTH: Final = 64
VECTORS_A_CLUSTER: Final = 200
ITEM_SPREAD: Final = 0.08
USER_SPREAD: Final = 0.1
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class World:
    """Unit vectors of items and users.

    Attributes:
        vector_ND: of items.
        cluster_N: of items.
        user_BD: each near an item of its own, its target.
        target_B: place of the target.
    """

    vector_ND: Floats
    cluster_N: npt.NDArray[np.int64]
    user_BD: Floats
    target_B: npt.NDArray[np.int64]


def make_world(num: int, num_users: int, *, seed: int = 0) -> World:
    """Makes items around directions, the largest clusters a hundred times the smallest, and users."""
    generator = np.random.default_rng(seed)
    num_clusters = max(num // VECTORS_A_CLUSTER, 2)
    direction_CD = _unit(generator.standard_normal((num_clusters, WIDTH), dtype=np.float32))
    weight_C = generator.zipf(1.5, num_clusters).clip(max=100)
    cluster_N = generator.choice(num_clusters, num, p=weight_C / weight_C.sum())
    noise_ND = generator.standard_normal((num, WIDTH), dtype=np.float32)
    vector_ND = _unit(direction_CD[cluster_N] + ITEM_SPREAD * noise_ND)
    target_B = generator.permutation(num)[:num_users]
    noise_BD = generator.standard_normal((num_users, WIDTH), dtype=np.float32)
    return World(vector_ND, cluster_N, _unit(vector_ND[target_B] + USER_SPREAD * noise_BD), target_B)


def make_uniform(num: int, num_users: int, *, seed: int = 1) -> tuple[Floats, Floats]:
    """Makes items and users without clusters."""
    generator = np.random.default_rng(seed)
    vectors = _unit(generator.standard_normal((num + num_users, WIDTH), dtype=np.float32))
    return vectors[:num], vectors[num:]


def _unit(vector_ND: Floats) -> Floats:
    vector_ND /= np.linalg.norm(vector_ND, axis=1, keepdims=True)
    return vector_ND
