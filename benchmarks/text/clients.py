"""The clients of `benchmarks.text`: speakers with their private windows, and the later speeches they are tested on."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.data import InputFacts
from personalization.allocation import Curves, allocate, weight_costs
from personalization.backbone import load_backbone
from personalization.cutting import cut_model
from personalization.errors import UserError
from personalization.layers import Layer, find_layers
from personalization.masked import MaskedModel, MaskedPass
from personalization.measurement import measure
from personalization.pipeline import compensation, device_trace, fit_split
from personalization.scoring import score_tokens
from personalization.settings import PersonalizationSettings
from personalization.tasks import text_samples
from personalization.texts import TextPreprocessing
from personalization.trace import DenseTrace
from simulations.known_models import model_folder
from simulations.speakers import Speaker, make_speaker_data

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """What a worker process loads once. layers: of `model`."""

    model: nn.Module
    preprocessing: TextPreprocessing
    layers: tuple[Layer, ...]
    speakers: tuple[Speaker, ...]


@dataclass(frozen=True)
class Client:
    """One speaker, with what the dense model makes of its private windows. fit: [windows] of bool, what refits see."""

    world: World
    speaker: Speaker
    settings: PersonalizationSettings
    trace: DenseTrace
    fit: torch.Tensor

    def masked(self, *, everything: bool, fold: bool = False) -> MaskedModel:
        """Return the model on the private windows, with moments of all of them or of the fitting share."""
        settings = replace(self.settings, recovery="fold") if fold else self.settings
        return MaskedModel(self.trace, compensation(settings, torch.ones_like(self.fit) if everything else self.fit))

    def increase(self, result: MaskedPass) -> float:
        """Return the entropy increase (nats a token) on the held-out private windows."""
        return measure(self.trace, result.outputs, signal="entropy", labels=None, on=~self.fit)

    def counts(self, curves: Curves, budget: float) -> Counts:
        """Return how many units each layer keeps of a share `budget` of the blocks' weights, [layers]."""
        layers = self.world.layers
        limits = np.full(len(layers), self.settings.generic_limit)
        return allocate(layers, curves, weight_costs(layers), budget, limits=limits)

    def cut(self, counts: Counts, *, fold: bool = False) -> nn.Module:
        """Return the model with `counts` [layers] units, chosen and compensated on this client's text."""
        layers = self.world.layers
        result = self.masked(everything=True, fold=fold).run(dict(enumerate(map(int, counts))))
        writers = {index: (w.weight.clone(), w.bias.clone()) for index, w in result.writers.items()}
        return cut_model(self.world.model, layers, [result.kept[layer.index] for layer in layers], writers)


@lru_cache(maxsize=1)
def load_world(model: str, data: str, clients: int, window_tokens: int) -> World:
    """Load the model and the first `clients` speakers, once in each process. Raises UserError."""
    torch.set_num_threads(1)
    backbone = load_backbone(model_folder(model))
    facts = InputFacts(backbone.preprocessing, backbone.labels)
    speakers = make_speaker_data({"data": data, "window-tokens": window_tokens}, clients, facts).speakers
    if len(speakers) < clients:
        raise UserError(f"{data}: {len(speakers)} speakers; expected {clients} or more, or ask for fewer clients")
    assert isinstance(backbone.preprocessing, TextPreprocessing)
    return World(backbone.model, backbone.preprocessing, find_layers(backbone.model), speakers)


def load_client(world: World, number: int) -> Client:
    """Return the client of a speaker."""
    settings = PersonalizationSettings(seed=number)
    speaker = world.speakers[number]
    trace = device_trace(world.model, world.layers, speaker.samples.inputs, settings)
    fit = fit_split(len(trace.outputs), settings.held_out_share, np.random.default_rng(settings.seed))
    return Client(world, speaker, settings, trace, fit)


def nats_per_token(model: nn.Module, speaker: Speaker) -> float:
    """Return the mean nats that a token of the speaker's later speeches costs."""
    samples = text_samples(speaker.test)
    assert samples.labels is not None
    return float(score_tokens(model, samples.inputs["input_ids"], samples.labels).nats.double().mean())


def default_data() -> Path:
    """Return where `python -m simulations.sotu` puts the speeches."""
    from simulations.sotu import default_folder

    return default_folder()
