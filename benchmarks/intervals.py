"""Means with bootstrap intervals over clients."""

from collections.abc import Sequence

import numpy as np

_RESAMPLES = 2000


def mean_interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """Return the mean of `values` and half the width of its 95 % bootstrap interval."""
    sample = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, len(sample), (_RESAMPLES, len(sample)))
    low, high = np.percentile(sample[picks].mean(1), [2.5, 97.5])
    return float(sample.mean()), float(high - low) / 2.0


def worst_decile(values: Sequence[float]) -> float:
    """Return the mean of the lowest tenth of `values`, at least one of them."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    return float(ordered[: max(1, len(ordered) // 10)].mean())
