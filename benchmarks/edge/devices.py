"""Devices with images: each has a folder of its own with real ones, a home of its own, and images that it never saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.edge.device import Device
from benchmarks.edge.settings import EdgeSettings
from client.data import InputFacts
from personalization.data.images import ImagePreprocessing
from personalization.errors import UserError
from personalization.model_files.backbone import Backbone
from simulations.data import load_dataset
from simulations.partition import PartitionSettings, make_partition

_CLASSES_EACH = 3


@dataclass(frozen=True)
class ImageDevice(Device):
    """A device with images. labels: class of each of its test images, in the order of their names."""

    labels: tuple[str, ...]

    def accuracy(self, classes: Sequence[str]) -> float:
        """Return the share of its test images that `classes` [tests] names rightly."""
        if len(classes) != len(self.labels):
            raise UserError(f"{self.name}: {len(classes)} predictions for {len(self.labels)} images")
        return float(np.mean([found == label for found, label in zip(classes, self.labels, strict=True)]))


def make_devices(settings: EdgeSettings, backbone: Backbone) -> list[ImageDevice]:
    """Share bundled images out among the devices as the simulator does, and write them as PNG files.

    Files are named so that they sort in the order in which the simulator holds the same images. Raises UserError.
    """
    facts = InputFacts(backbone.preprocessing, backbone.labels)
    if not isinstance(facts.preprocessing, ImagePreprocessing):
        raise UserError("the model takes no images")
    data = load_dataset(labels=facts.labels, preprocessing=facts.preprocessing)
    wanted = PartitionSettings(
        clients=settings.devices, classes_per_client=_CLASSES_EACH, samples=settings.samples, seed=settings.seed
    )
    partition, devices = make_partition(data, wanted), []
    for number, name in enumerate(settings.names):
        split, folder = partition.client_indices(number), settings.out / "devices" / name
        _write(folder / "data", data.train_images, split.train)
        _write(folder / "test", data.test_images, split.test)
        (folder / "home").mkdir()
        labels = tuple(data.class_names[int(label)] for label in data.test_labels[split.test])
        devices.append(ImageDevice(name, folder.absolute(), labels))
    return devices


def _write(folder: Path, images: NDArray[np.uint8], indices: NDArray[np.int64]) -> None:
    folder.mkdir(parents=True)
    for index in indices:
        Image.fromarray(images[index]).save(folder / f"{index:06}.png")
