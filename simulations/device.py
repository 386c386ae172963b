"""One device without a fleet: personalize from a folder of images, and predict with what came of it."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from personalization.backbone import Backbone, load_backbone
from personalization.errors import UserError
from personalization.footprint import Footprint, measure_footprint
from personalization.image_data import load_images
from personalization.images import ImagePreprocessing, to_pixel_values
from personalization.layers import find_layers
from personalization.pipeline import Personalization, personalize
from personalization.prediction import predict_images
from personalization.settings import PersonalizationSettings
from personalization.storage import load_personal_model, save_personal_model, stored_tensors
from simulations.fleet_prior import read_prior
from simulations.pretrain import MODEL_FOLDER

_BATCH = 64


def personalize_folder(
    data: Path, out: Path, *, model: str | None, prior: Path | None, settings: PersonalizationSettings
) -> dict[str, Any]:
    """Personalize `model` (None: the bundled one) from the images in `data` and save it in `out`.

    prior: report.json of a fleet that shared the same model. Returns what can be written as JSON: settings, layers,
    fit, evaluations, footprints. Raises UserError; nothing is written before the personal model is whole.
    """
    started = time.perf_counter()
    backbone = load_backbone(model or str(MODEL_FOLDER))
    preprocessing = _preprocessing(backbone, model)
    images = load_images(data, labels=backbone.labels, preprocessing=preprocessing)
    if settings.signal == "loss" and images.labels is None:
        raise UserError(f"{data}: no class folders, and --signal loss needs labels; use --signal entropy")
    inputs = {"pixel_values": to_pixel_values(images.images, preprocessing)}
    result = personalize(
        backbone.model,
        inputs,
        labels=None if settings.signal == "entropy" or images.labels is None else torch.from_numpy(images.labels),
        prior=None if prior is None else read_prior(prior, atoms=_atoms(backbone, settings)),
        settings=settings,
    )
    dtype = _stored_dtype(backbone)
    footprints = {
        name: measure_footprint(measured, inputs, layers=result.layers, dtype=dtype)
        for name, measured in (("dense", backbone.model), ("personal", result.model))
    }
    report = device_report(result, settings, footprints) | {"samples": len(images.images)}
    report["seconds"] = time.perf_counter() - started
    save_personal_model(
        out,
        result.model,
        layers=result.layers,
        kept=result.kept,
        backbone=backbone.identifier,
        labels=backbone.labels,
        preprocessing=preprocessing.to_dict(),
        dtype=dtype,
        extra={"report": report},
    )
    return report


def _preprocessing(backbone: Backbone, model: str | None) -> ImagePreprocessing:
    if backbone.preprocessing is None or not backbone.labels:
        raise UserError(f"{model}: not an image classifier; expected one, such as ViTForImageClassification")
    return backbone.preprocessing


def _stored_dtype(backbone: Backbone) -> str:
    # A personal model takes no more bytes a weight than the model that it was cut from.
    tensors, _ = stored_tensors(backbone.model)
    half = all(torch.equal(t, t.half().float()) for t in tensors.values() if t.is_floating_point())
    return "float16" if half else "float32"


def _atoms(backbone: Backbone, settings: PersonalizationSettings) -> int:
    return len(find_layers(backbone.model)) * len(settings.levels)


def device_report(
    result: Personalization, settings: PersonalizationSettings, footprints: dict[str, Footprint]
) -> dict[str, Any]:
    """Return what a device's personalization amounts to, as JSON can hold it."""
    shape = (len(result.layers), len(settings.levels))
    sensitivity, precision = result.sensitivity.reshape(shape), result.precision.reshape(shape)
    layers = [
        {
            "layer": layer.name,
            "sensitivity": sensitivity[layer.index].tolist(),
            "precision": precision[layer.index].tolist(),
            "level": float(result.levels[layer.index]),
            "personalized": bool(result.personalized[layer.index]),
        }
        for layer in result.layers
    ]
    return {
        "probe_levels": list(settings.levels),
        "layers": layers,
        "fit_r2": result.fit_r2,
        "evaluations": result.evaluations,
        "entropy_increase": result.entropy_increase,
        "agreement": result.agreement,
        "weights_kept": result.weights_kept,
        "budget": settings.budget,
        "footprint": {name: asdict(footprint) for name, footprint in footprints.items()},
    }


def predict_files(folder: Path, files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return file, class and probability for each image file. Raises UserError that names what can't be read."""
    return predict_images(load_personal_model(folder), files, source=str(folder))
