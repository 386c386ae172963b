"""Clients whose vectors give away exactly what a test plants in them."""

import numpy as np
from numpy.typing import NDArray

from simulations.inference.membership import Clients

Array = NDArray[np.float64]

CLASSES, PER_CLASS, HELD = 5, 60, 20


def labels() -> NDArray[np.int64]:
    return np.repeat(np.arange(CLASSES), PER_CLASS)


def holdings(clients: int, rng: np.random.Generator) -> tuple[NDArray[np.bool_], Array]:
    """Each client holds HELD images of two classes each: [clients, images] and classes [clients, CLASSES]."""
    held = np.zeros((clients, CLASSES * PER_CLASS), dtype=np.bool_)
    classes = np.zeros((clients, CLASSES))
    for row, kinds in zip(held, classes, strict=True):
        for label in rng.choice(CLASSES, 2, replace=False):
            kinds[label] = 1.0
            row[label * PER_CLASS + rng.choice(PER_CLASS, HELD, replace=False)] = True
    return held, classes


def clients_with(codes: Array, clients: int, *, noise: float, rng: np.random.Generator) -> Clients:
    """Vectors [clients, 3, statistics] are sums of the `codes` [images, statistics] of what is held, and noise."""
    held, classes = holdings(clients, rng)
    vectors = (held @ codes)[:, None, :] + noise * rng.standard_normal((clients, 3, codes.shape[1]))
    return Clients(vectors, held, classes)
