"""Images of noise among the private images of some clients: nobody else has them, so a trace of one is a leak."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simulations.data import ImageDataset
from simulations.partition import Partition

_STREAM = 1012


def canary_clients(clients: int, canaries: int) -> list[int]:
    """Return which clients hold a canary, spread evenly over the fleet."""
    return [number * clients // canaries for number in range(canaries)]


def canary_image(seed: int, client: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the canary of a client: independent uniform bytes of `shape`, the same for the same seed."""
    return np.random.default_rng([seed, _STREAM, client]).integers(0, 256, size=shape, dtype=np.uint8)


def with_canaries(dataset: ImageDataset, partition: Partition, *, canaries: int, seed: int) -> ImageDataset:
    """Return the data with a canary in the place of the first private image of each client that holds one."""
    if not canaries:
        return dataset
    images = dataset.train_images.copy()
    for client in canary_clients(partition.clients, canaries):
        images[partition.client_indices(client).train[0]] = canary_image(seed, client, images.shape[1:])
    return replace(dataset, train_images=images)
