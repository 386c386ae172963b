"""What an attacker that has the backbone can compute of any image, without a client."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from personalization.cutting.masked import Compensation, MaskedModel
from personalization.data.images import to_pixel_values
from personalization.sensing.measurement import entropy_increase
from personalization.sensing.probes import one_at_a_time, probe_counts
from personalization.settings import PersonalizationSettings
from personalization.transformer.head import classifier_path, label_shift
from personalization.transformer.layers import Layer, find_layers
from personalization.transformer.trace import trace_dense
from simulations.inference.shadow import LIVES, ShadowFleet
from simulations.inference.store import Store

Features = NDArray[np.float64]
_REFERENCES = 10
_FLOOR = 1e-4
_BATCH = 256


def image_features(fleet: ShadowFleet) -> Features:
    """Return [images, features] of the pool: what the head reads, logits, and the entropy increase of every atom.

    The entropy increase (nats, and on a logarithmic scale) is that of the image when it is left out of the refit, on
    the average of clients of the attacker's own that hold its class. In its class each feature has mean 0 and variance
    1, so that they tell images of a class apart and no classes.
    """
    store = Store(fleet.settings)
    dense = store.keep("dense", lambda: dense_outputs(fleet.backbone.model, pool_pixels(fleet)))
    increase = store.keep("increase", lambda: reference_increase(fleet))
    columns = np.concatenate([dense, increase, np.log(increase + _FLOOR)], axis=1)
    return within_classes(columns, fleet.dataset.train_labels)


def within_classes(columns: NDArray[np.float64], labels: NDArray[np.int64]) -> Features:
    """Return `columns` [images, features] with mean 0 and variance 1 in each class."""
    scaled = np.array(columns, dtype=np.float64)
    for label in np.unique(labels):
        rows = scaled[labels == label]
        scaled[labels == label] = (rows - rows.mean(0)) / np.maximum(rows.std(0), 1e-9)
    return scaled


def pool_pixels(fleet: ShadowFleet) -> Tensor:
    """Return the images of the pool as the model takes them, [images, channels, height, width]."""
    return to_pixel_values(fleet.dataset.train_images, fleet.preprocessing)


@torch.inference_mode()
def dense_outputs(model: nn.Module, pixels: Tensor) -> Features:
    """Return what the classifier reads of each image, and then its logits, [images, width + classes]."""
    layers = find_layers(model)
    logits = torch.cat([model(pixel_values=batch).logits for batch in pixels.split(_BATCH)])
    path = classifier_path(model, layers, logits.shape[-1])
    assert path is not None
    read: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0]))
    try:
        for batch in pixels.split(_BATCH):
            model(pixel_values=batch)
    finally:
        handle.remove()
    return np.asarray(torch.cat([torch.cat(read), logits], dim=1).double().numpy())


def reference_increase(fleet: ShadowFleet) -> Features:
    """Return the entropy increase in nats of each image and atom, [images, atoms], on the average of some clients.

    The clients are those that warm up and hold the image's class; what they refit sees their own samples alone.
    """
    labels, pixels = fleet.dataset.train_labels, pool_pixels(fleet)
    layers, levels = find_layers(fleet.backbone.model), PersonalizationSettings().levels
    total = np.zeros((len(labels), len(layers) * len(levels)))
    count = np.zeros(len(labels))
    for client in range(min(_REFERENCES, fleet.settings.warm_up)):
        own = fleet.samples(client).inputs["pixel_values"]
        classes = fleet.data.split(client * LIVES).classes
        seen = np.flatnonzero(np.isin(labels, classes))
        total[seen] += _increase(fleet.backbone.model, layers, levels, own, pixels[torch.from_numpy(seen)])
        count[seen] += 1
    return np.asarray(total / np.maximum(count, 1)[:, None])


def _increase(
    model: nn.Module, layers: tuple[Layer, ...], levels: tuple[float, ...], own: Tensor, asked: Tensor
) -> Features:
    settings = PersonalizationSettings()
    trace = trace_dense(model, layers, {"pixel_values": torch.cat([own, asked])})
    trace = replace(trace, shift=label_shift(trace.outputs[: len(own)]))
    fit = torch.arange(trace.samples) < len(own)
    masked = MaskedModel(trace, Compensation(ridge=settings.ridge, score=settings.score, fit=fit), measured=~fit)
    probes = [probe_counts(row, layers, levels) for row in one_at_a_time(len(layers), len(levels))]
    dense = trace.logits(trace.outputs[~fit])
    found = [entropy_increase(dense, trace.logits(result.outputs[~fit])) for result in masked.run_all(probes)]
    return np.asarray(np.maximum(torch.stack(found, dim=1).double().numpy(), 0.0))
