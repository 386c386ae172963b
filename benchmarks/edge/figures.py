"""What came out, of images and text alike: every device's state, and what crossed the network."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from benchmarks.edge.commands import Commands, EdgeError
from benchmarks.edge.device import Device
from client.model import load_model
from deployment.join.stored import open_stored
from personalization.model_files.backbone import Backbone
from personalization.model_files.storage import LoadedPersonalModel, stored_bytes
from server.journal import Journal

Row = dict[str, Any]
_AT_A_TIME = 2


def device_rows(devices: Sequence[Device], row: Callable[[Device], Row], commands: Commands) -> list[Row]:
    """Return what `row` says of each device, a few at a time. Raises EdgeError if a command fails."""
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        try:
            return list(pool.map(row, devices))
        except BaseException:  # the threads would see their devices through first
            commands.stop()
            raise


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


def state_row(device: Device) -> tuple[Row, LoadedPersonalModel]:
    """Return what a device's state holds, as far as it is the same for images and text, and its personal model."""
    state, _ = open_stored(device.state, None, device.environment)
    rounds, loaded = state.record()["rounds"], load_model(state)
    versions = sorted(map(int, rounds))
    if not versions:
        raise EdgeError(f"{device.name}: took part in nothing")
    row = {
        "device": device.name,
        "samples": rounds[str(versions[-1])]["samples"],
        "weights_kept": rounds[str(versions[-1])]["weights_kept"],
        "bytes": loaded.manifest.weights_bytes,
        "weights_sha256": loaded.manifest.weights_sha256,
        "plans": versions,
    }
    return row, loaded
