"""Data sets, texts and images, scenarios, what comparisons keep, and recordings as an audit reads them."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
from file_decoder import of_file
from flwr.supercore.task_identity import TaskIdentity
from made_recordings import Device, answer, ask, record_messages
from PIL import Image

from benchmarks.fuzz.wire import Decoder
from personalization.data.image_data import read_npz
from personalization.data.images import read_image
from personalization.data.texts import read_texts
from simulations.audit.source import read_file
from simulations.comparison.cache import CACHE, Cache, check_folder
from simulations.comparison.cells import Cell
from simulations.fleet_prior import read_prior
from simulations.idx import read_idx
from simulations.scenario import SCENARIOS, read_scenario


def simulation_decoders(folder: Path) -> dict[str, Decoder]:
    """Return them by name; those that read files use `folder`."""
    return {**_of_data(folder), **_of_comparisons(folder / "compared"), **_of_audits(folder / "audited")}


def _of_data(folder: Path) -> dict[str, Decoder]:
    packed, picture = BytesIO(), BytesIO()
    np.savez(packed, images=np.zeros((2, 4, 4), np.uint8))
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(picture, "png")
    idx = b"\0\0\x08\x02\0\0\0\x02\0\0\0\x03abcdef"
    benign = (SCENARIOS / "benign.toml").read_bytes()
    prior = json.dumps({"prior": {"sensitivity": [0.5] * 4, "precision": [1.0] * 4}}).encode()
    return {
        "idx": of_file(folder / "a.idx", idx, read_idx),
        "npz": of_file(folder / "a.npz", packed.getvalue(), lambda path: read_npz(path, ("images",)), factor=1100),
        "image": of_file(folder / "a.png", picture.getvalue(), read_image),
        "texts": of_file(folder / "a.jsonl", b'{"text": "one"}\n{"text": "two"}\n', read_texts),
        "scenario": of_file(folder / "a.toml", benign, read_scenario),
        "prior of a fleet": of_file(folder / "report.json", prior, lambda path: read_prior(path, atoms=4)),
    }


def _of_comparisons(folder: Path) -> dict[str, Decoder]:
    cell, cache = Cell(method="median", scenario={"clients": 3}, seed=1), Cache(folder)
    (folder / "cells").mkdir(parents=True)
    cache.save(cell, {"accuracy": 0.5})
    (path,) = (folder / "cells").iterdir()
    versions = b'{"cell_format": 4, "fedsieve": "0"}'
    return {
        "cell of a comparison": of_file(path, path.read_bytes(), lambda path: cache.load(cell), allowed=()),
        "folder of a comparison": of_file(folder / CACHE, versions, lambda path: check_folder(folder)),
    }


def _of_audits(folder: Path) -> dict[str, Decoder]:
    folder.mkdir()
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    try:
        request = ask()
        fleet = record_messages(folder / "fleet.recording", answer(request).SerializeToString(), request=request)
        device = Device().record(folder / "device.recording")
    finally:
        TaskIdentity._task_id = TaskIdentity._run_id = TaskIdentity._node_id = None
    return {
        f"audit of a {path.stem}": of_file(path, path.read_bytes(), lambda path: list(read_file(path, [])))
        for path in (fleet, device)
    }
