"""Export a personal model for a device: ONNX, checked against torch on the client's own samples, and measured.

The model file is named after its hash and the manifest names it, so putting the new manifest in place is the one step
that makes a new export valid: whatever fails before it, an export that was there stays what `fedsieve predict` uses.
"""

import contextlib
import hashlib
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from personalization.device import DEVICE_MANIFEST
from personalization.device.footprint import measure_device_footprint
from personalization.device.manifest import DeviceManifest, ExportCheck, Precision, read_device_manifest
from personalization.device.runtime import open_session, run_session, softmax
from personalization.errors import UserError
from personalization.files import remove_temporary, write_atomically
from personalization.image_data import load_images
from personalization.images import ImagePreprocessing, pixel_array
from personalization.onnx_graph import export_graph
from personalization.onnx_quantization import quantize_dynamically, quantize_statically
from personalization.storage import LoadedPersonalModel, load_personal_model

# The most that an export may differ from torch: share of samples of another class, and difference of a probability.
FP32_DISAGREEMENT, FP32_DIFFERENCE = 0.0, 1e-3
INT8_DISAGREEMENT, INT8_DIFFERENCE = 0.05, 0.25
_BATCH = 64


def export_personal_model(personal: Path, data: Path, out: Path, *, precision: Precision) -> DeviceManifest:
    """Export the personal model in the folder `personal`, as `export_loaded_model` does. Raises UserError likewise."""
    _check_folder(out)
    return export_loaded_model(load_personal_model(personal), data, out, precision=precision, source=str(personal))


def export_loaded_model(
    loaded: LoadedPersonalModel, data: Path, out: Path, *, precision: Precision, source: str
) -> DeviceManifest:
    """Export a personal model to `out`, checked on the client's images in `data`.

    data: a folder of images, class folders, or an .npz file. source: names the model in errors. Returns the manifest
    that was written. Raises UserError if the model, an image or the folder is not what it should be, or the export is
    too far from torch; an export that was in `out` before is then kept.
    """
    _check_folder(out)
    preprocessing = _preprocessing(loaded, source)
    labels = loaded.manifest.labels
    pixels = pixel_array(load_images(data, labels=labels, preprocessing=preprocessing).images, preprocessing)
    graph = quantized(export_graph(loaded.model, preprocessing), precision, pixels).SerializeToString()
    check = compare(torch_logits(loaded.model, pixels), run_session(open_session(graph), pixels), precision)
    if not check.passed:
        raise UserError(
            f"{out}: the {precision} export is too far from the model: another class on {check.disagreements} of "
            f"{check.samples} images ({check.disagreements_allowed} allowed), probabilities up to "
            f"{check.difference:.2g} away ({check.difference_allowed:g} allowed); export with another --int8, "
            "an older export is kept"
        )
    return _write(
        out,
        graph,
        precision=precision,
        personal=loaded.manifest.weights_sha256,
        preprocessing=preprocessing,
        labels=labels,
        check=check,
    )


def quantized(graph: onnx.ModelProto, precision: Precision, pixels: NDArray[np.float32]) -> onnx.ModelProto:
    """Return `graph` in `precision`; int8-static takes its ranges from `pixels` [samples, channels, height, width]."""
    if precision == "int8-dynamic":
        return quantize_dynamically(graph)
    return quantize_statically(graph, pixels) if precision == "int8-static" else graph


def compare(reference: NDArray[np.float32], exported: NDArray[np.float32], precision: Precision) -> ExportCheck:
    """Return how far the logits [samples, classes] of an export are from those of torch, and how far they may be.

    Of a few samples one may always change its class in int8: a share of them would be less than one.
    """
    share, difference = (
        (FP32_DISAGREEMENT, FP32_DIFFERENCE) if precision == "fp32" else (INT8_DISAGREEMENT, INT8_DIFFERENCE)
    )
    away = float(np.abs(softmax(reference) - softmax(exported)).max())
    return ExportCheck(
        samples=len(reference),
        disagreements=int((reference.argmax(-1) != exported.argmax(-1)).sum()),
        disagreements_allowed=max(1, int(share * len(reference))) if share else 0,
        difference=away if np.isfinite(away) else float(np.finfo(np.float64).max),
        difference_allowed=difference,
    )


@torch.inference_mode()
def torch_logits(model: torch.nn.Module, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits [samples, classes] of `model` in torch."""
    parts = torch.from_numpy(pixels).split(_BATCH)
    return np.concatenate([model(pixel_values=part).logits.numpy() for part in parts])


def _preprocessing(loaded: LoadedPersonalModel, source: str) -> ImagePreprocessing:
    manifest = loaded.manifest
    if manifest.preprocessing is None or not manifest.labels:
        raise UserError(f"{source}: not an image classifier; export takes personal models of images")
    return ImagePreprocessing.from_dict(manifest.preprocessing)


def _check_folder(out: Path) -> None:
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / DEVICE_MANIFEST).is_file())):
        raise UserError(f"{out}: holds something else; choose a new folder, or that of an earlier export")


def _write(
    out: Path,
    graph: bytes,
    *,
    precision: Precision,
    personal: str,
    preprocessing: ImagePreprocessing,
    labels: tuple[str, ...],
    check: ExportCheck,
) -> DeviceManifest:
    digest = hashlib.sha256(graph).hexdigest()
    path = out / f"model-{digest[:16]}.onnx"
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, graph)
        manifest = DeviceManifest(
            precision=precision,
            model_file=path.name,
            model_sha256=digest,
            personal=personal,
            preprocessing=preprocessing,
            labels=labels,
            check=check,
            footprint=measure_device_footprint(path),
        )
        write_atomically(out / DEVICE_MANIFEST, manifest.to_json().encode())
    except OSError as error:
        raise UserError(f"{out}: the export was not saved ({error.strerror or error}); an older one is kept") from None
    finally:
        _remove_unnamed(out)
    return manifest


def _remove_unnamed(out: Path) -> None:
    """Remove models that the manifest in place does not name; what cannot be removed is left to the next export."""
    with contextlib.suppress(OSError, UserError):
        remove_temporary(out)
        named = read_device_manifest(out).model_file if (out / DEVICE_MANIFEST).exists() else None
        for path in out.glob("model-*.onnx"):
            if path.name != named:
                path.unlink(missing_ok=True)
