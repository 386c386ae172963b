"""What becomes of a search's result: the last cut, on all private samples, and the training before and after it."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from personalization.allocation.pruning import Pruned
from personalization.cutting.blockwise import BlockwiseCut, cut_in_blocks
from personalization.cutting.cut_model import cut_model
from personalization.cutting.masked import Compensation, MaskedModel, MaskedPass, Units
from personalization.data.tasks import PrivateSamples
from personalization.sensing.private_trace import device_trace
from personalization.settings import PersonalizationSettings
from personalization.training.distillation import distill
from personalization.training.loop import TrainingData, TrainingSettings, spread
from personalization.training.tuning import tune, tune_first
from personalization.transformer.head import classifier_path, shift_classifier
from personalization.transformer.trace import DenseTrace, Inputs
from personalization.vocabulary.cut import cut_vocabulary, expected_tokens, mean_predictions
from personalization.vocabulary.fewer_tokens import FewerTokens
from personalization.vocabulary.own import OwnVocabulary, own_vocabulary
from personalization.vocabulary.spelled_distillation import distill_spelled
from personalization.vocabulary.whole_teacher import WholeTeacher


@dataclass(frozen=True)
class FinalCut:
    """model: cut, in evaluation mode. kept: units of each layer. whole: the model it was cut from, and what that
    predicts. samples: what the model reads. own: the tokens that it has left, None where it has all of them.
    """

    model: nn.Module
    kept: tuple[Units, ...]
    whole: DenseTrace
    samples: PrivateSamples
    own: OwnVocabulary | None


def final_cut(
    trace: DenseTrace,
    compensation: Compensation,
    pruned: Pruned,
    settings: PersonalizationSettings,
    samples: PrivateSamples,
    *,
    fewer: FewerTokens | None = None,
) -> FinalCut:
    """Make a model of the units that pruning has left, tuned first and cut as `settings` ask.

    trace: of the model that was searched; its activations are not needed where that is tuned first. samples: those of
    the trace, with what to tune on and to take more of for the cut. fewer: how many tokens may stay, None for all.
    They go last: there is hardly one in private text that goes.
    """
    whole, own = tuned_first(trace, settings, samples), None
    more = _more_samples(trace, samples.training, settings)
    final = _last_pass(MaskedModel(whole, compensation), pruned, more)
    kept, model = tuple(final.kept[layer.index] for layer in trace.layers), made_of(whole, final)
    if fewer is not None:
        # A tuned model knows better what its person may say.
        own = own_vocabulary(whole.model, samples, fewer, _expected(whole, more, fewer if whole is trace else None))
        model, samples = cut_vocabulary(model, own.cut), own.samples
    return FinalCut(model, kept, whole.without_activations(), samples, own)


def final_pass(masked: MaskedModel, pruned: Pruned) -> MaskedPass:
    """Repeat the last committed step with moments of all private samples: what was held out has done its work."""
    everything = replace(masked.compensation, fit=torch.ones_like(masked.compensation.fit))
    final = MaskedModel(masked.trace, everything, pruned.allowed)
    return final.run_all([dict(enumerate(map(int, pruned.counts)))])[0]


def tuned_first(trace: DenseTrace, settings: PersonalizationSettings, samples: PrivateSamples) -> DenseTrace:
    """Return what the dense model does with the private samples once it is tuned to them, if the settings ask for it.

    samples: those of the trace, with what to tune on where that is more. Which units go is decided before: the fleet's
    statistics are of the model that all of it has.
    """
    if not settings.tune_first:
        return trace
    tuned = tune_first(trace.model, samples.training or TrainingData(samples.inputs, samples.labels), settings)
    return device_trace(tuned, trace.layers, trace.inputs, settings)


def _more_samples(trace: DenseTrace, training: TrainingData | None, settings: PersonalizationSettings) -> Inputs | None:
    """Return what the last cut is made of where that is more than the samples of the trace, None where it is not."""
    if training is None or min(settings.refit_samples, training.samples) <= trace.samples:
        return None
    return spread(training, settings.refit_samples)


def _expected(whole: DenseTrace, more: Inputs | None, known: FewerTokens | None) -> NDArray[np.float64]:
    """Return the mean probability of each token, [tokens], over `more`, or the samples of the trace where that is None.

    known: what has been found of the same model with the latter.
    """
    if more is not None:
        return expected_tokens(whole.model, more)
    if known is not None and known.expected is not None:
        return known.expected
    assert whole.head is not None
    return mean_predictions(whole.head, whole.outputs)


def _last_pass(masked: MaskedModel, pruned: Pruned, more: Inputs | None) -> MaskedPass | BlockwiseCut:
    """Return the cut that is kept: from the samples of the trace, or block by block from `more` of them."""
    trace = masked.trace
    if pruned.counts.tolist() == [layer.units for layer in trace.layers]:
        # Nothing goes, so there is nothing to make up for, and refits would only add their biases.
        return BlockwiseCut({layer.index: np.arange(layer.units) for layer in trace.layers})
    if more is None:
        return final_pass(masked, pruned)
    return cut_in_blocks(
        trace.model,
        trace.layers,
        more,
        dict(enumerate(map(int, pruned.counts))),
        compensation=replace(masked.compensation, carried=masked.carried),
        allowed=pruned.allowed,
    )


def made_of(trace: DenseTrace, final: MaskedPass | BlockwiseCut) -> nn.Module:
    """Return the model that a cut of the model of `trace` leaves, with its head fitted as in the trace.

    The cut's writers are gone afterwards.
    """
    kept = [final.kept[layer.index] for layer in trace.layers]
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
    samples: PrivateSamples,
    *,
    teacher: WholeTeacher | None = None,
) -> nn.Module:
    """Return what the training that `settings` ask for makes of a cut model: a copy, or `model` itself if none.

    samples: those of the trace, with what to train on where that is more. teacher: what to learn from instead of the
    model of `trace`, where that has fewer tokens.
    """
    if not settings.trains:
        return model
    batches = TrainingSettings.of(settings, steps=settings.training_steps)
    if settings.recovery == "tune":
        return tune(
            model, trace.layers, samples.training or TrainingData(samples.inputs, samples.labels), settings=batches
        )
    both = settings.recovery == "distill-tune"
    if teacher is not None:
        return distill_spelled(model, trace.layers, teacher, settings=batches, labels=both)
    known = samples.labels if samples.training is None else samples.training.labels
    return distill(model, trace, settings=batches, data=samples.training, labels=known if both else None)
