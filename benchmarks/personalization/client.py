"""The clients of `benchmarks.personalization`: their private samples, their models, and what these are tested on."""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from personalization.cutting.cut_model import cut_model
from personalization.cutting.masked import MaskedModel, MaskedPass
from personalization.data.images import ImagePreprocessing, to_pixel_values
from personalization.data.tasks import PrivateSamples
from personalization.model_files.backbone import load_backbone
from personalization.sensing.measurement import DensePredictions
from personalization.sensing.private_trace import compensation, device_trace, fit_split
from personalization.settings import PersonalizationSettings
from personalization.transformer.head import classifier_path, shift_classifier
from personalization.transformer.layers import Layer, find_layers
from personalization.transformer.trace import DenseTrace
from simulations.data import ImageDataset, load_dataset
from simulations.partition import PartitionSettings, make_partition
from simulations.pretrain import MODEL_FOLDER

# Images of each class in the sample that shows what a personal model has forgotten.
ALL_CLASSES_IMAGES = 30


@dataclass(frozen=True)
class World:
    """Everything that a worker process loads once."""

    model: nn.Module
    layers: tuple[Layer, ...]
    dataset: ImageDataset
    pixels: Tensor
    test_pixels: Tensor


@dataclass
class Client:
    """One client's private trace and what its models are tested on."""

    world: World
    trace: DenseTrace
    settings: PersonalizationSettings
    fit: Tensor
    test: Tensor
    test_labels: NDArray[np.int64]

    @property
    def samples(self) -> PrivateSamples:
        """The private samples; nobody has labelled them."""
        return PrivateSamples(dict(self.trace.inputs), None)

    def masked(self, *, everything: bool, fold: bool = False) -> MaskedModel:
        """Return the model on the private samples, with moments of all of them or of the fitting share."""
        settings = replace(self.settings, recovery="fold") if fold else self.settings
        fit = torch.ones_like(self.fit) if everything else self.fit
        return MaskedModel(self.trace, compensation(settings, fit), measured=~self.fit)

    @cached_property
    def _dense(self) -> DensePredictions:
        return DensePredictions(self.trace, signal="entropy", labels=None, on=~self.fit)

    def increase(self, result: MaskedPass) -> float:
        """Return the entropy increase (nats) on the held-out private samples."""
        return self._dense.increase(result)

    def cut(self, result: MaskedPass) -> nn.Module:
        """Return the cut model of a pass, its head shifted."""
        layers = self.world.layers
        writers = {i: (w.weight.clone(), w.bias.clone()) for i, w in result.writers.items()}
        return self._shifted(
            cut_model(self.world.model, layers, [result.kept[layer.index] for layer in layers], writers)
        )

    def dense(self) -> nn.Module:
        """Return the dense model with its head shifted."""
        layers = self.world.layers
        return self._shifted(cut_model(self.world.model, layers, [np.arange(layer.units) for layer in layers]))

    def _shifted(self, model: nn.Module) -> nn.Module:
        path = classifier_path(model, self.world.layers, self.trace.classes)
        assert path is not None
        shift_classifier(model, path, self.trace.shift)
        return model

    def accuracies(self, model: nn.Module) -> tuple[float, float]:
        """Return the accuracy on the client's own test images, and on images of all classes."""
        labels = self.world.dataset.test_labels
        everything = np.concatenate([np.flatnonzero(labels == c)[:ALL_CLASSES_IMAGES] for c in np.unique(labels)])
        own = float((_predict(model, self.test) == self.test_labels).mean())
        return own, float((_predict(model, self.world.test_pixels[everything]) == labels[everything]).mean())


@torch.inference_mode()
def _predict(model: nn.Module, pixels: Tensor) -> NDArray[np.int64]:
    return np.concatenate([model(pixel_values=part).logits.argmax(-1).numpy() for part in pixels.split(200)])


@lru_cache(maxsize=1)
def load_world() -> World:
    """Load the bundled model and data, once in each process."""
    torch.set_num_threads(1)
    backbone = load_backbone(str(MODEL_FOLDER))
    assert isinstance(backbone.preprocessing, ImagePreprocessing)
    dataset = load_dataset(labels=backbone.labels, preprocessing=backbone.preprocessing)
    return World(
        backbone.model,
        find_layers(backbone.model),
        dataset,
        to_pixel_values(dataset.train_images, backbone.preprocessing),
        to_pixel_values(dataset.test_images, backbone.preprocessing),
    )


def load_client(seed: int, number: int, clients: int) -> Client:
    """Return client `number` of the fleet of `seed`."""
    world = load_world()
    partition = make_partition(world.dataset, PartitionSettings(clients=clients, seed=seed, test_limit=300))
    split = partition.client_indices(number)
    settings = PersonalizationSettings(seed=seed * 1000 + number)
    trace = device_trace(world.model, world.layers, {"pixel_values": world.pixels[split.train]}, settings)
    fit = fit_split(len(split.train), settings.held_out_share, np.random.default_rng(settings.seed))
    labels = np.asarray(world.dataset.test_labels[split.test])
    return Client(world, trace, settings, fit, world.test_pixels[split.test], labels)
