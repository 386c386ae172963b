"""How many tokens a language model keeps where they and its blocks share one budget of bytes.

A row of the embeddings that stays takes bytes from the blocks; a token that goes has to be spelled when it comes all
the same. Speakers differ in how often it will: some go on as they began, and others have new things to say.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from personalization.allocation.allocate import Curves, allocate
from personalization.allocation.costs import BYTES_PER_WEIGHT, unit_costs
from personalization.data.texts import TextPreprocessing, Tokens
from personalization.errors import UserError
from personalization.transformer.layers import Layer
from personalization.transformer.readout import embedding_parameters
from personalization.transformer.trace import DenseTrace
from personalization.vocabulary.cut import smallest_sizes

# What a token costs more that is spelled, nats, on the scale of curves, which say more than the blocks then lose.
_SPELLED = 12.0
# Sizes that are compared, evenly spread up to the whole vocabulary; between them hardly anything changes.
_SIZES = 16
# Of private text, its end: what comes later is like what came last.
_LATER = 0.2
# Tokens of that end for which what the model expects stands in: little text says nothing of what is rare.
_EXPECTED_TOKENS = 1000


def vocabulary_size(
    trace: DenseTrace,
    preprocessing: TextPreprocessing,
    windows: Tokens,
    expected: NDArray[np.float64],
    *,
    curves: Curves,
    budget: float,
    limits: NDArray[np.float64],
) -> int:
    """Return the number of tokens at which those that are spelled and what the blocks lose should cost least together.

    trace: what the model with all tokens makes of what is measured on, and `expected` [tokens] of the next token there.
    windows [windows, length + 1]: all private text, the latest last. curves, limits [layers]: what each layer is
    expected to cost, and its largest level. budget: share of the whole model's bytes. Raises UserError for a budget too
    small for any size, and for a tokenizer that can't be cut.
    """
    sizes, shares = spelled_shares(preprocessing, windows, expected)
    return int(sizes[np.argmin(_SPELLED * shares + _lost(trace, sizes, curves, budget, limits))])


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


def _lost(
    trace: DenseTrace, sizes: NDArray[np.int64], curves: Curves, budget: float, limits: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what the blocks are expected to lose, nats, where so many tokens are kept, [sizes]; infinite where the
    budget has no room for them. Raises UserError where it has for none.
    """
    layers, dense = trace.layers, np.array([layer.units for layer in trace.layers], dtype=np.int64)
    costs, row = unit_costs("bytes", trace.model, layers, trace.inputs), _row_bytes(trace.model)
    whole, lost = costs.total(dense), np.full(len(sizes), np.inf)
    smaller = [replace(costs, fixed=costs.fixed - (trace.classes - size) * row) for size in sizes]
    for number, cost in enumerate(smaller):
        with suppress(UserError):
            share = min(1.0, budget * whole / cost.total(dense))
            lost[number] = _sum(curves, layers, allocate(layers, curves, cost, share, limits=limits))
    if not np.isfinite(lost).any():
        least = (smaller[0].total(np.ceil(dense * (1.0 - limits)).astype(np.int64)) + costs.cut) / whole
        raise UserError(
            f"budget {budget}: with {sizes[0]:,} tokens the limits allow at least {least:.3f} of the model's bytes; "
            "raise the budget or the layer limit"
        )
    return lost


def _sum(curves: Curves, layers: Sequence[Layer], counts: NDArray[np.int64]) -> float:
    gone = ((layer.index, 1.0 - counts[layer.index] / layer.units) for layer in layers)
    return sum(float(curves.at(index, np.array(level))) for index, level in gone)


def _row_bytes(model: nn.Module) -> int:
    """Return what a token takes in the model: a row of the embeddings, another of the head if they aren't tied."""
    return sum(BYTES_PER_WEIGHT * tensor[0].numel() for tensor in embedding_parameters(model).values())
