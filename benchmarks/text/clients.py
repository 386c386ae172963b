"""The clients of `benchmarks.text`: speakers with their private windows, and the later speeches they are tested on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.data import InputFacts
from personalization.allocation.allocate import Curves, allocate, weight_costs
from personalization.cutting.blockwise import cut_in_blocks
from personalization.cutting.masked import MaskedModel, MaskedPass
from personalization.data.tasks import PrivateSamples, text_samples
from personalization.data.texts import TextPreprocessing
from personalization.errors import UserError
from personalization.final_model import made_of, trained, tuned_first
from personalization.model_files.backbone import load_backbone
from personalization.prediction.scoring import score_spelled, score_tokens
from personalization.sensing.measurement import DensePredictions
from personalization.sensing.private_trace import compensation, device_trace, fit_split
from personalization.settings import PersonalizationSettings, Recovery
from personalization.training.loop import spread
from personalization.transformer.layers import Layer, find_layers
from personalization.transformer.trace import DenseTrace
from personalization.vocabulary.cut import cut_vocabulary, expected_tokens
from personalization.vocabulary.fewer_tokens import FewerTokens
from personalization.vocabulary.own import own_vocabulary
from personalization.vocabulary.spelling import Spelling
from personalization.vocabulary.whole_teacher import WholeTeacher
from simulations.known_models import model_folder
from simulations.speakers import Speaker, make_speaker_data

Counts = NDArray[np.int64]
# Units that stay, by the number of their layer.
Kept = Mapping[int, NDArray[np.int64]]


@dataclass(frozen=True)
class World:
    """What a worker process loads once. layers: of `model`."""

    model: nn.Module
    preprocessing: TextPreprocessing
    layers: tuple[Layer, ...]
    speakers: tuple[Speaker, ...]


@dataclass(frozen=True)
class Client:
    """One speaker, with what its model makes of its private windows before it is cut.

    samples: private text in the model's tokens. fit: [windows] of bool, what refits see. teacher: the model with all
    tokens, None where this one has them.
    """

    world: World
    speaker: Speaker
    settings: PersonalizationSettings
    samples: PrivateSamples
    trace: DenseTrace
    fit: torch.Tensor
    teacher: WholeTeacher | None

    @property
    def spelled(self) -> Spelling | None:
        """How text is spelled in the model's tokens, None where it has all of them."""
        return None if self.teacher is None else self.teacher.spelling

    def masked(self, *, everything: bool, fold: bool = False, among: Kept | None = None) -> MaskedModel:
        """Return the model on the private windows, with moments of all of them or of the fitting share.

        among: the units of each layer to choose from, None for all.
        """
        settings = replace(self.settings, recovery="fold") if fold else self.settings
        used = torch.ones_like(self.fit) if everything else self.fit
        return MaskedModel(self.trace, compensation(settings, used), among or {}, measured=~self.fit)

    @cached_property
    def _dense(self) -> DensePredictions:
        return DensePredictions(self.trace, signal="entropy", labels=None, on=~self.fit)

    def increase(self, result: MaskedPass) -> float:
        """Return the entropy increase (nats a token) on the held-out private windows."""
        return self._dense.increase(result)

    def counts(self, curves: Curves, budget: float) -> Counts:
        """Return how many units each layer keeps of a share `budget` of the blocks' weights, [layers]."""
        layers = self.world.layers
        limits = np.full(len(layers), self.settings.layer_limit)
        return allocate(layers, curves, weight_costs(layers), budget, limits=limits)

    def chosen(self, counts: Counts) -> Kept:
        """Return the `counts` [layers] units of each layer that this client's text chooses."""
        return self.masked(everything=True).run(dict(enumerate(map(int, counts)))).kept

    def cut(self, counts: Counts, *, fold: bool = False, among: Kept | None = None) -> nn.Module:
        """Return the model with `counts` [layers] units, chosen `among` some and compensated on this client's text."""
        masked = self.masked(everything=True, fold=fold, among=among)
        return made_of(self.trace, masked.run(dict(enumerate(map(int, counts)))))

    def cut_on_more(self, counts: Counts, windows: int) -> nn.Module:
        """Return the same, chosen and compensated on so many of this client's private windows."""
        training = self.samples.training
        assert training is not None
        masked = self.masked(everything=True)
        inputs, fitted = spread(training, windows), replace(masked.compensation, carried=masked.carried)
        per_layer = dict(enumerate(map(int, counts)))
        cut = cut_in_blocks(self.trace.model, self.world.layers, inputs, per_layer, compensation=fitted, allowed={})
        return made_of(self.trace, cut)

    def tuned_first(self, steps: int) -> "Client":
        """Return the client with its whole model tuned on so many batches of its private text."""
        settings = replace(self.settings, tune_first=steps, training_precision="bfloat16")
        return replace(self, trace=tuned_first(self.trace, settings, self.samples))

    def trained(self, model: nn.Module, recovery: Recovery, *, steps: int) -> nn.Module:
        """Return `model` after so many batches of training on all private text."""
        settings = replace(self.settings, recovery=recovery, training_steps=steps, training_precision="bfloat16")
        return trained(model, self.trace, settings, self.samples, teacher=self.teacher)

    def nats_per_token(self, model: nn.Module) -> float:
        """Return the mean nats that a token of the whole vocabulary costs in the speaker's later speeches."""
        return float(self.nats(model).mean())

    def nats(self, model: nn.Module) -> NDArray[np.float64]:
        """Return the nats of each token of the whole vocabulary in the later speeches, [windows, positions]."""
        if self.spelled is not None:
            return score_spelled(model, self.speaker.test, self.spelled).nats.double().numpy()
        samples = text_samples(self.speaker.test)
        assert samples.labels is not None
        return score_tokens(model, samples.inputs["input_ids"], samples.labels).nats.double().numpy()


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


def load_client(world: World, number: int, *, vocabulary: int | None = None, windows: int = 0) -> Client:
    """Return the client of a speaker, with a model of at most `vocabulary` tokens (None: all), told by so many windows
    of private text (0: those that are measured on).
    """
    settings = PersonalizationSettings(seed=number)
    speaker = world.speakers[number]
    model, samples, teacher = world.model, speaker.samples, None
    if vocabulary is not None:
        assert samples.training is not None
        expected = expected_tokens(model, spread(samples.training, windows) if windows else samples.inputs)
        own = own_vocabulary(model, samples, FewerTokens(world.preprocessing, vocabulary), expected)
        model, samples, teacher = cut_vocabulary(model, own.cut), own.samples, own.teacher
    trace = device_trace(model, world.layers, samples.inputs, settings)
    fit = fit_split(trace.samples, settings.held_out_share, np.random.default_rng(settings.seed))
    return Client(world, speaker, settings, samples, trace, fit, teacher)


def weights_of(model: nn.Module) -> int:
    """Return how many weights a model has, all together."""
    return sum(parameter.numel() for parameter in model.parameters())


def default_data() -> Path:
    """Return where `python -m simulations.sotu` puts the speeches."""
    from simulations.sotu import default_folder

    return default_folder()
