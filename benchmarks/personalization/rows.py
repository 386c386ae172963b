"""The rows of `benchmarks.personalization`: where a device's idea of its layers comes from, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from personalization.allocation.allocate import Curves, fit_curves
from personalization.allocation.profiles import profile_curves, profile_levels
from personalization.recovery import recover
from personalization.sensing.prior import LOOK, Prior
from personalization.sensing.prior_completion import completed_prior, prior_of_errors
from personalization.sensing.probes import ProbeSamples, draw_probes, probe_levels
from personalization.settings import PersonalizationSettings
from personalization.transformer.layers import Layer
from personalization.wire.statistics import from_wire, to_wire

ROWS = (
    "random",
    "uniform",
    "depth-linear",
    "own one at a time",
    "own local errors",
    "own compressed-sensed",
    "fleet prior",
    "fleet prior + 6 own",
)
# One shot with as many own evaluations as the step buffer spends beside the prior, to compare the two.
SAME_EVALUATIONS = "fleet prior + 8 own"
COLUMNS = ("folded", "compensated", "step buffer", "distilled")
BUDGETS = (0.7, 0.5, 0.3)
# What each of the other clients has measured for the fleet: 6 probes in each of 3 rounds, the defaults of `simulate`.
FLEET_PROBES = 18
# Compressed sensing without a fleet: half as many probes as atoms, three layers in each.
SENSED_PROBES, SENSED_LAYERS = 12, 3


@dataclass(frozen=True)
class Sensed:
    """What one client measured: every atom by itself [atoms], probes of several layers, and its local errors
    [layers, levels].
    """

    single: NDArray[np.float64]
    many: ProbeSamples
    errors: NDArray[np.float64]


def heuristic_levels(row: str, layers: Sequence[Layer], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a profile of levels [layers] for a row that measures nothing; only ratios matter."""
    return rng.uniform(0.05, 1.0, len(layers)) if row == "random" else profile_levels(row, layers)


def fleet_prior(others: Sequence[NDArray[np.float64]], masks: NDArray[np.float64]) -> Prior:
    """Return the prior of clients of sensitivities `others` [clients][atoms] that measured the atoms in their `masks`
    [clients, atoms], each once.

    The precision-weighted mean on the wire's logarithmic scale, where one clean look has precision `LOOK`, of as much
    precision as all have together.
    """
    scaled = to_wire(np.array(others))
    weight = LOOK * masks
    precision = weight.sum(0)
    mean = np.divide((weight * scaled).sum(0), precision, out=np.zeros(scaled.shape[1]), where=precision > 0)
    return Prior(from_wire(mean), precision)


def share_of_atoms(
    layers: int, levels: int, probes: int, rng: np.random.Generator, prior: Prior | None = None
) -> NDArray[np.float64]:
    """Return which atoms [atoms] a client measures with `probes` probes of one layer."""
    design = draw_probes(
        layers, levels, probes, layers_per_probe=1, prior=prior, seen=np.zeros(layers * levels), rng=rng
    )
    return np.asarray(design.sum(0), dtype=np.float64)


def own_with_prior(
    sensed: Sensed, prior: Prior, mask: NDArray[np.float64], levels: int, seed: int
) -> NDArray[np.float64]:
    """Return sensitivities [atoms] from the prior and a client's own look at the atoms in `mask` [atoms]."""
    design = np.eye(len(mask))[np.flatnonzero(mask)]
    found = recover(design, design @ sensed.single, solver="deviation", prior=prior, levels=levels, seed=seed)
    return found.sensitivity


def row_curves(
    row: str,
    layers: Sequence[Layer],
    sensed: Sensed,
    prior: Prior,
    settings: PersonalizationSettings,
    rng: np.random.Generator,
) -> tuple[Curves, int]:
    """Return the curves of a row and the evaluations that the client spent on them."""
    levels, atoms = len(settings.levels), len(sensed.single)
    shares = probe_levels(layers, settings.levels)
    if row in ("random", "uniform", "depth-linear"):
        weights = np.array([layer.weights for layer in layers], dtype=np.float64)
        return profile_curves(weights, heuristic_levels(row, layers, rng)), 0
    if row == "own one at a time":
        return fit_curves(sensed.single, shares), atoms
    if row == "own local errors":
        return fit_curves(sensed.errors, shares), 0
    if row == "own compressed-sensed":
        expected = prior_of_errors(sensed.errors, sensed.many)
        design, measurements = sensed.many.design, sensed.many.measurements
        result = recover(design, measurements, prior=expected, levels=levels, seed=settings.seed)
        return fit_curves(result.sensitivity, shares), len(sensed.many.measurements)
    expected = completed_prior(prior, layers, sensed.errors)
    if row == "fleet prior":
        return fit_curves(expected.sensitivity, shares), 0
    probes = int(row.removeprefix("fleet prior + ").removesuffix(" own"))
    mask = share_of_atoms(len(layers), levels, probes, rng, prior)
    return fit_curves(own_with_prior(sensed, expected, mask, levels, settings.seed), shares), probes
