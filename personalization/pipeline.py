"""Everything one device does, in one call: trace, probe, recover, split, allocate, prune, compensate, cut."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from personalization.allocation.allocate import Curves, fit_curves
from personalization.allocation.pruning import Pruned, Schedule, StepBuffer
from personalization.cutting.masked import MaskedModel, Units
from personalization.data.tasks import Preprocessing, PrivateSamples
from personalization.data.texts import TextPreprocessing
from personalization.final_model import final_cut, trained
from personalization.preconditions import check_tokens, check_trace, checked_count
from personalization.recovery import RecoveryResult, recover
from personalization.sensing.local_errors import LocalErrors
from personalization.sensing.measurement import DensePredictions
from personalization.sensing.prior import Prior
from personalization.sensing.prior_completion import completed_prior, prior_of_errors
from personalization.sensing.private_trace import compensation, device_trace, fit_split
from personalization.sensing.probes import (
    ProbeSamples,
    draw_probes,
    personalized_layers,
    probe_levels,
    take_samples,
    telling_atoms,
)
from personalization.settings import AUTOMATIC, PersonalizationSettings
from personalization.training.loop import TrainingData
from personalization.transformer.layers import Layer, find_layers
from personalization.transformer.trace import DenseTrace, Inputs
from personalization.vocabulary.fewer_tokens import FewerTokens, costs_with, fewer_tokens

# Fresh probes in each step of a device whose fleet does not know every atom yet: what is not known, the steps must see.
STEP_PROBES = 6


@dataclass(frozen=True, kw_only=True)
class Personalization:
    """A device's personal model and how it came about.

    model: cut, in evaluation mode. kept: unit indices per layer. levels [layers]: shares removed. personalized
    [layers]. sensitivity [atoms] in nats with its precision [atoms] in [0, 1). fit_r2: cross-validated fit of the
    additive model to the probes, None where there were too few. entropy_increase (nats), agreement: of the cut before
    training, on held-out private samples. weights_kept: share of the blocks' weights. evaluations: passes spent
    on probes and steps. samples: the compressed-sensing samples, past ones included. pruned: the steps. fewer_tokens:
    the tokenizer of those that `model` has left, None where it has all.
    """

    model: nn.Module
    layers: tuple[Layer, ...]
    kept: tuple[Units, ...]
    levels: NDArray[np.float64]
    personalized: NDArray[np.bool_]
    sensitivity: NDArray[np.float64]
    precision: NDArray[np.float64]
    fit_r2: float | None
    entropy_increase: float
    agreement: float
    weights_kept: float
    evaluations: int
    samples: ProbeSamples
    pruned: Pruned
    fewer_tokens: TextPreprocessing | None = None


def personalize(
    model: nn.Module,
    inputs: Inputs,
    *,
    labels: Tensor | None = None,
    prior: Prior | None = None,
    dropped_units: Sequence[Units] | None = None,
    past: ProbeSamples | None = None,
    training: TrainingData | None = None,
    preprocessing: Preprocessing | None = None,
    final: bool = True,
    settings: PersonalizationSettings,
) -> Personalization:
    """Personalize `model`, which stays as it is, to the private samples `inputs`.

    inputs: the model's arguments, the first dimension of each is samples. labels: needed by the `loss` signal, where
    the settings tune and where they cut the vocabulary, one for each prediction: [samples], or for a language model
    the next tokens, [samples, positions]. prior: of the fleet. dropped_units: per layer, units that the fleet has
    dropped. past: samples of earlier rounds, measured on the same data. training: what to train on instead of `inputs`,
    if the recovery trains, and to take more samples from for the final cut. preprocessing: how text becomes inputs,
    needed where the settings cut the vocabulary: the search is of the model with all tokens, the personal model has
    fewer. final: whether the personal model is to stay; the one that a round leaves is cut of `inputs` alone and trains
    nothing, whatever the settings ask for. Raises UserError where the samples are too few, labels do not fit, the
    vocabulary can't be cut or the budget can't be met.
    """
    tokenizer = check_tokens(preprocessing, labels, settings)
    count = checked_count(inputs, labels, settings, training)
    private = PrivateSamples(dict(inputs), labels, training)
    layers = find_layers(model)
    rng = np.random.default_rng(settings.seed)
    fit = fit_split(count, settings.held_out_share, rng)
    cut, allowed = compensation(settings, fit), _allowed(layers, dropped_units)
    errors = None
    if prior is None or not prior.certain:
        errors = LocalErrors(settings.levels, cut, allowed=allowed, measured=~fit)
    trace = device_trace(model, layers, inputs, settings, look=None if errors is None else errors.look)
    check_trace(trace, labels, settings)
    masked = MaskedModel(trace, cut, allowed, measured=~fit)
    dense = DensePredictions(trace, signal=settings.signal, labels=labels, on=~fit)
    past = past or ProbeSamples.none(len(layers) * len(settings.levels))
    samples = past.joined(_sense(masked, prior, past, settings, dense, rng))
    recovered = _recovered(samples, prior if errors is None else _expected(errors, trace, samples, prior), settings)
    personalized = personalized_layers(recovered.sensitivity, len(settings.levels), settings.personalized_share)
    curves = fit_curves(recovered.sensitivity, probe_levels(layers, settings.levels))
    limits = np.full(len(layers), settings.layer_limit)
    fewer = None if tokenizer is None else fewer_tokens(trace, tokenizer, private, curves, limits, settings)
    pruned = _prune(masked, curves, limits, prior, settings, dense, fewer)
    if pruned.last is not None:
        # Nobody needs the step's writers any more, and those of a whole model are large.
        pruned = replace(pruned, last=replace(pruned.last, writers={}, block_outputs=()))
    alike = 1.0 if pruned.last is None else dense.agreement(pruned.last)
    lasting = settings if final else settings.searching()
    compensated, searched = masked.compensation, trace.without_activations() if lasting.tune_first else trace
    # The search is over, and what it has kept of the dense model's passes would stand beside what follows.
    del trace, masked, errors, dense
    made = final_cut(searched, compensated, pruned, lasting, private, fewer=fewer)
    del searched
    teacher = None if made.own is None else made.own.teacher
    return Personalization(
        model=trained(made.model, made.whole, lasting, made.samples, teacher=teacher),
        layers=layers,
        kept=made.kept,
        levels=1.0 - pruned.counts / np.array([layer.units for layer in layers]),
        personalized=personalized,
        sensitivity=recovered.sensitivity,
        precision=recovered.precision,
        fit_r2=recovered.r2,
        entropy_increase=pruned.increase,
        agreement=alike,
        weights_kept=_share_kept(layers, made.kept),
        evaluations=len(samples.measurements) - len(past.measurements) + pruned.evaluations,
        samples=samples,
        pruned=pruned,
        fewer_tokens=None if made.own is None else made.own.cut.preprocessing,
    )


def _allowed(layers: Sequence[Layer], dropped: Sequence[Units] | None) -> dict[int, Units]:
    if dropped is None:
        return {}
    return {
        layer.index: np.setdiff1d(np.arange(layer.units), units)
        for layer, units in zip(layers, dropped, strict=True)
        if len(units)
    }


def _sense(
    masked: MaskedModel,
    prior: Prior | None,
    past: ProbeSamples,
    settings: PersonalizationSettings,
    dense: DensePredictions,
    rng: np.random.Generator,
) -> ProbeSamples:
    layers = masked.trace.layers
    available = np.array([len(masked.allowed.get(layer.index, range(layer.units))) for layer in layers])
    design = draw_probes(
        len(layers),
        len(settings.levels),
        settings.probes,
        layers_per_probe=settings.layers_per_probe,
        prior=prior,
        seen=past.design.sum(0),
        rng=rng,
        telling=telling_atoms(layers, settings.levels, available),
    )
    return take_samples(masked, design, settings.levels, measure=dense.increase, available=available)


def _expected(errors: LocalErrors, trace: DenseTrace, samples: ProbeSamples, prior: Prior | None) -> Prior | None:
    """Return what a device expects that knows its local errors and what its fleet has measured."""
    own = errors.of(trace)
    if prior is None or not prior.sensitivity.any():
        return prior_of_errors(own, samples)
    return completed_prior(prior, trace.layers, own)


def _recovered(samples: ProbeSamples, prior: Prior | None, settings: PersonalizationSettings) -> RecoveryResult:
    return recover(
        samples.design,
        samples.measurements,
        solver=settings.solver,
        prior=prior,
        levels=len(settings.levels),
        seed=settings.seed,
    )


def _prune(
    masked: MaskedModel,
    curves: Curves,
    limits: NDArray[np.float64],
    prior: Prior | None,
    settings: PersonalizationSettings,
    dense: DensePredictions,
    fewer: FewerTokens | None,
) -> Pruned:
    costs, times = costs_with(masked.trace, fewer, settings)
    schedule = Schedule(
        budget=min(1.0, settings.budget * times),
        steps=settings.steps,
        step_probes=_step_probes(settings, prior, masked.trace),
        tolerance=settings.tolerance,
        limits=limits,
        equal_layers=settings.equal_layers,
    )
    return StepBuffer(masked, curves, costs, schedule, dense.increase).prune()


def _step_probes(settings: PersonalizationSettings, prior: Prior | None, trace: DenseTrace) -> int:
    if settings.step_probes != AUTOMATIC:
        return settings.step_probes
    # A fresh probe cuts all blocks behind it anew, which in a language model takes as long as a round should.
    known = trace.head is not None or (prior is not None and prior.complete)
    return 0 if known else STEP_PROBES


def _share_kept(layers: Sequence[Layer], kept: Sequence[Units]) -> float:
    weights = sum(len(units) * layer.weights_per_unit for layer, units in zip(layers, kept, strict=True))
    return weights / sum(layer.weights for layer in layers)
