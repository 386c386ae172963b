"""How many tokens a language model keeps where they and its blocks share one budget of bytes.

A row of the embeddings that stays takes bytes from the blocks; a token that goes has to be spelled when it comes all
the same. Speakers differ in how often it will: some go on as they began, and others have new things to say.
"""

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from personalization.allocation import Curves, allocate, fit_curves, weight_costs
from personalization.costs import BYTES_PER_WEIGHT, unit_costs
from personalization.errors import UserError
from personalization.layers import Layer, find_layers
from personalization.local_errors import LocalErrors
from personalization.masked import MaskedModel
from personalization.measurement import measure
from personalization.prior import Prior
from personalization.prior_completion import completed_prior
from personalization.private_trace import compensation, device_trace, fit_split
from personalization.readout import embedding_parameters
from personalization.sensing import probe_levels
from personalization.settings import PersonalizationSettings
from personalization.texts import TextPreprocessing, Tokens
from personalization.trace import DenseTrace, Inputs
from personalization.vocabulary import mean_predictions, smallest_sizes

# What a token costs more that is spelled, nats, on the scale of curves, which say more than the blocks then lose.
_SPELLED = 12.0
# Sizes that are compared, evenly spread up to the whole vocabulary; between them hardly anything changes.
_SIZES = 16
# Of private text, its end: what comes later is like what came last.
_LATER = 0.2
# Tokens of that end for which what the model expects stands in: little text says nothing of what is rare.
_EXPECTED_TOKENS = 1000


def vocabulary_size(
    model: nn.Module,
    preprocessing: TextPreprocessing,
    inputs: Inputs,
    windows: Tokens,
    *,
    prior: Prior | None,
    settings: PersonalizationSettings,
) -> int:
    """Return the number of tokens at which those that are spelled and what the blocks lose should cost least together.

    inputs: what is measured on. windows [windows, length + 1]: all private text, the latest last. prior: what the
    fleet knows of the blocks; without one, a masked pass tells how much local errors are felt. Raises UserError for a
    budget too small for any size, and for a tokenizer that can't be cut.
    """
    layers = find_layers(model)
    samples = len(next(iter(inputs.values())))
    fit = fit_split(samples, settings.held_out_share, np.random.default_rng(settings.seed))
    errors = LocalErrors(settings.levels, compensation(settings, fit), measured=~fit)
    trace = device_trace(model, layers, inputs, settings, look=errors.look)
    assert trace.head is not None
    sizes, shares = spelled_shares(preprocessing, windows, mean_predictions(trace.head, trace.outputs))
    lost = _lost(trace, sizes, _curves(trace, errors, fit, prior, settings), settings)
    return int(sizes[np.argmin(_SPELLED * shares + lost)])


def spelled_shares(
    preprocessing: TextPreprocessing, windows: Tokens, expected: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return sizes of the vocabulary [sizes], and for each the share of the tokens to come that it spells, [sizes].

    windows [windows, length + 1]: text whose beginning, beside what is `expected` [tokens] by the model, decides which
    tokens are kept, and whose end tells how often others come. Raises UserError for a tokenizer that can't be cut.
    """
    text = windows[:, 1:].ravel()
    beginning, end = np.split(text, [round(len(text) * (1.0 - _LATER))])
    kept_from = smallest_sizes(preprocessing, beginning, expected)
    comes = np.bincount(end, minlength=len(expected)) + _EXPECTED_TOKENS * expected
    sizes = np.linspace(0, len(expected), _SIZES + 1).round().astype(np.int64)[1:]
    sizes = sizes[sizes >= kept_from.min()]
    return sizes, np.array([comes[kept_from > size].sum() for size in sizes]) / comes.sum()


def _curves(
    trace: DenseTrace, errors: LocalErrors, fit: Tensor, prior: Prior | None, settings: PersonalizationSettings
) -> Curves:
    """Return what the device expects each layer to cost, nats."""
    own, levels = errors.of(trace), probe_levels(trace.layers, settings.levels)
    if prior is not None and prior.sensitivity.any():
        return fit_curves(completed_prior(prior, trace.layers, own).sensitivity, levels)
    felt = fit_curves(own.ravel(), levels)
    counts = allocate(trace.layers, felt, weight_costs(trace.layers), settings.budget, limits=_limits(trace, settings))
    masked = MaskedModel(trace, compensation(settings, fit), measured=~fit)
    outputs = masked.run_all([dict(enumerate(map(int, counts)))])[0].outputs
    increase = measure(trace, outputs, signal="entropy", labels=None, on=~fit)
    return replace(felt, scale=felt.scale * increase / max(_sum(felt, trace.layers, counts), 1e-12))


def _lost(
    trace: DenseTrace, sizes: NDArray[np.int64], curves: Curves, settings: PersonalizationSettings
) -> NDArray[np.float64]:
    """Return what the blocks are expected to lose, nats, where so many tokens are kept, [sizes]; infinite where the
    budget has no room for them. Raises UserError where it has for none.
    """
    layers, dense = trace.layers, np.array([layer.units for layer in trace.layers], dtype=np.int64)
    costs, limits = unit_costs("bytes", trace.model, layers, trace.inputs), _limits(trace, settings)
    budget, row = settings.budget * costs.total(dense), _row_bytes(trace.model)
    lost = np.full(len(sizes), np.inf)
    for number, size in enumerate(sizes):
        smaller = replace(costs, fixed=costs.fixed - (trace.classes - size) * row)
        share = min(1.0, budget / smaller.total(dense))
        # The smallest has the most room for blocks: if that is too little, the line about it is the user's.
        with suppress(UserError) if number else nullcontext():
            lost[number] = _sum(curves, layers, allocate(layers, curves, smaller, share, limits=limits))
    return lost


def _sum(curves: Curves, layers: Sequence[Layer], counts: NDArray[np.int64]) -> float:
    gone = ((layer.index, 1.0 - counts[layer.index] / layer.units) for layer in layers)
    return sum(float(curves.at(index, np.array(level))) for index, level in gone)


def _limits(trace: DenseTrace, settings: PersonalizationSettings) -> NDArray[np.float64]:
    return np.full(len(trace.layers), settings.generic_limit)


def _row_bytes(model: nn.Module) -> int:
    """Return what a token takes in the model: a row of the embeddings, another of the head if they aren't tied."""
    return sum(BYTES_PER_WEIGHT * tensor[0].numel() for tensor in embedding_parameters(model).values())
