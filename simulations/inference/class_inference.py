"""Which classes does a client hold? Asked of what a server sees, for every client and class."""

import numpy as np
from numpy.typing import NDArray

from simulations.inference.regression import fit_network, fit_ridge
from simulations.inference.scores import Trials
from simulations.inference.views import Array, Seen, View, observe

SHADOW_ROWS = 10_000


def linear(vectors: Array, classes: NDArray[np.bool_], view: View, seen: Seen) -> Array:
    """Return scores [trials, classes] of ridge regression from single vectors to classes.

    vectors [clients, observations, statistics], classes [clients, classes]: of shadow clients. A sum adds noise and
    other clients but no other direction that tells of one client, so what is learned from single vectors is right for
    sums, and learned from more.
    """
    clients = np.repeat(np.arange(len(vectors)), len(view.observations))
    rows = vectors[:, list(view.observations)].reshape(len(clients), -1)
    return fit_ridge(rows, classes[clients].astype(np.float64), client=clients, noise=view.single_noise)(seen.seen)


def network(
    vectors: Array, classes: NDArray[np.bool_], view: View, seen: Seen, *, epochs: int, rng: np.random.Generator
) -> Array:
    """Return scores [trials, classes] of a network trained on cohorts of shadow clients seen in the same view."""
    repeats = max(1, SHADOW_ROWS // len(vectors))
    shadow = observe(vectors, view, trials=repeats, rng=rng)
    epochs = max(epochs, SHADOW_ROWS * epochs // (len(shadow.seen) * 4))
    score = fit_network(shadow.seen, classes[shadow.client], epochs=epochs, seed=int(rng.integers(2**31)))
    return score(seen.seen)


def class_trials(scores: Array, classes: NDArray[np.bool_], seen: Seen) -> Trials:
    """Return a trial for each row of `scores` [trials, classes] and class; classes [targets, classes]."""
    truth = classes[seen.client]
    return Trials(scores.ravel(), truth.ravel(), np.repeat(seen.client, truth.shape[1]))
