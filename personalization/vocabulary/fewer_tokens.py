"""How many tokens a personal language model keeps, decided once its layers are known, and what its units then cost."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from personalization.allocation.allocate import Costs, Curves
from personalization.allocation.costs import unit_costs
from personalization.data.tasks import PrivateSamples, all_windows
from personalization.data.texts import TextPreprocessing
from personalization.settings import AUTOMATIC, PersonalizationSettings
from personalization.transformer.trace import DenseTrace
from personalization.vocabulary.cut import VocabularyCut, cut_vocabulary, mean_predictions
from personalization.vocabulary.size import vocabulary_size


@dataclass(frozen=True)
class FewerTokens:
    """A vocabulary that is to be cut to at most `most` tokens.

    preprocessing: with all of them. expected [tokens]: the mean probability that the model that was searched gives each
    of them on the samples that are measured on; None where nobody has asked for it yet.
    """

    preprocessing: TextPreprocessing
    most: int
    expected: NDArray[np.float64] | None = None


def fewer_tokens(
    trace: DenseTrace,
    preprocessing: TextPreprocessing,
    private: PrivateSamples,
    curves: Curves,
    limits: NDArray[np.float64],
    settings: PersonalizationSettings,
) -> FewerTokens:
    """Return how many tokens may stay: as many as `settings` ask for, or as leave the blocks the best share of bytes.

    trace: of the model with all tokens. curves, limits [layers]: what each layer is expected to cost, and its largest
    level. Raises UserError from `vocabulary_size`.
    """
    if settings.vocabulary != AUTOMATIC:
        return FewerTokens(preprocessing, settings.vocabulary)
    assert trace.head is not None
    expected, windows = mean_predictions(trace.head, trace.outputs), all_windows(private)
    budget = settings.budget
    most = vocabulary_size(trace, preprocessing, windows, expected, curves=curves, budget=budget, limits=limits)
    return FewerTokens(preprocessing, most, expected)


def costs_with(trace: DenseTrace, fewer: FewerTokens | None, settings: PersonalizationSettings) -> tuple[Costs, float]:
    """Return what units cost in a model of so many tokens, and how many times as much the model of `trace` costs."""
    costs = unit_costs(settings.budget_kind, trace.model, trace.layers, trace.inputs)
    if fewer is None or fewer.most >= trace.classes:
        return costs, 1.0
    # Which tokens they are makes no difference to that.
    smaller = cut_vocabulary(trace.model, VocabularyCut(fewer.preprocessing, np.arange(fewer.most)))
    inputs = {name: value.clamp(max=fewer.most - 1) for name, value in trace.inputs.items()}
    left = unit_costs(settings.budget_kind, smaller, trace.layers, inputs)
    dense = np.array([layer.units for layer in trace.layers], dtype=np.int64)
    return left, costs.total(dense) / left.total(dense)
