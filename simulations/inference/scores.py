"""How well an attacker does: the area under its ROC curve, with an interval over clients."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 500


@dataclass(frozen=True)
class Trials:
    """Questions put to an attacker. scores [trials]: higher for yes. truth [trials]: whether it is. client [trials]:
    the attacked client of each, within which trials are not independent.
    """

    scores: NDArray[np.float64]
    truth: NDArray[np.bool_]
    client: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        if not self.scores.shape == self.truth.shape == self.client.shape or self.scores.ndim != 1:
            raise ValueError(f"trials of shapes {self.scores.shape}, {self.truth.shape}, {self.client.shape}")


def auc(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Return the chance that a yes scores higher than a no, a tie counting half (Mann and Whitney 1947).

    scores, truth: [trials]. NaN where one of both kinds is missing.
    """
    return _weighted(np.unique(scores, return_inverse=True)[1], truth, np.ones(len(scores)))


def auc_interval(trials: Trials, *, seed: int = 0) -> tuple[float, float, float]:
    """Return the AUC and its 95 % interval: percentiles of a bootstrap that draws clients, each with all its trials."""
    place = np.unique(trials.scores, return_inverse=True)[1]
    clients, which = np.unique(trials.client, return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES):
        times = np.bincount(rng.integers(len(clients), size=len(clients)), minlength=len(clients))
        drawn.append(_weighted(place, trials.truth, times[which].astype(np.float64)))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return auc(trials.scores, trials.truth), float(low), float(high)


def _weighted(place: NDArray[np.int64], truth: NDArray[np.bool_], weight: NDArray[np.float64]) -> float:
    """Return the AUC of trials whose scores have the ranks `place`, equal ones the same, and count `weight` times."""
    yes = np.bincount(place, weight * truth)
    no = np.bincount(place, weight * ~truth)
    pairs = yes.sum() * no.sum()
    below = np.cumsum(no) - no
    return float((yes * (below + 0.5 * no)).sum() / pairs) if pairs > 0.0 else float("nan")


def mean_interval(values: NDArray[np.float64], *, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean of `values` [clients] and its 95 % bootstrap interval."""
    picks = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[picks].mean(1), [2.5, 97.5])
    return float(values.mean()), float(low), float(high)
