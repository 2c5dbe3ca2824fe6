"""Centroids of lists: learned from a sample of vectors, and the nearest to a vector found among very many.

Few are compared with every vector. Many are held by region: a vector is compared with those of the regions
nearest to it, and one that is served badly with those of more. To learn many, what serves few moves to what
is served badly, round by round: else most of them would share the large clusters, and the small get none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from forecart.retrieval.index.contract import Floats

Lists = npt.NDArray[np.int32]
Nearest = Callable[[Floats], tuple[Lists, Floats]]
"""Finds for each vector the number of the centroid it is nearest to, and the cosine of the two."""
MAX_FLAT: Final = 1 << 12
"""More centroids than these are held by region."""
_NUM_ROUNDS: Final = 10
_NUM_REGION_ROUNDS: Final = 4
_MOVED: Final = (0.2, 0.1, 0.1, 0.05, 0.0, 0.0)
"""Of the centroids, those of fewest vectors, after each round in which many are learned."""
_NUM_QUICK: Final = 2
"""Rounds with the first look alone: what is learned then does not stay."""
_LOOKS: Final = ((1.0, 8), (1 / 4, 32), (1 / 16, 128))
"""Shares of the vectors, worst served first, and the regions that are looked through for them."""
_BLOCK_ROWS: Final = 1 << 18
_NUM_CODED: Final = 1 << 16


def learn_centroids(sample_SD: Floats, num_lists: int, seed: int) -> Floats:
    """Returns centroids of length one, [L, D]: lists are by direction, and long vectors draw no others."""
    if num_lists <= MAX_FLAT:
        return _cluster(sample_SD, num_lists, seed)
    generator = np.random.default_rng(seed)
    drawn = np.sort(generator.choice(len(sample_SD), num_lists, replace=False))
    centroid_LD = to_unit(sample_SD[drawn])
    for number, share in enumerate(_MOVED):
        looks = _LOOKS[:1] if number < _NUM_QUICK else _LOOKS[:2]
        nearest = Regions.of(centroid_LD, seed, looks)
        num_L, cosine_S = _move_to_middles(centroid_LD, sample_SD, nearest)
        if num_moved := int(share * num_lists):
            badly = np.argpartition(cosine_S, min(4 * num_moved, len(cosine_S) - 1))[: 4 * num_moved]
            few = np.argpartition(num_L, num_moved)[:num_moved]
            centroid_LD[few] = to_unit(sample_SD[generator.choice(badly, num_moved, replace=False)])
    return centroid_LD


def _cluster(sample_SD: Floats, num_lists: int, seed: int, num_rounds: int = _NUM_ROUNDS) -> Floats:
    clustering = faiss.Kmeans(
        sample_SD.shape[1],
        num_lists,
        niter=num_rounds,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
    )
    clustering.train(sample_SD)
    return np.asarray(clustering.centroids)


def _move_to_middles(
    centroid_LD: Floats, sample_SD: Floats, nearest: Nearest
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Moves each centroid into the middle of what is nearest to it: of how many, and each one's cosine."""
    sum_LD = np.zeros_like(centroid_LD)
    num_L = np.zeros(len(centroid_LD), np.int64)
    parts = []
    for first in range(0, len(sample_SD), _BLOCK_ROWS):
        unit_MD = to_unit(sample_SD[first : first + _BLOCK_ROWS])
        list_M, cosine_M = nearest(unit_MD)
        order_M = np.argsort(list_M, kind="stable")
        filled, begins, num = np.unique(list_M[order_M], return_index=True, return_counts=True)
        sum_LD[filled] += np.add.reduceat(unit_MD[order_M], begins, axis=0)
        num_L[filled] += num
        parts.append(cosine_M)
    centroid_LD[num_L > 0] = to_unit(sum_LD[num_L > 0])  # one of nothing stays
    return num_L, np.concatenate(parts)


def to_unit(vector_MD: Floats) -> Floats:
    """Returns vectors of length one in the same directions."""
    length_M1 = np.linalg.norm(vector_MD, axis=1, keepdims=True)
    return np.asarray(vector_MD / length_M1.clip(min=1e-30), np.float32)


def find_nearest(centroid_LD: Floats, seed: int) -> Nearest:
    """Returns what finds the nearest of these centroids."""
    if len(centroid_LD) > MAX_FLAT:
        return Regions.of(centroid_LD, seed)
    flat = hold_flat(centroid_LD)

    def search(vector_MD: Floats) -> tuple[Lists, Floats]:
        cosine_M1, list_M1 = flat.search(to_unit(vector_MD), 1)
        return list_M1[:, 0].astype(np.int32), cosine_M1[:, 0]

    return search


@dataclass(frozen=True, eq=False)
class Regions:
    """Centroids by region, of which most are not looked at.

    Attributes:
        middles: of regions, faiss's index.
        centroid_LD: region by region.
        list_L: the number of each.
        ends: of the regions in these, from 0 on.
        looks: see `_LOOKS`.
    """

    middles: Any
    centroid_LD: Floats
    list_L: Lists
    ends: npt.NDArray[np.int64]
    looks: tuple[tuple[float, int], ...]

    @classmethod
    def of(cls, centroid_LD: Floats, seed: int, looks: tuple[tuple[float, int], ...] = _LOOKS) -> "Regions":
        """Returns centroids in twice as many regions as the square root of their number."""
        middles = hold_flat(
            _cluster(centroid_LD, 2 * int(np.sqrt(len(centroid_LD))), seed, _NUM_REGION_ROUNDS)
        )
        region_L = middles.search(centroid_LD, 1)[1][:, 0]
        order_L = np.argsort(region_L, kind="stable")
        ends = np.cumsum(np.bincount(region_L, minlength=middles.ntotal))
        return cls(middles, centroid_LD[order_L], order_L.astype(np.int32), np.append(0, ends), looks)

    def __call__(self, vector_MD: Floats) -> tuple[Lists, Floats]:
        """Returns the nearest centroid that was looked at, and its cosine."""
        unit_MD = to_unit(vector_MD)
        nearest_M = np.zeros(len(unit_MD), np.int32)
        cosine_M = np.full(len(unit_MD), -np.inf, np.float32)
        num_seen = 0
        for share, num_regions in self.looks:
            rows = np.arange(len(unit_MD))
            if share < 1:
                rows = np.argpartition(cosine_M, int(share * len(rows)))[: int(share * len(rows))]
            if len(rows) and num_seen < self.middles.ntotal:
                num = min(num_regions, self.middles.ntotal)
                region_MR = self.middles.search(unit_MD[rows], num)[1][:, num_seen:]
                self._look(unit_MD, rows, region_MR, nearest_M, cosine_M)
                num_seen = num
        return self.list_L[nearest_M], cosine_M

    def _look(
        self,
        unit_MD: Floats,
        rows: npt.NDArray[np.int64],
        region_MR: npt.NDArray[np.int64],
        nearest_M: Lists,
        cosine_M: Floats,
    ) -> None:
        """Compares some vectors with the centroids of their regions, one region after the other."""
        order = np.argsort(region_MR, axis=None, kind="stable")
        visitor = rows[order // region_MR.shape[1]]
        visits = np.searchsorted(region_MR.ravel()[order], np.arange(len(self.ends)))
        for (first, last), (begins, ends) in zip(pairwise(self.ends), pairwise(visits), strict=True):
            if first == last or begins == ends:
                continue
            row = visitor[begins:ends]
            cosine = unit_MD[row] @ self.centroid_LD[first:last].T
            best = cosine.argmax(axis=1)
            found = cosine[np.arange(len(row)), best]
            is_nearer = found > cosine_M[row]
            nearest_M[row[is_nearer]] = first + best[is_nearer]
            cosine_M[row[is_nearer]] = found[is_nearer]


def hold_flat(centroid_LD: Floats) -> Any:
    """Returns faiss's index of the centroids as they are."""
    flat = faiss.IndexFlatIP(centroid_LD.shape[1])
    flat.add(centroid_LD)
    return flat


def hold_for_users(centroid_LD: Floats) -> Any:
    """Returns faiss's index in which users' nearest centroids are found.

    A user is near lists of many regions, so every centroid is compared: many of them by codes of four bits a
    coordinate, a sixth of the time.
    """
    num, width = centroid_LD.shape
    if num <= MAX_FLAT:
        return hold_flat(centroid_LD)
    codes = faiss.IndexPQFastScan(width, width, 4, faiss.METRIC_INNER_PRODUCT)
    codes.pq.cp.min_points_per_centroid = 1
    codes.train(np.ascontiguousarray(centroid_LD[:: -(-num // _NUM_CODED)]))
    codes.add(centroid_LD)
    return codes
