"""Prune in steps with a buffer: what a step takes out is committed, corrected, or restored.

Each step allocates to its target, cuts with compensation and looks at the entropy increase on held-out private
samples. Fresh probes of the survivors lower one layer further each, from where the step has come to: where effects no
longer add up, the curves are bent to what was measured there, and the step is allocated again. The better of the two
stays in the buffer and is committed if it is within the tolerance; otherwise what matters most is restored.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from personalization.allocation.allocate import Costs, Curves, allocate
from personalization.cutting.masked import MaskedModel, MaskedPass, Units
from personalization.sensing.probes import Measure
from personalization.transformer.layers import LayerKind

Counts = NDArray[np.int64]

# A fresh probe takes this share of a layer's surviving channels; a probe of heads takes one head.
_PROBE_SHARE = 0.25
# How far one fresh probe may bend a curve, and the power that damps it: probes interact, so they are half believed.
_LARGEST_RATIO = 4.0
_DAMPING = 0.5
_RESTORE_ATTEMPTS = 3
# Where to look again when a step has gone too far: at this share of the tolerance, by what the curves say, and neither
# nearer to the step than the larger nor nearer to where it began than the smaller of these shares of the way.
_AIM = 0.9
_NEAREST, _FARTHEST = 0.1, 0.9
_SEARCH_STEPS = 6


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How to prune: `budget` reached in `steps` of `step_probes` fresh probes, each committed up to `tolerance` nats.

    limits [layers]: largest level of each layer. equal_layers: whether layers of a kind keep as many units.
    """

    budget: float
    steps: int
    step_probes: int
    tolerance: float
    limits: NDArray[np.float64]
    equal_layers: bool = False

    def targets(self) -> list[float]:
        """Return the share kept after each step, on a cubic schedule (Zhu and Gupta 2017, equation 1)."""
        done = np.arange(1, self.steps + 1) / self.steps
        return [float(t) for t in self.budget + (1.0 - self.budget) * (1.0 - done) ** 3]


@dataclass(frozen=True)
class Step:
    """One step: its target share, the units kept [layers], entropy increase (nats), and whether it was committed."""

    target: float
    counts: Counts
    increase: float
    committed: bool


@dataclass(frozen=True)
class Pruned:
    """Where pruning ended: units kept [layers]; `allowed`, the units per layer that the last step chose from;
    the pass that was measured (None if nothing could be committed); all steps; and the evaluations spent.
    """

    counts: Counts
    allowed: dict[int, Units]
    last: MaskedPass | None
    increase: float
    steps: tuple[Step, ...]
    evaluations: int


class StepBuffer:
    """Prunes one device's model step by step; `prune` is the whole of it."""

    def __init__(self, masked: MaskedModel, curves: Curves, costs: Costs, schedule: Schedule, measure: Measure) -> None:
        """Take the model on its private samples, what is known of its layers, and how to measure a pass (nats)."""
        self.masked, self.curves, self.costs, self.schedule, self.measure = masked, curves, costs, schedule, measure
        self.layers = masked.trace.layers
        self.evaluations = 0

    def prune(self) -> Pruned:
        """Go through the schedule and stop early where nothing can be committed. Raises UserError from `allocate`."""
        dense = np.array([layer.units for layer in self.layers], dtype=np.int64)
        available = np.array([len(self._allowed(index)) for index in range(len(dense))], dtype=np.int64)
        committed, allowed, last, increase = available, dict(self.masked.allowed), None, 0.0
        share, steps = self.costs.total(available) / self.costs.total(dense), []
        for target in self.schedule.targets():
            counts, result, measured = self._step(target, committed)
            fits = measured <= self.schedule.tolerance
            attempts = 0
            while not fits and attempts < _RESTORE_ATTEMPTS and share > target:
                target, attempts = self._nearer(share, target, committed, increase, measured), attempts + 1
                counts = self._allocate(target, committed)
                del result  # two sets of a whole model's writers are too many
                result, measured = self._run(counts)
                fits = measured <= self.schedule.tolerance
            steps.append(Step(target, counts, measured, fits))
            if not fits:
                break
            allowed = dict(self.masked.allowed)
            committed, last, increase, share = counts, result, measured, target
            self.masked = replace(self.masked, allowed=result.kept)
            if attempts:
                break
        return Pruned(committed, allowed, last, increase, tuple(steps), self.evaluations)

    def _allowed(self, index: int) -> Units:
        return self.masked.allowed.get(index, np.arange(self.layers[index].units))

    def _step(self, target: float, committed: Counts) -> tuple[Counts, MaskedPass, float]:
        counts = self._allocate(target, committed)
        result, measured = self._run(counts)
        if not self.schedule.step_probes:
            return counts, result, measured
        self._bend(counts, result, measured)
        corrected = self._allocate(target, committed)
        if (corrected == counts).all():
            return counts, result, measured
        other, other_measured = self._run(corrected)
        return (corrected, other, other_measured) if other_measured < measured else (counts, result, measured)

    def _nearer(self, share: float, target: float, committed: Counts, increase: float, measured: float) -> float:
        """Return a target between `share`, where the increase was `increase`, and `target`, where it was `measured`.

        It is the lowest one that the tolerance allows, if the curves rise as they say on a scale that fits what was
        measured. Halving the way instead takes out far too little where a step has gone only a little too far, and
        measures too often where it has gone very far.
        """
        before, after = (
            float(self._expected(counts).sum()) for counts in (committed, self._allocate(target, committed))
        )
        allowed = max(_AIM * self.schedule.tolerance - increase, 0.0) / (measured - increase)
        nearest, farthest = _NEAREST, _FARTHEST
        for _ in range(_SEARCH_STEPS):
            way = (nearest + farthest) / 2.0
            counts = self._allocate(share + way * (target - share), committed)
            if float(self._expected(counts).sum()) <= before + allowed * (after - before):
                nearest = way
            else:
                farthest = way
        return share + nearest * (target - share)

    def _bend(self, counts: Counts, base: MaskedPass, measured: float) -> None:
        """Probe the layers that are expected to cost most, each a little lower, and scale their curves to the rise."""
        expected = self._expected(counts)
        order = [int(i) for i in np.argsort(-expected, kind="stable") if counts[i] > 1][: self.schedule.step_probes]
        probes = [self._lowered(counts, index) for index in order]
        passes = self.masked.branch(base).run_all([self._from(i, p) for i, p in zip(order, probes, strict=True)])
        self.evaluations += len(probes)
        scale = self.curves.scale.copy()
        for index, probe, result in zip(order, probes, passes, strict=True):
            predicted = max(self._expected(probe)[index] - expected[index], 1e-9)
            ratio = max(self.measure(result) - measured, 1e-9) / predicted
            scale[index] *= np.clip(ratio, 1.0 / _LARGEST_RATIO, _LARGEST_RATIO) ** _DAMPING
        self.curves = Curves(scale, self.curves.exponent)

    def _from(self, index: int, counts: Counts) -> dict[int, int]:
        """Name the layers from the block of layer `index` on: what lies before it is as in the pass branched from."""
        first = self.layers[index].block
        return {layer.index: int(counts[layer.index]) for layer in self.layers if layer.block >= first}

    def _lowered(self, counts: Counts, index: int) -> Counts:
        heads = self.layers[index].kind is LayerKind.ATTENTION
        lowered = counts.copy()
        lowered[index] -= 1 if heads else max(1, round(_PROBE_SHARE * counts[index]))
        return lowered

    def _expected(self, counts: Counts) -> NDArray[np.float64]:
        levels = 1.0 - counts / np.array([layer.units for layer in self.layers])
        return np.array([float(self.curves.at(i, level)) for i, level in enumerate(levels)])

    def _allocate(self, target: float, available: Counts) -> Counts:
        return allocate(
            self.layers,
            self.curves,
            self.costs,
            target,
            limits=self.schedule.limits,
            available=available,
            equal=self.schedule.equal_layers,
        )

    def _run(self, counts: Counts) -> tuple[MaskedPass, float]:
        probe = dict(enumerate(map(int, counts)))
        # What blocks returned is of use to the fresh probes that branch off, and large.
        result = self.masked.run(probe) if self.schedule.step_probes else self.masked.run_all([probe])[0]
        self.evaluations += 1
        return result, self.measure(result)
