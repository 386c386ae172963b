"""Distil the dense model into a cut one on the private samples, without labels or beside them.

Hinton et al. 2015, 1503.02531, section 2.
"""

import torch
from torch import Tensor, nn

from personalization.training.loop import (
    LEARNING_RATE,
    TrainingData,
    TrainingSettings,
    batch_size,
    mean_in_chunks,
    train,
)
from personalization.transformer.readout import outputs_of, token_head
from personalization.transformer.trace import DenseTrace

# Of classes. Tokens are as many as they are rare: what counts there is what the dense model says, not its tail.
_TEMPERATURE = 2.0
_TOKEN_TEMPERATURE = 1.0
# A language model that is brought back to what it did before its cut has less to learn than one that is tuned.
TOKEN_RATE = 1e-4
# Of the loss, what labels get where they are learned from as well: with more of it, what little private text there is
# gets learned by heart.
LABEL_SHARE = 0.3
# Bytes that are kept of what the dense model puts out: 900 windows of 128 tokens, of SmolLM2.
_ROOM = 2**28


def distill(
    model: nn.Module,
    trace: DenseTrace,
    *,
    settings: TrainingSettings,
    data: TrainingData | None = None,
    labels: Tensor | None = None,
) -> nn.Module:
    """Return a copy of `model` trained to predict what the dense model does.

    The loss is KL(p_dense || p_model), with the head's shift in both, at a temperature of 2, for language models of 1.
    data: what to train on instead of the samples of the trace; then the dense model is run on each batch, or once on
    all that come more than once. labels: of what is trained on, [samples] or [samples, positions]. With them
    `LABEL_SHARE` of the loss is the cross-entropy of what the model predicts, and the divergence is multiplied by the
    square of the temperature, so that the gradients of both are of one size. See `training.loop.train`.
    """
    # Inference tensors can't be saved for the backward pass; a copy of them can.
    inputs = {name: value.clone() for name, value in (trace.inputs if data is None else data.inputs).items()}
    positions = trace.positions.shape[1]
    outputs = trace.outputs.clone() if data is None else _kept_outputs(trace.model, data, positions, settings)

    def loss(student: nn.Module, pick: Tensor) -> Tensor:
        batch = {name: value[pick] for name, value in inputs.items()}
        with torch.no_grad():
            dense = outputs_of(trace.model, batch) if outputs is None else outputs[pick]
        own, truth = outputs_of(student, batch), None if labels is None else labels[pick]
        if own.ndim == 3:
            places = trace.positions[pick] if data is None else torch.ones(own.shape[:2], dtype=torch.bool)
            dense, own, truth = dense[places], own[places], None if truth is None else truth[places]
        return _loss(trace, student, dense, own, truth)

    return train(
        model,
        trace.layers,
        loss,
        samples=trace.samples if data is None else data.samples,
        positions=positions,
        settings=settings,
        rate=LEARNING_RATE if trace.head is None else TOKEN_RATE,
    )


@torch.no_grad()
def _kept_outputs(model: nn.Module, data: TrainingData, positions: int, settings: TrainingSettings) -> Tensor | None:
    """Return what the dense model puts out for all samples, if they come more than once and it has room: or None."""
    size = batch_size(model, positions)
    if settings.steps * size <= data.samples:
        return None
    batches = zip(*(value.split(size) for value in data.inputs.values()), strict=True)
    made: list[Tensor] = []
    for batch in batches:
        with settings.passes():
            made.append(outputs_of(model, dict(zip(data.inputs, batch, strict=True))))
        if made[0].nbytes * data.samples > _ROOM * len(made[0]):
            return None
    return torch.cat(made)


def _loss(trace: DenseTrace, student: nn.Module, dense: Tensor, own: Tensor, truth: Tensor | None) -> Tensor:
    """Return the mean loss, up to a constant, of what the student puts out, `own`, beside what the dense model does.

    own, dense: [predictions, width] or, of classifiers, [predictions, classes].
    truth: labels [predictions], None where nothing is learned from them.
    """
    head = token_head(student)
    temperature = _TEMPERATURE if head is None else _TOKEN_TEMPERATURE

    def log_probabilities(logits: Tensor, temperature: float) -> Tensor:
        return (logits if temperature == 1.0 else logits / temperature).log_softmax(-1)

    def chunk(own: Tensor, dense: Tensor, *truth: Tensor) -> Tensor:
        with torch.no_grad():
            targets = log_probabilities(trace.logits(dense).float(), temperature).exp()
        # The student's classifier has the shift in its bias; language models have no shift.
        logits = (own if head is None else head(own)).float()
        predicted = log_probabilities(logits, temperature)
        # Less the entropy of the targets this is the divergence: of both the gradients are the same.
        missed = -(targets * predicted).sum(-1)
        if not truth:
            return missed
        plain = predicted if temperature == 1.0 else log_probabilities(logits, 1.0)
        surprise = nn.functional.nll_loss(plain, truth[0], reduction="none")
        return (1.0 - LABEL_SHARE) * temperature**2 * missed + LABEL_SHARE * surprise

    return mean_in_chunks(trace.classes, chunk, own, dense, *(() if truth is None else (truth,)))
