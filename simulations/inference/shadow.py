"""Fleets to attack: clients drawn as the simulator draws them, and who of them is attacked or learned from."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.data import InputFacts
from personalization.data.images import ImagePreprocessing
from personalization.data.tasks import PrivateSamples
from personalization.errors import UserError
from personalization.model_files.backbone import Backbone, load_backbone
from simulations.arms.base import World
from simulations.data import ImageDataset, load_dataset
from simulations.evaluation import Evaluator
from simulations.fleet_settings import FleetSettings
from simulations.inference.settings import InferenceSettings
from simulations.partition import ClientSplit, Partition, PartitionSettings, make_partition
from simulations.private_data import FleetData

# A client's first life lasts two rounds; its second has the same data, no memory of the first and other random numbers.
LIVES = 2
# Clients are recorded in chunks of so many, and there are as many chunks as it takes.
CHUNK = 10


@dataclass(frozen=True)
class LivedPartition:
    """A partition in which every client occurs once for each of its lives: node client * LIVES + life."""

    once: Partition

    @property
    def clients(self) -> int:
        """Number of lives of all clients."""
        return self.once.clients * LIVES

    def client_indices(self, client: int) -> ClientSplit:
        """Return the share of the client whose life this is."""
        return self.once.client_indices(client // LIVES)


class ShadowFleet:
    """Backbone, images and clients. Client numbers: first those that warm up, then targets, then shadow clients."""

    def __init__(self, settings: InferenceSettings) -> None:
        """Load model and data. Raises UserError if either does not work or the pool is too small."""
        fleet = fleet_settings(settings, Path())
        self.settings = settings
        self.backbone: Backbone = load_backbone(str(fleet.run_config()["model"]))
        preprocessing = self.backbone.preprocessing
        if not isinstance(preprocessing, ImagePreprocessing):
            raise UserError("attacks on the uplink need a model for images")
        self.preprocessing = preprocessing
        dataset = load_dataset(settings.data, labels=self.backbone.labels, preprocessing=preprocessing)
        self.dataset = _pooled(dataset, settings.pool, np.random.default_rng(settings.seed))
        partition = make_partition(
            self.dataset,
            PartitionSettings(
                clients=-(-settings.clients // CHUNK) * CHUNK,
                classes_per_client=settings.classes_per_client,
                samples=settings.samples,
                reuse=True,
                seed=settings.seed,
            ),
        )
        self.data = FleetData(self.dataset, LivedPartition(partition), preprocessing)
        evaluator = Evaluator(self.backbone, self.data, adapt_head=True, latency=False)
        self.world = World(self.backbone, self.data, evaluator)

    @property
    def targets(self) -> NDArray[np.int64]:
        """Numbers of the clients that are attacked."""
        start = self.settings.warm_up
        return np.arange(start, start + self.settings.targets)

    @property
    def shadow(self) -> NDArray[np.int64]:
        """Numbers of the attacker's own clients."""
        start = self.settings.warm_up + self.settings.targets
        return np.arange(start, start + self.settings.shadow)

    def samples(self, client: int) -> PrivateSamples:
        """Return what a client holds."""
        facts = InputFacts(self.backbone.preprocessing, tuple(self.backbone.labels))
        return self.data({"partition-id": client * LIVES}, {}, facts)

    def held(self, clients: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which images of the pool each of `clients` holds, [clients, images]."""
        rows = np.zeros((len(clients), len(self.dataset.train_labels)), dtype=np.bool_)
        for row, client in zip(rows, clients.tolist(), strict=True):
            row[self.data.split(client * LIVES).train] = True
        return rows


def fleet_settings(settings: InferenceSettings, folder: Path) -> FleetSettings:
    """Return how the clients personalize: as those of any simulated fleet."""
    return FleetSettings(
        out=folder,
        clients=settings.clients * LIVES,
        classes_per_client=settings.classes_per_client,
        samples=settings.samples,
        reuse=True,
        probes=settings.probes,
        budget=settings.budget,
        seed=settings.seed,
        model=settings.model,
        data=settings.data,
    )


def _pooled(dataset: ImageDataset, pool: int, rng: np.random.Generator) -> ImageDataset:
    """Return the data with at most `pool` private images of each class."""
    classes = np.unique(dataset.train_labels)
    members = [rng.permutation(np.flatnonzero(dataset.train_labels == c))[:pool] for c in classes]
    picked = np.sort(np.concatenate(members))
    return replace(dataset, train_images=dataset.train_images[picked], train_labels=dataset.train_labels[picked])
