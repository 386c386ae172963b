"""One device without a fleet: personalize from a folder of images or text, and predict with what came of it."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch

from personalization.allocation.footprint import Footprint, measure_footprint
from personalization.data.tasks import (
    Preprocessing,
    TaskName,
    TextBatch,
    check_batch,
    check_task,
    load_samples,
    task_of,
)
from personalization.data.texts import TextPreprocessing
from personalization.errors import UserError
from personalization.model_files.backbone import Backbone, load_backbone
from personalization.model_files.source_model import read_source_model
from personalization.model_files.storage import save_personal_model, stored_tensors
from personalization.pipeline import Personalization, personalize
from personalization.prediction import generation
from personalization.prediction.continuation import Generation
from personalization.prediction.image_prediction import predict_images
from personalization.settings import PersonalizationSettings
from personalization.transformer.layers import find_layers
from personalization.transformer.trace import Inputs
from personalization.vocabulary.spelling import spelling
from simulations.fleet_prior import read_prior
from simulations.known_models import model_folder

_BATCH = TextBatch()
# Timed forward passes: a language model takes a thousand times as long as the bundled model.
_RUNS: dict[TaskName, int] = {"image": 20, "text": 5}


def personalize_folder(
    data: Path,
    out: Path,
    *,
    model: str | None,
    prior: Path | None,
    settings: PersonalizationSettings,
    task: str | None = None,
    batch: TextBatch = _BATCH,
) -> dict[str, Any]:
    """Personalize `model` (None: the bundled one) from the images or the text in `data` and save it in `out`.

    task: `image` or `text`, None what the model is for. batch: how much of a text is measured on.
    prior: report.json of a fleet that shared the same model. Returns what can be written as JSON: settings, layers,
    fit, evaluations, footprints. Raises UserError; nothing is written before the personal model is whole.
    """
    started = time.perf_counter()
    backbone = load_backbone(model_folder(model))
    preprocessing = check_task(backbone.preprocessing, backbone.labels, wanted=task, model=model or "bundled model")
    check_batch(batch, preprocessing)
    samples = load_samples(data, preprocessing, labels=backbone.labels, batch=batch)
    if settings.signal == "loss" and samples.labels is None:
        raise UserError(f"{data}: no class folders, and --signal loss needs labels; use --signal entropy")
    known = None if prior is None else read_prior(prior, atoms=_atoms(backbone, settings))
    result = personalize(
        backbone.model,
        samples.inputs,
        labels=samples.labels,
        prior=known,
        training=samples.training,
        preprocessing=preprocessing,
        settings=settings,
    )
    dtype = _stored_dtype(backbone)
    inputs, personal, own_preprocessing = samples.inputs, result.model, result.fewer_tokens or preprocessing
    own_inputs = inputs if result.fewer_tokens is None else _spelled(inputs, preprocessing, result.fewer_tokens)
    footprints = {
        name: measure_footprint(measured, taken, layers=result.layers, dtype=dtype, runs=_RUNS[task_of(preprocessing)])
        for name, measured, taken in (("dense", backbone.model, inputs), ("personal", personal, own_inputs))
    }
    report = device_report(result, settings, footprints) | {
        "task": task_of(preprocessing),
        "samples": len(next(iter(inputs.values()))),
    }
    if report["task"] == "text":
        models = {"dense": backbone.model, "personal": personal}
        report["vocabulary"] = {name: int(cast(Any, one).config.vocab_size) for name, one in models.items()}
    report["seconds"] = time.perf_counter() - started
    save_personal_model(
        out,
        personal,
        layers=result.layers,
        kept=result.kept,
        backbone=backbone.identifier,
        labels=backbone.labels,
        preprocessing=own_preprocessing.to_dict(),
        dtype=dtype,
        extra={"report": report},
    )
    return report


def _spelled(inputs: Inputs, whole: Preprocessing, fewer: TextPreprocessing) -> Inputs:
    """Return windows in the tokens that are left."""
    assert isinstance(whole, TextPreprocessing)
    return {"input_ids": torch.from_numpy(spelling(whole, fewer).spell_windows(inputs["input_ids"].numpy()))}


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
    """Return file, class and probability for each image file, by the personal or the dense model in `folder`.

    Raises UserError that names what can't be read.
    """
    return predict_images(read_source_model(folder), files)


def predict_text(folder: Path, *, prompt: str | None, files: Sequence[Path], settings: Generation) -> dict[str, Any]:
    """Return how the model in `folder`, personal or dense, goes on from `prompt`, and how well it predicts `files`.

    Raises UserError that names what can't be read.
    """
    return generation.predict_text(read_source_model(folder), prompt=prompt, files=files, settings=settings)
