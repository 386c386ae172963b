"""What a server sees of a client: its vector, or the sum of a cohort that it is in, with noise or without."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class View:
    """What is seen of one client.

    cohort: clients in a sum, the attacked one among them; 1 is its vector alone. observations: which of the recorded
    vectors of a client it shows; of several, the mean, with others around the attacked client each time. noise:
    standard deviation of the Gaussian noise on each entry of a sum.
    """

    name: str
    cohort: int
    observations: tuple[int, ...]
    noise: float = 0.0

    @property
    def entry_noise(self) -> float:
        """Standard deviation of the noise on each entry of what is seen, a mean over cohort and observations."""
        return self.noise / self.cohort / float(np.sqrt(len(self.observations)))

    @property
    def single_noise(self) -> float:
        """Standard deviation of noise on single vectors that hides a client as well as `noise` does in its sum.

        In a mean of n clients, one of them has an n-th part, and what the others add has an n-th of their variance.
        """
        return self.noise / float(np.sqrt(self.cohort))


@dataclass(frozen=True)
class Seen:
    """seen [trials, statistics]: the mean vector of each cohort. client [trials]: row of the client that it is about.
    cohorts: rows [trials, members] of everybody in it, for each observation.
    """

    seen: Array
    client: NDArray[np.int64]
    cohorts: tuple[NDArray[np.int64], ...]

    def mean_of(self, known: Array) -> Array:
        """Return the mean [trials, ...] over each cohort of what is `known` [clients, ...] of its members."""
        return np.asarray(np.mean([known[cohort].mean(1) for cohort in self.cohorts], axis=0))


def observe(vectors: Array, view: View, *, trials: int, rng: np.random.Generator) -> Seen:
    """Return what a server sees around each client of `vectors` [clients, observations, statistics], `trials` times.

    A vector alone without noise is always the same and is seen once.
    """
    clients = len(vectors)
    repeats = trials if view.cohort > 1 or view.noise > 0.0 else 1
    client = np.repeat(np.arange(clients), repeats)
    cohorts, total = [], np.zeros((len(client), vectors.shape[-1]))
    for observation in view.observations:
        cohort = np.stack([cohort_around(target, clients, view.cohort, rng) for target in client.tolist()])
        times = np.zeros((len(client), clients))
        np.add.at(times, (np.arange(len(client))[:, None], cohort), 1.0)
        total += times @ vectors[:, observation]
        cohorts.append(cohort)
    mean = total / view.cohort / len(view.observations)
    return Seen(mean + view.entry_noise * rng.standard_normal(mean.shape), client, tuple(cohorts))


def cohort_around(target: int, clients: int, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return a random cohort [size] of `clients` that begins with `target`.

    The others are drawn with replacement, as from a fleet that is as large as one likes (a bootstrap): drawn without,
    large cohorts of few recorded clients would all be nearly the same.
    """
    others = rng.integers(clients - 1, size=size - 1)
    return np.concatenate([[target], others + (others >= target)]).astype(np.int64)
