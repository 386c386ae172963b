"""What clients of FedAvg send in place of vectors: the change of all weights after training on their labels."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.settings import derive_seed
from personalization.transformer.head import classifier_path
from personalization.transformer.layers import find_layers
from simulations.arms.training import Training, read_weights, train, with_weights
from simulations.evaluation import logits
from simulations.inference.features import pool_pixels
from simulations.inference.recording import OnProgress
from simulations.inference.shadow import ShadowFleet
from simulations.inference.store import Store

# Random combinations of all other weights' changes that stand for them; those of the head are kept as they are.
SKETCH = 256


@dataclass(frozen=True)
class Updates:
    """What clients sent, and what the attackers computed from it.

    vectors [clients, rounds, statistics]: a sketch of the change and the head's as it is, of two rounds with other
    orders of the data. losses [clients, images]: how much the first update lowers the loss of each image of the pool,
    in nats.
    """

    vectors: NDArray[np.float64]
    losses: NDArray[np.float64]


def record_updates(fleet: ShadowFleet, clients: NDArray[np.int64], on_progress: OnProgress) -> Updates:
    """Return what each of `clients` sends of the backbone trained on its own labels, as the FedAvg arm trains."""
    store, pixels = Store(fleet.settings), pool_pixels(fleet)
    labels = torch.from_numpy(fleet.dataset.train_labels)
    before = _losses(fleet.backbone.model, pixels, labels)
    vectors, losses = [], []
    for done, client in enumerate(clients.tolist()):
        kept = store.keep(f"update-{client:05}", partial(_record, fleet, client, pixels, labels, before))
        losses.append(kept[: len(labels)])
        vectors.append(kept[len(labels) :].reshape(2, -1))
        on_progress("recording updates", done + 1, len(clients))
    return Updates(np.stack(vectors), np.stack(losses))


def _record(fleet: ShadowFleet, client: int, pixels: Tensor, labels: Tensor, before: Tensor) -> NDArray[np.float64]:
    model, samples = fleet.backbone.model, fleet.samples(client)
    start, changes, drop = read_weights(model), [], torch.zeros(0)
    for round_number in (1, 2):
        local = with_weights(model, start)
        train(local, samples, Training(), seed=derive_seed(fleet.settings.seed, str(client), round_number))
        if round_number == 1:
            drop = before - _losses(local, pixels, labels)
        changes.append(_sketched(local, len(fleet.backbone.labels), start))
    return np.asarray(torch.cat([drop, *changes]).double().numpy())


def _losses(model: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits(model, pixels), labels, reduction="none")


def _sketched(model: nn.Module, classes: int, start: dict[str, Tensor]) -> Tensor:
    """Return random signed sums of all changes but the head's (a count sketch), and the head's, its bias last."""
    path = classifier_path(model, find_layers(model), classes)
    head, rest = list[Tensor](), list[Tensor]()
    for name, parameter in model.named_parameters():
        change = (parameter.detach() - start[name]).flatten()
        (head if name.startswith(f"{path}.") else rest).append(change)
    others = torch.cat(rest)
    generator = torch.Generator().manual_seed(0)
    bucket = torch.randint(SKETCH, others.shape, generator=generator)
    sign = torch.randint(2, others.shape, generator=generator) * 2 - 1
    return torch.cat([torch.zeros(SKETCH).index_add(0, bucket, others * sign), *head])
