"""The rows of `benchmarks.text`: where a device's idea of its layers comes from, and what it costs."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.text.clients import Counts
from personalization.allocation.allocate import Curves, fit_curves
from personalization.allocation.profiles import PROFILES, profile_curves, profile_levels
from personalization.recovery import recover
from personalization.sensing.prior import LOOK, Prior
from personalization.sensing.prior_completion import completed_prior
from personalization.sensing.probes import draw_probes, probe_levels
from personalization.settings import PersonalizationSettings
from personalization.transformer.layers import Layer
from personalization.transformer.trace import DenseTrace
from personalization.wire.statistics import from_wire, to_wire

Array = NDArray[np.float64]

OWN, FLEET, FLEET_AND_OWN = "own one at a time", "fleet prior", "fleet prior + 6 own"
# Nobody has measured anything.
ERRORS = "own local errors"
BLOCK_INFLUENCE = "block influence"
UNIFORM = PROFILES[0]
ROWS = (*PROFILES, BLOCK_INFLUENCE, OWN, ERRORS, FLEET, FLEET_AND_OWN)
BUDGETS = (0.9, 0.8, 0.7, 0.5)
PROBES = PersonalizationSettings.probes
# What the other clients have measured for the fleet, with so many probes each in every round.
FLEET_ROUNDS = 3


def block_influence(trace: DenseTrace) -> Array:
    """Return 1 - the mean cosine between what each block reads and what it returns, [blocks].

    ShortGPT, 2403.03853, equation 1.
    """
    hidden = [output[0] if isinstance(output, tuple) else output for output in trace.block_outputs]
    embedded = trace.model.get_input_embeddings()(trace.inputs["input_ids"])  # type: ignore[operator]
    with torch.inference_mode():
        pairs = zip([embedded, *hidden[:-1]], hidden, strict=True)
        return np.array([1.0 - float(torch.cosine_similarity(x, y, dim=-1).mean()) for x, y in pairs])


def without_blocks(influence: Array, layers: Sequence[Layer], budget: float) -> Counts:
    """Return the units that each layer keeps, [layers], when the blocks of least influence go until `budget` is met."""
    weights = np.zeros(len(influence))
    for layer in layers:
        weights[layer.block] += layer.weights
    gone = set[int]()
    for block in np.argsort(influence, kind="stable").tolist():
        if weights.sum() - weights[list(gone)].sum() <= budget * weights.sum() * (1.0 + 1e-9):
            break
        gone.add(block)
    return np.array([0 if layer.block in gone else layer.units for layer in layers], dtype=np.int64)


def fleet_prior(others: Sequence[Array], layers: int, levels: int, seed: int) -> Prior:
    """Return what a fleet knows whose clients, with sensitivities `others` [clients][atoms], probe in rounds.

    Each draws its probes where the prior of the round before is least certain. The prior is the precision-weighted mean
    on the wire's logarithmic scale, where one clean look has precision `LOOK`, of as much precision as all have
    together, and rises with the level, as the server's.
    """
    scaled = to_wire(np.array(others))
    looks = np.zeros_like(scaled)
    rng = np.random.default_rng(seed)
    prior: Prior | None = None
    for _ in range(FLEET_ROUNDS):
        for seen in looks:
            seen += draw_probes(layers, levels, PROBES, layers_per_probe=1, prior=prior, seen=seen, rng=rng).sum(0)
        weight = LOOK * np.minimum(looks, 1.0)
        precision = weight.sum(0)
        mean = np.divide((weight * scaled).sum(0), precision, out=np.zeros(layers * levels), where=precision > 0)
        rising = np.maximum.accumulate(mean.reshape(layers, levels), axis=1).ravel()
        prior = Prior(np.where(precision > 0, from_wire(rising), 0.0), precision)
    assert prior is not None
    return prior


def row_curves(
    row: str, layers: Sequence[Layer], single: Array, errors: Array, prior: Prior, settings: PersonalizationSettings
) -> tuple[Curves, int]:
    """Return the curves of a row but `block influence`, and the evaluations that the client spent on them.

    single [atoms]: every layer measured by itself at every level, nats. errors [atoms]: its local errors.
    """
    levels, atoms = len(settings.levels), len(single)
    if row in PROFILES:
        weights = np.array([layer.weights for layer in layers], dtype=np.float64)
        return profile_curves(weights, profile_levels(row, layers)), 0
    if row == OWN:
        return fit_curves(single, probe_levels(layers, settings.levels)), atoms
    if row == ERRORS:
        return fit_curves(errors, probe_levels(layers, settings.levels)), 0
    design = np.zeros((0, atoms))
    if row == FLEET_AND_OWN:
        rng, seen = np.random.default_rng(settings.seed), np.zeros(atoms)
        design = draw_probes(len(layers), levels, PROBES, layers_per_probe=1, prior=prior, seen=seen, rng=rng)
    expected = completed_prior(prior, layers, errors.reshape(-1, levels))
    found = recover(design, design @ single, prior=expected, levels=levels, seed=settings.seed)
    return fit_curves(found.sensitivity, probe_levels(layers, settings.levels)), len(design)
