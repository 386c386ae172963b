"""An image classifier as a file for a device: ONNX in any precision, compared with torch on the client's own images."""

from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from personalization.data.image_data import load_images
from personalization.data.images import ImagePreprocessing, pixel_array
from personalization.device.checks import ExportCheck
from personalization.device.manifest import Precision
from personalization.device.runtime import open_session, run_session, softmax
from personalization.errors import UserError
from personalization.export.exported import Exported
from personalization.export.onnx_graph import export_graph
from personalization.export.onnx_quantization import quantize_dynamically, quantize_statically
from personalization.model_files.source_model import SourceModel

# The most that an export may differ from torch: share of samples of another class, and difference of a probability.
FP32_DISAGREEMENT, FP32_DIFFERENCE = 0.0, 1e-3
INT8_DISAGREEMENT, INT8_DIFFERENCE = 0.05, 0.25
_BATCH = 64


def export_classifier(
    source: SourceModel, preprocessing: ImagePreprocessing, data: Path, *, precision: Precision
) -> Exported:
    """Return an image classifier as a file for a device, checked on the images in `data`.

    Raises UserError if it doesn't classify, if an image can't be read, or if the export is too far from torch.
    """
    if not source.labels:
        raise UserError(f"{source.name}: not an image classifier; export takes classifiers and language models")
    pixels = pixel_array(load_images(data, labels=source.labels, preprocessing=preprocessing).images, preprocessing)
    graph = quantized(export_graph(source.model, preprocessing), precision, pixels).SerializeToString()
    check = compare(torch_logits(source.model, pixels), run_session(open_session(graph), pixels), precision)
    if not check.passed:
        raise UserError(
            f"{source.name}: the {precision} export is too far from the model: another class on "
            f"{check.disagreements} of {check.samples} images ({check.disagreements_allowed} allowed), probabilities "
            f"up to {check.difference:.2g} away ({check.difference_allowed:g} allowed); export with another --int8, "
            "an older export is kept"
        )
    return Exported(graph=graph, preprocessing=preprocessing, labels=source.labels, check=check)


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
