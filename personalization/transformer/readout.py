"""From what a model puts out to predictions: at once for classifiers, in chunks for language models.

A language model predicts one of tens of thousands of tokens at every position, so the logits of a private batch take
gigabytes. What its head reads takes a hundredth of that: this is what is kept of a pass, and the head is applied to a
few positions at a time, where predictions are compared.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from personalization.errors import UserError
from personalization.transformer.forward_replacement import forward_replaced

# Logits that exist at a time, for each model that is compared: 8 MB in single precision. Larger pieces are no faster,
# and the memory that they leave in pieces behind them adds up.
CHUNK_LOGITS = 2**21
_CAUSAL = ("ForCausalLM", "LMHeadModel")


def token_head(model: nn.Module) -> nn.Module | None:
    """Return the head of a causal language model, whose outputs are logits of the next token; None for others."""
    if not type(model).__name__.endswith(_CAUSAL):
        return None
    causal: Any = model
    head: nn.Module | None = causal.get_output_embeddings()
    if head is None:
        raise UserError(f"{type(model).__name__}: a language model without a head; expected one with logits of tokens")
    return head


def embedding_parameters(model: nn.Module) -> dict[int, nn.Parameter]:
    """Return the parameters of a causal language model's embeddings and its head, by id: once where they are tied."""
    causal: Any = model
    modules = (causal.get_input_embeddings(), causal.get_output_embeddings())
    return {id(parameter): parameter for module in modules for parameter in module.parameters()}


def outputs_of(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return logits [samples, classes]; of a causal language model what its head reads, [samples, positions, width].

    Raises UserError if the model has no head that gives logits.
    """
    head = token_head(model)
    with _bypassed(head):
        result = model(**inputs) if head is None else model(**inputs, use_cache=False)
    outputs = getattr(result, "logits", None)
    if not isinstance(outputs, Tensor):
        raise UserError(f"{type(model).__name__}: no logits; give a model with a classification or language-model head")
    return outputs


@torch.inference_mode()
def check_head(model: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    """Raise UserError unless a causal model's logits are what its head makes of what it reads, and nothing more."""
    head = token_head(model)
    if head is None:
        return
    two = {name: value[:1, :2] for name, value in inputs.items()}
    logits = model(**two, use_cache=False).logits
    if not torch.allclose(head(outputs_of(model, two)), logits, rtol=1e-4, atol=1e-4):
        raise UserError(f"{type(model).__name__}: scales or caps its logits behind its head; such models are not known")


def in_chunks(classes: int, *outputs: Tensor, logits: int | None = None) -> Iterator[tuple[Tensor, ...]]:
    """Yield the same few rows of each of `outputs`, [rows, ...], so many that `logits` (default: `CHUNK_LOGITS`) over
    `classes` exist together.
    """
    rows = max(1, (logits or CHUNK_LOGITS) // classes)
    return zip(*(part.split(rows) for part in outputs), strict=True)


@contextmanager
def _bypassed(head: nn.Module | None) -> Iterator[None]:
    if head is None:
        yield
        return
    with forward_replaced(head, lambda hidden: hidden):
        yield
