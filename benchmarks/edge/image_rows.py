"""What came out of images: every device's personal model, exported and tried on images that it never saw."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.edge.commands import Commands
from benchmarks.edge.devices import ImageDevice
from benchmarks.edge.figures import Row, device_rows, state_row
from personalization.data.image_data import read_images
from personalization.data.images import ImagePreprocessing, to_pixel_values
from personalization.model_files.backbone import Backbone
from simulations.evaluation import predictions


def image_rows(devices: Sequence[ImageDevice], backbone: Backbone, commands: Commands) -> list[Row]:
    """Return for each device what `fedsieve export` and `fedsieve predict` say, and what its state holds.

    Raises EdgeError if a command fails.
    """
    known = {device.name: device for device in devices}
    rows = device_rows(devices, lambda device: _row(known[device.name], commands), commands)
    for device, row in zip(devices, rows, strict=True):
        row["dense_accuracy"] = device.accuracy(_dense_classes(device.tests, backbone))
    return rows


def _row(device: ImageDevice, commands: Commands) -> Row:
    own = device.environment
    manifest = commands.ask("export", device.state, "--data", device.data, "--out", device.export, environment=own)
    exported = commands.ask("predict", device.export, *device.tests, environment=own)
    stored = commands.ask("predict", device.state, *device.tests, environment=own)
    row, _ = state_row(device)
    return {
        **row,
        "test_images": len(device.labels),
        "personal_accuracy": device.accuracy([p["class"] for p in stored]),
        "exported_accuracy": device.accuracy([p["class"] for p in exported]),
        "exported_bytes": manifest["footprint"]["bytes"],
    }


def _dense_classes(files: Sequence[Path], backbone: Backbone) -> list[str]:
    assert isinstance(backbone.preprocessing, ImagePreprocessing)
    pixels = to_pixel_values(read_images(files, backbone.preprocessing), backbone.preprocessing)
    return [backbone.labels[int(index)] for index in predictions(backbone.model, pixels)]
