"""The model that a device personalizes: the backbone, or what it makes of it for its own text before anything else."""

from dataclasses import dataclass

from torch import nn

from client.backbone import LocalBackbone
from client.data import Config, PrivateSamples
from personalization.own_vocabulary import own_vocabulary
from personalization.tasks import Preprocessing, TaskSamples


@dataclass(frozen=True)
class OwnModel:
    """model, preprocessing: the backbone's, or those with fewer tokens. samples: the device's, in these tokens."""

    model: nn.Module
    preprocessing: Preprocessing | None
    samples: PrivateSamples


def own_model(backbone: LocalBackbone, samples: PrivateSamples, run_config: Config) -> OwnModel:
    """Return what a device personalizes: with `vocabulary` in the run configuration, a model of at most so many tokens.

    0 tokens, or none given, keep all. Raises UserError for models that read no text, and numbers that are too small.
    """
    most = int(run_config.get("vocabulary") or 0)
    if not most:
        return OwnModel(backbone.model, backbone.facts.preprocessing, samples)
    given = TaskSamples(samples.inputs, samples.labels, samples.training)
    own = own_vocabulary(backbone.model, backbone.facts.preprocessing, given, most=most)
    return OwnModel(
        own.model, own.preprocessing, PrivateSamples(own.samples.inputs, own.samples.labels, own.samples.training)
    )
