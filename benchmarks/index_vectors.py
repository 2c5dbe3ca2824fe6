"""Vectors for `benchmarks.retrieval_index`: clusters of very different sizes, made from a seed."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

WIDTH: Final = 64
VECTORS_A_CLUSTER: Final = 200
ITEM_SPREAD: Final = 0.08
USER_SPREAD: Final = 0.1
_NUM_DRAWS: Final = 1 << 20
_MADE_AT_ONCE: Final = 1 << 14
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


class MadeVectors:
    """Unit vectors like those of `make_world`, each made of its number when it is read: nothing is stored.

    A vector is a direction, chosen by weight, and one of a million draws of noise; which two follows from the
    vector's number. Where there are more vectors than draws, two directions may share a draw.
    """

    def __init__(self, num: int, *, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        num_clusters = max(num // VECTORS_A_CLUSTER, 2)
        self.shape = (num, WIDTH)
        self._direction_CD = _unit(generator.standard_normal((num_clusters, WIDTH), dtype=np.float32))
        weight_C = generator.zipf(1.5, num_clusters).clip(max=100)
        self._cluster_W = np.repeat(np.arange(num_clusters, dtype=np.int32), weight_C)
        noise = generator.standard_normal((min(num, _NUM_DRAWS), WIDTH), dtype=np.float32)
        self._noise_ED = ITEM_SPREAD * noise
        self._seed = np.uint64(seed)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any, /) -> Floats:
        """Returns vectors by a slice or by their numbers."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        parts = [
            self._make(rows[first : first + _MADE_AT_ONCE]) for first in range(0, len(rows), _MADE_AT_ONCE)
        ]
        return np.concatenate([np.zeros((0, WIDTH), np.float32), *parts])

    def _make(self, number_M: npt.NDArray[np.int64]) -> Floats:
        bits_M = _mix(number_M.astype(np.uint64) * np.uint64(2) + (self._seed << np.uint64(40)))
        cluster_M = self._cluster_W[bits_M % np.uint64(len(self._cluster_W))]
        noise_MD = self._noise_ED[_mix(bits_M) % np.uint64(len(self._noise_ED))]
        return _unit(self._direction_CD[cluster_M] + noise_MD)

    def make_users(self, num: int, *, seed: int = 1) -> Floats:
        """Returns users, each near an item of its own: [num, D]."""
        generator = np.random.default_rng(seed)
        target = generator.integers(0, len(self), num)
        noise_BD = generator.standard_normal((num, WIDTH), dtype=np.float32)
        return _unit(self[target] + USER_SPREAD * noise_BD)


def _mix(bits_M: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Returns bits that follow from others and look like chance (splitmix64)."""
    bits_M = bits_M + np.uint64(0x9E3779B97F4A7C15)
    bits_M = (bits_M ^ (bits_M >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits_M = (bits_M ^ (bits_M >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits_M ^ (bits_M >> np.uint64(31))
