"""Training on a client's own labels: what the arms that average weights do, and no other part of fedsieve does."""

import copy
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from personalization.data.tasks import PrivateSamples
from personalization.errors import UserError
from personalization.transformer.readout import outputs_of

Weights = dict[str, Tensor]
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Training:
    """epochs over a client's samples in batches of `batch`, with Adam at a constant learning rate."""

    epochs: int = 2
    batch: int = 32
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        if self.epochs < 0 or self.batch < 1 or not self.learning_rate > 0.0:
            raise ValueError(f"{self}: expected epochs of 0 or more, batches of 1 or more and a positive learning rate")


def train(model: nn.Module, samples: PrivateSamples, training: Training, *, seed: int) -> None:
    """Train every weight of `model` in place on the labelled `samples`; it stays in evaluation mode.

    Dropout stays off, so that the seed of the batches decides everything. Raises UserError without labels.
    """
    if samples.labels is None:
        raise UserError("training needs labels; this client's samples have none")
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters(), lr=training.learning_rate)
    for _ in range(training.epochs):
        for pick in torch.randperm(samples.count, generator=generator).split(training.batch):
            logits = outputs_of(model, {name: value[pick] for name, value in samples.inputs.items()})
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(logits, samples.labels[pick].long()).backward()
            optimizer.step()
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def read_weights(model: nn.Module) -> Weights:
    """Return copies of the model's parameters by name, a tied one once."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def with_weights(model: Model, weights: Weights) -> Model:
    """Return a copy of `model` with the parameters that `read_weights` took from one of its shape."""
    filled = copy.deepcopy(model)
    for name, parameter in filled.named_parameters():
        parameter.data = weights[name].clone()
    return filled
