"""Distances between the rows of a cohort."""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def squared_distances(rows: Vector) -> Vector:
    """Return squared Euclidean distances [rows, rows] between `rows` [rows, columns], from one matrix product."""
    # Centred first: the smaller the norms, the less is lost where they cancel.
    centred = rows - rows.mean(axis=0)
    norms = np.einsum("ij,ij->i", centred, centred)
    distances = np.maximum(norms[:, None] + norms[None, :] - 2.0 * (centred @ centred.T), 0.0)
    np.fill_diagonal(distances, 0.0)
    return np.asarray((distances + distances.T) / 2.0, dtype=np.float64)


def distances_to(rows: Vector, centre: Vector) -> Vector:
    """Return Euclidean distances [rows] of `rows` [rows, columns] from `centre` [columns]."""
    return np.asarray(np.linalg.norm(rows - centre, axis=1), dtype=np.float64)
