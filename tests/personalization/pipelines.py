"""A tiny model with private samples, and what a personalization of it is asked for."""

import math

import numpy as np
import pytest
import torch

from personalization import PersonalizationSettings
from personalization.sensing.prior import Prior
from tests.personalization.architectures import Shape, build

either = pytest.mark.parametrize("name", ["vit", "llama"])
SAMPLES = 24
SHAPE = Shape(groups=4, queries_per_group=1, mlp=14, depth=3)
LAYERS, ATOMS = 6, 12


def tiny(name, seed=1):
    """Return a model with 6 layers and the inputs of 24 samples; texts are padded to different lengths."""
    model = build(name, SHAPE, seed).model
    generator = torch.Generator().manual_seed(seed)
    if name == "vit":
        return model, {"pixel_values": torch.randn(SAMPLES, 3, 8, 8, generator=generator)}
    mask = (torch.arange(7) < 4 + torch.arange(SAMPLES)[:, None] % 4).long()
    return model, {
        "input_ids": torch.randint(1, 31, (SAMPLES, 7), generator=generator),
        "attention_mask": mask,
    }


def chosen(**fields):
    return PersonalizationSettings(
        **{"tolerance": math.inf, "probes": 4, "step_probes": 2, "training_steps": 3} | fields
    )


def prior(seed=0, precision=1.0):
    return Prior(np.random.default_rng(seed).exponential(0.1, ATOMS), np.full(ATOMS, precision))


@torch.no_grad()
def outputs(model, inputs):
    logits = model(**inputs).logits
    return logits if logits.ndim == 2 else logits[inputs["attention_mask"].bool()]
