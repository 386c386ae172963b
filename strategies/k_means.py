"""k-means on rows of which each is known in part."""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Known = NDArray[np.bool_]
_MOST_ITERATIONS = 100


def nearest(rows: Vector, known: Known, centroids: Vector) -> NDArray[np.intp]:
    """Return the index [rows] of the nearest of `centroids` [groups, columns], over the known columns of each row."""
    return np.asarray(_squared(rows, known, centroids).argmin(axis=1), dtype=np.intp)


def k_means(rows: Vector, known: Known, groups: int, *, seed: int) -> Vector:
    """Return centroids [groups, columns] of `rows` [rows, columns], of which `known` entries count.

    Starts as k-means++ (Arthur and Vassilvitskii 2007) with unknown entries at their column's mean, then iterates as
    Lloyd does: the known entries of its members make a centroid, and what no member knows, or all of a centroid without
    members, stays.
    """
    count = known.sum(axis=0)
    mean = np.divide(np.where(known, rows, 0.0).sum(axis=0), count, out=np.zeros(rows.shape[1]), where=count > 0)
    centroids = _start(np.where(known, rows, mean), groups, np.random.default_rng(seed))
    placed = nearest(rows, known, centroids)
    for _ in range(_MOST_ITERATIONS):
        members = (placed == np.arange(groups)[:, None]).astype(np.float64)
        weight = members @ known
        total = members @ np.where(known, rows, 0.0)
        centroids = np.divide(total, weight, out=centroids.copy(), where=weight > 0)
        before, placed = placed, nearest(rows, known, centroids)
        if np.array_equal(before, placed):
            break
    return centroids


def _start(rows: Vector, groups: int, rng: np.random.Generator) -> Vector:
    chosen = [int(rng.integers(len(rows)))]
    full = np.ones(rows.shape, dtype=np.bool_)
    for _ in range(groups - 1):
        away = _squared(rows, full, rows[chosen]).min(axis=1)
        total = away.sum()
        chosen.append(int(rng.choice(len(rows), p=away / total if total > 0.0 else None)))
    return rows[chosen]


def _squared(rows: Vector, known: Known, centroids: Vector) -> Vector:
    masked = np.where(known, rows, 0.0)
    squares = (masked**2).sum(axis=1)[:, None] - 2.0 * masked @ centroids.T + known @ (centroids**2).T
    return np.asarray(np.maximum(squares, 0.0), dtype=np.float64)
