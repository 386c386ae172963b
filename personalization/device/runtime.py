"""Run one exported model in onnxruntime: one thread, one image at a time, as a small device does."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile

from personalization.device import DEVICE_MANIFEST
from personalization.device.decoder import ASKED, START, TOKENS
from personalization.device.manifest import DeviceManifest, DeviceText, read_device_manifest
from personalization.errors import UserError

INPUT, OUTPUT = "pixel_values", "logits"
_ERRORS_ONLY = 3


@dataclass(frozen=True)
class DeviceModel:
    """A model that is ready to run, and the manifest that it was exported with."""

    session: onnxruntime.InferenceSession
    manifest: DeviceManifest


def open_session(model: Path | bytes) -> onnxruntime.InferenceSession:
    """Return a session of one thread for an ONNX file or its bytes.

    Raises UserError for what onnxruntime cannot read.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    source = str(model) if isinstance(model, Path) else model
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile, NotImplementedError) as error:
        name = model if isinstance(model, Path) else "the exported model"
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{name}: onnxruntime cannot run it ({reason}); export the model again") from None


def load_device_model(folder: Path) -> DeviceModel:
    """Load an exported model. Raises UserError for files that are missing, damaged or not of this format."""
    manifest = read_device_manifest(folder)
    path = folder / manifest.model_file
    verify_file(path, manifest.model_sha256)
    session = open_session(path)
    wanted = manifest.preprocessing
    inputs = [(value.name, list(value.shape)) for value in session.get_inputs()]
    if isinstance(wanted, DeviceText):
        if [name for name, _ in inputs[:3]] != [TOKENS, START, ASKED]:
            raise UserError(f"{path}: takes no text, as {DEVICE_MANIFEST} says; export the model again")
    elif inputs[0][1] != [1, wanted.channels, wanted.height, wanted.width]:
        raise UserError(f"{path}: takes images of another size than {DEVICE_MANIFEST} says; export the model again")
    return DeviceModel(session, manifest)


def verify_file(path: Path, sha256: str) -> None:
    """Raise UserError unless a file that the manifest names is there and has the hash that it gives."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}, though {DEVICE_MANIFEST} names it; export the model again"
        ) from None
    if digest != sha256:
        raise UserError(f"{path}: its hash is not the manifest's; the file was changed, export the model again")


def run_session(session: onnxruntime.InferenceSession, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return logits [samples, classes] for pixel values [samples, channels, height, width], one sample at a time."""
    rows = [np.asarray(session.run([OUTPUT], {INPUT: pixels[i : i + 1]})[0]) for i in range(len(pixels))]
    return np.concatenate(rows).astype(np.float32, copy=False)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return probabilities [samples, classes] of logits [samples, classes]."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))
