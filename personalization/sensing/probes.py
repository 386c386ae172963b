"""Compressed sensing on the device: draw probes, measure them, keep the samples.

A probe lowers a few layers, each to one of the probe levels; in the design it is a row with a 1 for every atom (layer
at a level) that it switches on. The rows and their measurements never leave the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from personalization.cutting.masked import MaskedModel, MaskedPass
from personalization.sensing.prior import Prior
from personalization.transformer.layers import Layer

Measure = Callable[[MaskedPass], float]

# A probe must take at least this share of a layer's units beyond what the fleet has dropped of it.
_SMALLEST_STEP = 0.25


@dataclass(frozen=True)
class ProbeSamples:
    """A device's compressed-sensing samples: design [probes, atoms] of 0 and 1, measurements [probes] in nats."""

    design: NDArray[np.float64]
    measurements: NDArray[np.float64]

    @staticmethod
    def none(atoms: int) -> "ProbeSamples":
        """Return samples without any probe."""
        return ProbeSamples(np.zeros((0, atoms)), np.zeros(0))

    def joined(self, later: "ProbeSamples") -> "ProbeSamples":
        """Return these samples followed by `later` ones."""
        return ProbeSamples(
            np.concatenate([self.design, later.design]), np.concatenate([self.measurements, later.measurements])
        )


def draw_probes(
    layers: int,
    levels: int,
    probes: int,
    *,
    layers_per_probe: int,
    prior: Prior | None,
    seen: NDArray[np.float64],
    rng: np.random.Generator,
    telling: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Return a design [probes, atoms], atoms = layers * levels; none is drawn again before all others have been.

    Atoms are drawn with odds 1 / (1 + precision / mean precision) of the prior: where it is least certain, most often.
    seen [atoms]: how often earlier probes of this device had each atom; those come last. telling [atoms]: the only
    ones to draw (see `telling_atoms`; None is all); where there are none, there are no probes.
    """
    atoms = layers * levels
    drawable = np.arange(atoms) if telling is None else np.flatnonzero(telling)
    most = min(layers_per_probe, len(np.unique(drawable // levels)))
    if not most:
        return np.zeros((0, atoms))
    precision = np.zeros(atoms) if prior is None else prior.precision
    odds = 1.0 / (1.0 + precision / max(float(precision.mean()), 1e-12))
    # The largest of exponential races is a draw without replacement with these odds (Efraimidis and Spirakis 2006).
    order = np.lexsort((rng.exponential(size=atoms) / odds, seen))
    design = np.zeros((probes, atoms))
    queue = [atom for atom in order if atom in set(drawable.tolist())]
    for row in design:
        taken: set[int] = set()
        while len(taken) < most:
            if not any(atom // levels not in taken for atom in queue):
                queue += list(rng.permutation(drawable))
            atom = next(a for a in queue if a // levels not in taken)
            queue.remove(atom)
            taken.add(int(atom) // levels)
            row[atom] = 1.0
    return design


def telling_atoms(layers: Sequence[Layer], levels: Sequence[float], available: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which atoms [atoms] a device can still measure where only `available` [layers] units are left.

    A probe of a layer that the fleet has cut to its level already changes nothing, and one little below it measures a
    small step: taken for the layer's sensitivity, both would tell the fleet that the layer is free. What was known
    about such atoms before the fleet dropped their units stays known.
    """
    share_gone = 1.0 - available / np.array([layer.units for layer in layers])
    step = np.asarray(levels)[None, :] - share_gone[:, None]
    return np.asarray(((share_gone == 0.0)[:, None] | (step >= _SMALLEST_STEP)).ravel(), dtype=np.bool_)


def one_at_a_time(layers: int, levels: int) -> NDArray[np.float64]:
    """Return the design [atoms, atoms] that measures every layer at every level by itself."""
    return np.eye(layers * levels)


def probe_levels(layers: Sequence[Layer], levels: Sequence[float]) -> NDArray[np.float64]:
    """Return the share of its units that each layer really loses at each of the probe levels, [layers, levels].

    Of three heads half is one, and so is a tenth: a layer of few units can't be lowered by just any share.
    """
    return np.array([[1.0 - units_left(layer, level) / layer.units for level in levels] for layer in layers])


def units_left(layer: Layer, level: float) -> int:
    """Return how many units a probe leaves: one less at least, for a probe that takes nothing out tells nothing."""
    return min(round(layer.units * (1.0 - level)), layer.units - 1)


def probe_counts(
    probe: NDArray[np.float64],
    layers: Sequence[Layer],
    levels: Sequence[float],
    available: NDArray[np.int64] | None = None,
) -> dict[int, int]:
    """Return how many units a probe [atoms] leaves in each layer that it lowers; at most `available` [layers]."""
    counts = {}
    for atom in np.flatnonzero(probe):
        layer = layers[int(atom) // len(levels)]
        count = units_left(layer, levels[int(atom) % len(levels)])
        counts[layer.index] = count if available is None else min(count, int(available[layer.index]))
    return counts


def take_samples(
    masked: MaskedModel,
    design: NDArray[np.float64],
    levels: Sequence[float],
    *,
    measure: Measure,
    available: NDArray[np.int64] | None = None,
) -> ProbeSamples:
    """Measure every probe of `design` [probes, atoms]; one evaluation each."""
    passes = masked.run_all([probe_counts(row, masked.trace.layers, levels, available) for row in design])
    return ProbeSamples(design, np.array([measure(result) for result in passes], dtype=np.float64))


def personalized_layers(sensitivity: NDArray[np.float64], levels: int, share: float) -> NDArray[np.bool_]:
    """Return which layers are personalized, [layers]: the fewest that cover `share` of the sensitivity [atoms]."""
    per_layer = sensitivity.reshape(-1, levels).sum(1)
    order = np.argsort(-per_layer, kind="stable")
    covered = np.cumsum(per_layer[order])
    count = int(np.searchsorted(covered, share * covered[-1] * (1.0 - 1e-12))) + 1
    chosen = np.zeros(len(per_layer), dtype=np.bool_)
    if covered[-1] > 0.0:
        chosen[order[:count]] = True
    return chosen
