"""How a device looks at its private samples: what the dense model does with them, and on which of them it measures."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from personalization.cutting.masked import Compensation
from personalization.settings import PersonalizationSettings
from personalization.transformer.head import classifier_path, label_shift
from personalization.transformer.layers import Layer
from personalization.transformer.trace import DenseTrace, Inputs, Look, trace_dense


def device_trace(
    model: nn.Module,
    layers: tuple[Layer, ...],
    inputs: Inputs,
    settings: PersonalizationSettings,
    *,
    look: Look | None = None,
) -> DenseTrace:
    """Run the dense model on the private samples and fit its head to them if the settings ask for it."""
    trace = trace_dense(model, layers, inputs, look=look)
    adaptable = trace.outputs.ndim == 2 and classifier_path(model, layers, trace.classes) is not None
    return replace(trace, shift=label_shift(trace.outputs)) if settings.adapt_head and adaptable else trace


def compensation(settings: PersonalizationSettings, fit: Tensor) -> Compensation:
    """Return how layers are cut under `settings`, with moments from the samples `fit` [samples] of bool."""
    return Compensation(ridge=None if settings.recovery == "fold" else settings.ridge, score=settings.score, fit=fit)


def fit_split(samples: int, held_out_share: float, rng: np.random.Generator) -> Tensor:
    """Return [samples] of bool: true for what refits see, false for the held-out share (at least 2 of each)."""
    held = min(max(2, round(held_out_share * samples)), samples - 2)
    fit = torch.ones(samples, dtype=torch.bool)
    fit[torch.from_numpy(rng.permutation(samples)[:held])] = False
    return fit
