"""The model that a device personalizes: the backbone, or what it makes of it for its own text before anything else."""

import hashlib
from dataclasses import dataclass

from torch import nn

from client.backbone import LocalBackbone
from client.data import Config, PrivateSamples
from personalization.own_vocabulary import own_vocabulary
from personalization.prior import Prior
from personalization.settings import PersonalizationSettings
from personalization.tasks import Preprocessing, TaskSamples
from personalization.texts import TextPreprocessing
from personalization.whole_teacher import WholeTeacher


@dataclass(frozen=True)
class OwnModel:
    """model, preprocessing: the backbone's, or those with fewer tokens. samples: the device's, in these tokens.

    tokenizer: that of the tokens that were kept, None where all were. tuned: the model tuned to the samples, where
    that was needed to choose its tokens. teacher: the model with all its tokens, where `model` has fewer.
    """

    model: nn.Module
    preprocessing: Preprocessing | None
    samples: PrivateSamples
    tokenizer: TextPreprocessing | None = None
    tuned: nn.Module | None = None
    teacher: WholeTeacher | None = None

    def fingerprint(self) -> bytes:
        """Return 32 bytes that tell what is measured here from what is measured on other inputs, or with other tokens.

        Which tokens are kept need not show in the inputs: those that are never used do not.
        """
        inputs = self.samples.fingerprint()
        return inputs if self.tokenizer is None else hashlib.sha256(inputs + self.tokenizer.tokenizer.encode()).digest()


def own_model(
    backbone: LocalBackbone,
    samples: PrivateSamples,
    config: Config,
    settings: PersonalizationSettings,
    prior: Prior | None,
) -> OwnModel:
    """Return what a device personalizes: with `vocabulary` in its configuration, a model of at most so many tokens.

    0 tokens, or none given, keep all, -1 leaves their number to the device. settings: what the device does, with a seed
    that is the same in every round, so that its tokens stay the same. prior: what the fleet knows of the blocks.
    Raises UserError for models that read no text, and numbers that make no sense.
    """
    most = int(config.get("vocabulary") or 0)
    if not most:
        return OwnModel(backbone.model, backbone.facts.preprocessing, samples)
    given = TaskSamples(samples.inputs, samples.labels, samples.training)
    own = own_vocabulary(backbone.model, backbone.facts.preprocessing, given, most=most, settings=settings, prior=prior)
    cut = PrivateSamples(own.samples.inputs, own.samples.labels, own.samples.training)
    return OwnModel(own.model, own.preprocessing, cut, own.preprocessing, own.tuned, own.teacher)
