"""Train a model that has been cut, on private samples: the loop that distillation and tuning share."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from personalization.settings import PersonalizationSettings, Precision
from personalization.system.allocator import trim
from personalization.training.adapters import add_adapters, merge_adapters
from personalization.transformer.layers import Layer
from personalization.transformer.readout import embedding_parameters, in_chunks, token_head
from personalization.transformer.trace import Inputs

_BATCH = 32
# Of language models, whose samples are long: what the backward pass keeps of them would not fit otherwise.
_BATCH_POSITIONS = 512
LEARNING_RATE = 3e-4
_ADAPTER_RATE = 10.0
# Logits of a language model that exist at a time: 32 MB. Its head is read once for each piece.
_CHUNK_LOGITS = 2**23


@dataclass(frozen=True)
class TrainingData:
    """Private samples to train on. inputs: arguments of the model, each [samples, ...]. labels: [samples] or, of text,
    the next tokens [samples, positions]; None where there are none.
    """

    inputs: Inputs
    labels: Tensor | None

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(next(iter(self.inputs.values())))


def spread(data: TrainingData, most: int) -> Inputs:
    """Return the inputs of at most `most` samples, evenly spread over those of `data`."""
    chosen = torch.linspace(0, data.samples - 1, min(most, data.samples)).round().long()
    return {name: value[chosen] for name, value in data.inputs.items()}


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """steps: batches to train on. adapters: rank of the LoRA adapters that are trained instead of the weights, 0 for
    none. precision: of the passes; weights and their updates are in single precision always. seed: of the order of the
    samples, and of the adapters.
    """

    steps: int
    adapters: int = 0
    precision: Precision = "single"
    seed: int = 0

    @classmethod
    def of(cls, settings: PersonalizationSettings, *, steps: int) -> "TrainingSettings":
        """Return how a device trains for so many batches."""
        return cls(steps=steps, adapters=settings.adapters, precision=settings.training_precision, seed=settings.seed)

    def passes(self) -> AbstractContextManager[Any]:
        """Return the context that runs forward passes in `precision`."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16")


# Takes the student and which samples, [batch], and returns their mean loss.
Loss = Callable[[nn.Module, Tensor], Tensor]


def train(
    model: nn.Module,
    layers: tuple[Layer, ...],
    loss: Loss,
    *,
    samples: int,
    positions: int,
    settings: TrainingSettings,
    rate: float = LEARNING_RATE,
) -> nn.Module:
    """Return a copy of `model` trained with Adam to lower `loss`, in evaluation mode and without gradients.

    positions: of a sample. The learning rate falls from `rate` to zero on a cosine; that of adapters is ten times as
    high, for they begin at nothing. A language model's embeddings are not trained: they are shared with the dense
    model, and private text says something about few of them. `model` itself, and every tensor that it shares with
    others, stays as it is.
    """
    if not settings.steps:
        return model
    fixed = _embeddings(model)
    student = copy.deepcopy(model, dict(fixed))
    trained = _trained(student, layers, {id(parameter) for parameter in fixed.values()}, settings)
    optimizer = torch.optim.Adam(trained, lr=rate * (_ADAPTER_RATE if settings.adapters else 1.0), fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    picks = _batches(samples, batch_size(model, positions), torch.Generator().manual_seed(settings.seed))
    for _ in range(settings.steps):
        with settings.passes():
            value = loss(student, next(picks))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        schedule.step()
    # An optimizer and its schedule hold each other, so that gradients and their moments, three times the weights, would
    # stay until somebody looks for cycles.
    optimizer.zero_grad(set_to_none=True)
    optimizer.state.clear()
    trim()
    if settings.adapters:
        merge_adapters(student)
    for parameter in student.parameters():
        parameter.requires_grad_(False)
    return student


def batch_size(model: nn.Module, positions: int) -> int:
    """Return how many samples of so many positions `train` takes at a time."""
    return max(1, _BATCH_POSITIONS // positions) if token_head(model) is not None else _BATCH


def mean_in_chunks(classes: int, chunk: Callable[..., Tensor], own: Tensor, *others: Tensor) -> Tensor:
    """Return the mean of what `chunk` makes, [rows], of as many rows of `own` [rows, width] and of each of `others`
    [rows, ...] at a time as have room for logits over `classes`. Gradients go to `own` alone.
    """
    mean: Tensor = _MeanInChunks.apply(own, classes, chunk, others)  # type: ignore[no-untyped-call]
    return mean


class _MeanInChunks(torch.autograd.Function):
    """The gradient of a chunk is taken while its logits exist, so that they need not be made again for it."""

    @staticmethod
    def forward(
        ctx: Any, own: Tensor, classes: int, chunk: Callable[..., Tensor], others: tuple[Tensor, ...]
    ) -> Tensor:
        total, gradients = own.new_zeros((), dtype=torch.float32), []
        for part, *rest in in_chunks(classes, own.detach(), *others, logits=_CHUNK_LOGITS):
            with torch.enable_grad():
                leaf = part.requires_grad_()
                value = chunk(leaf, *rest).sum()
            gradients.append(torch.autograd.grad(value, leaf)[0])
            total += value.detach()
        ctx.save_for_backward(torch.cat(gradients) / len(own))
        return total / len(own)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0].to(gradient.dtype), None, None, None


def _trained(
    student: nn.Module, layers: tuple[Layer, ...], fixed: set[int], settings: TrainingSettings
) -> list[nn.Parameter]:
    """Return the parameters that are trained, with gradients switched on for them alone."""
    if settings.adapters:
        return add_adapters(student, layers, rank=settings.adapters, seed=settings.seed)
    trained = [parameter for parameter in student.parameters() if id(parameter) not in fixed]
    for parameter in trained:
        parameter.requires_grad_(True)
    return trained


def _batches(samples: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield indices of samples [batch], all once before any comes again, but for those left over at the end."""
    order = torch.empty(0, dtype=torch.long)
    while True:
        if len(order) < min(batch, samples):
            order = torch.randperm(samples, generator=generator)
        yield order[:batch]
        order = order[batch:]


def _embeddings(model: nn.Module) -> dict[int, nn.Parameter]:
    """Return for each parameter of a language model's embeddings, by its id, one in its memory: not trained."""
    if token_head(model) is None:
        return {}
    own = embedding_parameters(model)
    return {key: nn.Parameter(tensor.detach(), requires_grad=False) for key, tensor in own.items()}
