"""Two-level bootstrap: seeds are drawn again, and within each drawn seed its clients.

Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8: hierarchical data, both levels drawn
with replacement. Clients of one seed share partition, roles and plans, so clients alone would claim too much.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
CONFIDENCE = 0.95
_SEED = 20240822
# Resamples are drawn in blocks of so many values, so that memory doesn't grow with the fleet.
_BLOCK = 1 << 21

Values = NDArray[np.float64]
# From values [..., clients], NaN where there is none, to one figure for each row [...].
Statistic = Callable[[Values], Values]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Return it as it stands in summary.json."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def client_mean(values: Values) -> Values:
    """Return the mean over clients [...] of values [..., clients]; NaN where none has a value."""
    present = ~np.isnan(values)
    count = present.sum(-1)
    total = np.where(present, values, 0.0).sum(-1)
    means: Values = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return means


def worst_decile(values: Values) -> Values:
    """Return the mean [...] of the lowest tenth of values [..., clients], at least of one; NaN where there is none."""
    ordered = np.sort(values, axis=-1)  # NaN comes last
    count = (~np.isnan(ordered)).sum(-1, keepdims=True)
    lowest = np.arange(values.shape[-1]) < np.maximum(1, count // 10)
    return client_mean(np.where(lowest, ordered, np.nan))


def estimate(values: Sequence[Sequence[float]], statistic: Statistic = client_mean) -> Estimate | None:
    """Return the mean over seeds of `statistic` over each seed's clients, with its interval.

    values: for each seed those of its clients, in any number. Seeds without any are left out; None if all are. A
    figure that a whole seed has one of is a seed with one client. The same values always give the same interval.
    """
    seeds = [np.asarray(seed, dtype=np.float64) for seed in values if len(seed)]
    if not seeds:
        return None
    padded = np.full((len(seeds), max(map(len, seeds))), np.nan)
    for row, seed in zip(padded, seeds, strict=True):
        row[: len(seed)] = seed
    counts = tuple(map(len, seeds))
    means = np.concatenate([statistic(padded[drawn, picks]).mean(1) for drawn, picks in resamples(counts)])
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(means, [tail, 100.0 - tail])
    return Estimate(float(statistic(padded).mean()), float(low), float(high))


def resamples(counts: tuple[int, ...]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield blocks of drawn seeds [resamples, seeds, 1] and of drawn clients within them [resamples, seeds, clients].

    counts: clients of each seed. `values[seeds, clients]` of values [seeds, clients], padded with NaN at the end, is a
    block of resamples, padded in the same way. RESAMPLES in all.
    """
    if RESAMPLES * len(counts) * max(counts) <= _BLOCK:
        yield _kept(counts)
        return
    rng = np.random.default_rng(_SEED)
    block = max(1, _BLOCK // (len(counts) * max(counts)))
    for start in range(0, RESAMPLES, block):
        yield _draw(rng, counts, min(block, RESAMPLES - start))


@functools.lru_cache(maxsize=4)
def _kept(counts: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return _draw(np.random.default_rng(_SEED), counts, RESAMPLES)


def _draw(rng: np.random.Generator, counts: tuple[int, ...], number: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    size, most = np.asarray(counts), max(counts)
    seeds = rng.integers(0, len(counts), (number, len(counts), 1))
    drawn = size[seeds]
    picks = rng.integers(0, drawn, (number, len(counts), most))
    # Beyond a seed's own number of clients stands padding: the last position, which only the longest seeds fill.
    return seeds, np.where(np.arange(most) < drawn, picks, most - 1)
