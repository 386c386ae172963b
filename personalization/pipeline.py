"""Everything one device does, in one call: trace, probe, recover, split, allocate, prune, compensate, cut."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from personalization.allocation import Costs, fit_curves
from personalization.blockwise import BlockwiseCut, cut_in_blocks
from personalization.costs import unit_costs
from personalization.cutting import cut_model
from personalization.distillation import distill
from personalization.errors import UserError
from personalization.extras import check_adapters
from personalization.head import classifier_path, label_shift, shift_classifier
from personalization.layers import Layer, find_layers
from personalization.masked import Compensation, MaskedModel, MaskedPass, Units
from personalization.measurement import agreement, measure
from personalization.prior import Prior
from personalization.prior_completion import completed_prior
from personalization.pruning import Pruned, Schedule, StepBuffer
from personalization.recovery import RecoveryResult, recover
from personalization.sensing import (
    Measure,
    ProbeSamples,
    draw_probes,
    personalized_layers,
    probe_levels,
    take_samples,
    telling_atoms,
)
from personalization.settings import AUTOMATIC, PersonalizationSettings
from personalization.trace import DenseTrace, Inputs, trace_dense
from personalization.training import TrainingData, TrainingSettings, spread
from personalization.tuning import tune

FEWEST_SAMPLES = 8
# Fresh probes in each step of a device whose fleet does not know every atom yet: what is not known, the steps must see.
STEP_PROBES = 6


@dataclass(frozen=True, kw_only=True)
class Personalization:
    """A device's personal model and how it came about.

    model: cut, in evaluation mode. kept: unit indices per layer. levels [layers]: shares removed. personalized
    [layers]. sensitivity [atoms] in nats with its precision [atoms] in [0, 1). fit_r2: cross-validated fit of the
    additive model to the probes, None where there were too few. entropy_increase (nats), agreement: of the cut before
    training, on held-out private samples. weights_kept: share of the blocks' weights. evaluations: passes spent
    on probes and steps. samples: the compressed-sensing samples, past ones included. pruned: the steps.
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


def personalize(
    model: nn.Module,
    inputs: Inputs,
    *,
    labels: Tensor | None = None,
    prior: Prior | None = None,
    dropped_units: Sequence[Units] | None = None,
    past: ProbeSamples | None = None,
    training: TrainingData | None = None,
    budget_of: nn.Module | None = None,
    settings: PersonalizationSettings,
) -> Personalization:
    """Personalize `model`, which stays as it is, to the private samples `inputs`.

    inputs: the model's arguments, the first dimension of each is samples. labels: needed by the `loss` signal and
    where the settings tune, one for each prediction: [samples], or for a language model the next tokens, [samples,
    positions]. prior: of the fleet. dropped_units: per layer, units that the fleet has dropped. past: samples of
    earlier rounds, measured on the same data. training: what to train on instead of `inputs`, if the recovery trains,
    and to take more samples from for the final cut.
    budget_of: the model that the budget is a share of, where `model` has fewer tokens than that. Raises UserError where
    the samples are too few, labels do not fit or the budget can't be met.
    """
    count = _check(inputs, labels, settings, training)
    layers = find_layers(model)
    rng = np.random.default_rng(settings.seed)
    trace = device_trace(model, layers, inputs, settings)
    if settings.signal == "loss" and labels is not None:
        _check_labels(trace, labels)
    fit = fit_split(count, settings.held_out_share, rng)
    allowed = _allowed(layers, dropped_units)
    masked = MaskedModel(trace, compensation(settings, fit), allowed, measured=~fit)

    def increase(result: MaskedPass) -> float:
        return measure(trace, result.outputs, signal=settings.signal, labels=labels, on=~fit)

    past = past or ProbeSamples.none(len(layers) * len(settings.levels))
    samples = past.joined(_sense(masked, prior, past, settings, increase, rng))
    recovered = recover(
        samples.design,
        samples.measurements,
        solver=settings.solver,
        prior=completed_prior(prior, layers, probe_levels(layers, settings.levels)),
        levels=len(settings.levels),
        seed=settings.seed,
    )
    personalized = personalized_layers(recovered.sensitivity, len(settings.levels), settings.personalized_share)
    pruned = _prune(masked, recovered, personalized, prior, settings, increase, budget_of)
    if pruned.last is not None:
        # Nobody needs the step's writers any more, and those of a whole model are large.
        pruned = replace(pruned, last=replace(pruned.last, writers={}, block_outputs=()))
    whole = tuned_first(trace, settings, labels=labels, training=training)
    final = _final_cut(MaskedModel(whole, masked.compensation), pruned, training, settings)
    kept = tuple(final.kept[layer.index] for layer in layers)
    return Personalization(
        model=trained(_cut(whole, kept, final), whole, settings, labels=labels, training=training),
        layers=layers,
        kept=kept,
        levels=1.0 - pruned.counts / np.array([layer.units for layer in layers]),
        personalized=personalized,
        sensitivity=recovered.sensitivity,
        precision=recovered.precision,
        fit_r2=recovered.r2,
        entropy_increase=pruned.increase,
        agreement=1.0 if pruned.last is None else agreement(trace, pruned.last.outputs, on=~fit),
        weights_kept=sum(len(k) * layer.weights_per_unit for k, layer in zip(kept, layers, strict=True))
        / sum(layer.weights for layer in layers),
        evaluations=len(samples.measurements) - len(past.measurements) + pruned.evaluations,
        samples=samples,
        pruned=pruned,
    )


def device_trace(
    model: nn.Module, layers: tuple[Layer, ...], inputs: Inputs, settings: PersonalizationSettings
) -> DenseTrace:
    """Run the dense model on the private samples and fit its head to them if the settings ask for it."""
    trace = trace_dense(model, layers, inputs)
    adaptable = trace.outputs.ndim == 2 and classifier_path(model, layers, trace.classes) is not None
    return replace(trace, shift=label_shift(trace.outputs)) if settings.adapt_head and adaptable else trace


def compensation(settings: PersonalizationSettings, fit: Tensor) -> Compensation:
    """Return how layers are cut under `settings`, with moments from the samples `fit` [samples] of bool."""
    return Compensation(ridge=None if settings.recovery == "fold" else settings.ridge, score=settings.score, fit=fit)


def fit_split(samples: int, held_out_share: float, rng: np.random.Generator) -> Tensor:
    """Return [samples] of bool: true for what refits see, false for the held-out share (at least 2 of each)."""
    held = min(max(2, round(held_out_share * samples)), samples - 2)
    fit = torch.ones(samples, dtype=torch.bool)
    fit[torch.from_numpy(rng.permutation(samples)[:held])] = False
    return fit


def final_pass(masked: MaskedModel, pruned: Pruned) -> MaskedPass:
    """Repeat the last committed step with moments of all private samples: what was held out has done its work."""
    everything = replace(masked.compensation, fit=torch.ones_like(masked.compensation.fit))
    final = MaskedModel(masked.trace, everything, pruned.allowed)
    return final.run_all([dict(enumerate(map(int, pruned.counts)))])[0]


def tuned_first(
    trace: DenseTrace, settings: PersonalizationSettings, *, labels: Tensor | None, training: TrainingData | None
) -> DenseTrace:
    """Return what the dense model does with the private samples once it is tuned to them, if the settings ask for it.

    Which units go is decided before: the fleet's statistics are of the model that all of it has.
    """
    if not settings.tune_first:
        return trace
    data = training or TrainingData(trace.inputs, labels)
    tuned = tune(trace.model, trace.layers, data, settings=_training_settings(settings, settings.tune_first))
    return device_trace(tuned, trace.layers, trace.inputs, settings)


def _final_cut(
    masked: MaskedModel, pruned: Pruned, training: TrainingData | None, settings: PersonalizationSettings
) -> MaskedPass | BlockwiseCut:
    """Return the cut that is kept: from the samples of the trace, or block by block from more of them."""
    trace = masked.trace
    if not settings.refit_samples:
        return final_pass(masked, pruned)
    if trace.head is None:
        raise UserError("refit_samples is for language models: an image model is cut on all private images already")
    if training is None or min(settings.refit_samples, training.samples) <= trace.samples:
        return final_pass(masked, pruned)
    return cut_in_blocks(
        trace.model,
        trace.layers,
        spread(training, settings.refit_samples),
        dict(enumerate(map(int, pruned.counts))),
        compensation=replace(masked.compensation, carried=masked.carried),
        allowed=pruned.allowed,
    )


def _check(
    inputs: Inputs, labels: Tensor | None, settings: PersonalizationSettings, training: TrainingData | None
) -> int:
    counts = {len(value) for value in inputs.values()}
    if len(counts) != 1:
        raise UserError(f"inputs of {sorted(counts)} samples; expected as many of each")
    count = counts.pop()
    if count < FEWEST_SAMPLES:
        raise UserError(
            f"{count} private samples; probes need at least {FEWEST_SAMPLES}, to fit on some and measure on others"
        )
    if settings.signal == "loss" and (labels is None or len(labels) != count):
        raise UserError("signal loss needs a label for every private sample; give labels or use signal entropy")
    if settings.trains or settings.tunes:
        _check_training(labels if training is None else training.labels, settings)
    return count


def _check_training(labels: Tensor | None, settings: PersonalizationSettings) -> None:
    """Raise UserError before the search, which takes long, for what would be missing after it."""
    if settings.tunes and labels is None:
        asked = "tune_first" if settings.tune_first else "recovery tune"
        raise UserError(f"{asked} needs labels, which these samples lack; recovery distill needs none")
    if settings.adapters:
        check_adapters()


def _check_labels(trace: DenseTrace, labels: Tensor) -> None:
    if labels.shape != trace.outputs.shape[:-1]:
        expected = f"expected {list(trace.outputs.shape[:-1])}, one for each prediction"
        raise UserError(f"labels of shape {list(labels.shape)}; {expected}")
    if bool(((labels < 0) | (labels >= trace.classes)).any()):
        raise UserError(
            f"labels from {int(labels.min())} to {int(labels.max())}; the model knows 0 to {trace.classes - 1}"
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
    increase: Measure,
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
    return take_samples(masked, design, settings.levels, measure=increase, available=available)


def _prune(
    masked: MaskedModel,
    recovered: RecoveryResult,
    personalized: NDArray[np.bool_],
    prior: Prior | None,
    settings: PersonalizationSettings,
    increase: Measure,
    budget_of: nn.Module | None,
) -> Pruned:
    trace = masked.trace
    costs = unit_costs(settings.budget_kind, trace.model, trace.layers, trace.inputs)
    schedule = Schedule(
        budget=min(1.0, settings.budget * _share_of(budget_of, costs, trace, settings)),
        steps=settings.steps,
        step_probes=_step_probes(settings, prior, trace),
        tolerance=settings.tolerance,
        limits=np.where(personalized, settings.personalized_limit, settings.generic_limit),
    )
    curves = fit_curves(recovered.sensitivity, probe_levels(trace.layers, settings.levels))
    return StepBuffer(masked, curves, costs, schedule, increase).prune()


def _share_of(budget_of: nn.Module | None, costs: Costs, trace: DenseTrace, settings: PersonalizationSettings) -> float:
    """Return how many times the cost of the model in hand the model costs that the budget is a share of."""
    if budget_of is None or budget_of is trace.model:
        return 1.0
    dense = np.array([layer.units for layer in trace.layers], dtype=np.int64)
    whole = unit_costs(settings.budget_kind, budget_of, trace.layers, trace.inputs)
    return whole.total(dense) / costs.total(dense)


def _step_probes(settings: PersonalizationSettings, prior: Prior | None, trace: DenseTrace) -> int:
    if settings.step_probes != AUTOMATIC:
        return settings.step_probes
    known = prior is not None and bool(prior.precision.all())
    # A fresh probe cuts all blocks behind it anew, which in a language model takes as long as a round should.
    return 0 if known or trace.head is not None else STEP_PROBES


def _cut(trace: DenseTrace, kept: Sequence[Units], final: MaskedPass | BlockwiseCut) -> nn.Module:
    writers = {}
    for index in list(final.writers):
        # Out of the pass as soon as they are copied: two sets of a whole model's writers are too many.
        writer = final.writers.pop(index)
        writers[index] = (writer.weight.clone(), writer.bias.clone())
    model = cut_model(trace.model, trace.layers, kept, writers)
    path = classifier_path(model, trace.layers, trace.classes)
    if path is not None and bool(trace.shift.any()):
        shift_classifier(model, path, trace.shift)
    return model


def trained(
    model: nn.Module,
    trace: DenseTrace,
    settings: PersonalizationSettings,
    *,
    labels: Tensor | None = None,
    training: TrainingData | None = None,
) -> nn.Module:
    """Return what the training that `settings` ask for makes of a cut model: a copy, or `model` itself if none.

    training: what to train on; None takes the samples of the trace, of which `labels` are known.
    """
    if not settings.trains:
        return model
    batches = _training_settings(settings, settings.training_steps)
    if settings.recovery == "distill":
        return distill(model, trace, settings=batches, data=training)
    return tune(model, trace.layers, training or TrainingData(trace.inputs, labels), settings=batches)


def _training_settings(settings: PersonalizationSettings, steps: int) -> TrainingSettings:
    return TrainingSettings(
        steps=steps,
        adapters=settings.adapters,
        precision=settings.training_precision,
        seed=settings.seed,
    )
