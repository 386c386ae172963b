"""What came out: every device's personal model, exported and tried on images that it never saw."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.edge.commands import Commands, EdgeError
from benchmarks.edge.devices import Device
from client.model import load_model
from deployment.join.stored import open_stored
from personalization.backbone import Backbone
from personalization.footprint import stored_bytes
from personalization.image_data import read_images
from personalization.images import ImagePreprocessing, to_pixel_values
from server.journal import Journal
from simulations.evaluation import predictions

Row = dict[str, Any]
_AT_A_TIME = 2


def device_rows(devices: Sequence[Device], backbone: Backbone, commands: Commands) -> list[Row]:
    """Return a row for each device: see `_row`. Raises EdgeError if a command fails."""
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        try:
            rows = list(pool.map(lambda device: _row(device, commands), devices))
        except BaseException:  # the threads would see their devices through first
            commands.stop()
            raise
    for device, row in zip(devices, rows, strict=True):
        row["dense_accuracy"] = device.accuracy(_dense_classes(device.tests, backbone))
    return rows


def dense_bytes(backbone: Backbone) -> int:
    """Return the size of the dense model as it is handed out."""
    floats = (p.detach() for p in backbone.model.state_dict().values() if p.is_floating_point())
    half = all(torch.equal(tensor, tensor.half().float()) for tensor in floats)
    return stored_bytes(backbone.model, "float16" if half else "float32")


def totals(journal: Journal) -> Row:
    """Return rounds, and bytes of all messages that were answered, from the fleet's journal."""
    records = [*journal.rounds, *([] if journal.final is None else [journal.final])]
    return {
        "rounds": len(journal.rounds),
        "downlink_bytes": sum(record["downlink_bytes"] for record in records),
        "uplink_bytes": sum(record["uplink_bytes"] for record in records),
        "failures": sum(sum(record["failures"].values()) for record in records),
    }


def _row(device: Device, commands: Commands) -> Row:
    """Return what a device has: what `fedsieve export` and `fedsieve predict` say, and what its state holds."""
    own = device.environment
    manifest = commands.ask("export", device.state, "--data", device.images, "--out", device.export, environment=own)
    exported = commands.ask("predict", device.export, *device.tests, environment=own)
    stored = commands.ask("predict", device.state, *device.tests, environment=own)
    state, _ = open_stored(device.state, None, own)
    rounds, model = state.record()["rounds"], load_model(state).manifest
    versions = sorted(map(int, rounds))
    if not versions:
        raise EdgeError(f"{device.name}: took part in nothing")
    return {
        "device": device.name,
        "samples": len(list(device.images.iterdir())),
        "test_images": len(device.labels),
        "personal_accuracy": device.accuracy([p["class"] for p in stored]),
        "exported_accuracy": device.accuracy([p["class"] for p in exported]),
        "weights_kept": rounds[str(versions[-1])]["weights_kept"],
        "bytes": model.weights_bytes,
        "weights_sha256": model.weights_sha256,
        "exported_bytes": manifest["footprint"]["bytes"],
        "plans": versions,
    }


def _dense_classes(files: Sequence[Path], backbone: Backbone) -> list[str]:
    assert isinstance(backbone.preprocessing, ImagePreprocessing)
    pixels = to_pixel_values(read_images(files, backbone.preprocessing), backbone.preprocessing)
    return [backbone.labels[int(index)] for index in predictions(backbone.model, pixels)]
