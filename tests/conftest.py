import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import settings
from transformers import ViTConfig, ViTForImageClassification

from deployment.serve.nginx import find_nginx
from personalization.cutting.cut_model import cut_model
from personalization.errors import UserError
from personalization.sensing.probes import ProbeSamples
from personalization.transformer.layers import find_layers

# The same examples in every run: a change is judged by what it changed. HYPOTHESIS_PROFILE=explore draws new ones.
# How long one takes says nothing on a busy machine.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs the server's proxy where nginx is missing; in CI, where it was installed, that is a failure."""
    if item.get_closest_marker("proxy") is None:
        return
    try:
        find_nginx()
    except UserError as error:
        missing = pytest.fail if os.environ.get("FEDSIEVE_REQUIRE_PROXY") == "1" else pytest.skip
        missing(str(error))


def make_tiny_vit(seed: int = 0) -> ViTForImageClassification:
    """A ViT of 2 blocks on 8 x 8 grey images whose weights are exact in half precision."""
    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=8,
        patch_size=4,
        num_channels=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=3,
        id2label={0: "a", 1: "b", 2: "c"},
        label2id={"a": 0, "b": 1, "c": 2},
    )
    model = ViTForImageClassification(config)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.half().float().eval()


@pytest.fixture
def tiny_vit() -> ViTForImageClassification:
    return make_tiny_vit()


@pytest.fixture
def tiny_vit_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-vit"
    make_tiny_vit().save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "tiny.npz"
    labels = np.arange(120) % 3
    images = rng.integers(0, 256, (120, 8, 8), dtype=np.uint8)
    np.savez(
        path,
        train_images=images,
        train_labels=labels,
        test_images=images[:60],
        test_labels=labels[:60],
        class_names=np.array(["a", "b", "c"]),
    )
    return path


def fake_personalize(model: Any, inputs: Any, *, past: Any, settings: Any, dropped_units: Any, **_: Any) -> Any:
    """Keeps the first half of each layer's units that are not dropped; its numbers follow from seed and data."""
    layers = find_layers(model)
    atoms = len(layers) * len(settings.levels)
    left = [np.setdiff1d(np.arange(layer.units), gone) for layer, gone in zip(layers, dropped_units, strict=True)]
    kept = tuple(units[: (len(units) + 1) // 2] for units in left)
    rng = np.random.default_rng(settings.seed)
    mean = float(next(iter(inputs.values())).double().mean())
    design = np.eye(atoms)[: settings.probes]
    return SimpleNamespace(
        model=cut_model(model, layers, kept),
        layers=layers,
        kept=kept,
        levels=np.array([1 - len(k) / layer.units for k, layer in zip(kept, layers, strict=True)]),
        personalized=np.arange(len(layers)) % 2 == 0,
        sensitivity=rng.random(atoms) + abs(mean),
        precision=np.full(atoms, 0.5) if settings.probes else np.zeros(atoms),
        evaluations=settings.probes,
        fit_r2=None,
        entropy_increase=0.1,
        agreement=0.9,
        weights_kept=0.5,
        samples=(past or ProbeSamples.none(atoms)).joined(ProbeSamples(design, rng.random(len(design)))),
        fewer_tokens=None,
    )


@pytest.fixture
def task_identity() -> Iterator[None]:
    """Message() takes its sender from Flower's TaskIdentity."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    yield
    TaskIdentity._task_id = TaskIdentity._run_id = TaskIdentity._node_id = None
