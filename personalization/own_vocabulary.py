"""A language model with the vocabulary of one device's text, and that text in its tokens."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from personalization.errors import UserError
from personalization.spelling import spelling
from personalization.tasks import Preprocessing, TaskSamples
from personalization.texts import TextPreprocessing, Tokens
from personalization.trace import Inputs
from personalization.training import TrainingData
from personalization.vocabulary import choose_tokens, cut_vocabulary, expected_tokens


@dataclass(frozen=True)
class OwnVocabulary:
    """model, preprocessing: with fewer tokens. samples: the device's text in them, in windows as long as before."""

    model: nn.Module
    preprocessing: TextPreprocessing
    samples: TaskSamples


def own_vocabulary(
    model: nn.Module, preprocessing: Preprocessing | None, samples: TaskSamples, *, most: int
) -> OwnVocabulary:
    """Cut the vocabulary of `model` to at most `most` tokens, for the text in `samples`; `model` stays as it is.

    All of the text says which tokens it uses, and the dense model on the samples that are measured on which it expects
    there. Raises UserError for a model that reads no text, and from `choose_tokens`.
    """
    if not isinstance(preprocessing, TextPreprocessing):
        raise UserError("an image classifier has no vocabulary: leave out the number of tokens to keep")
    everything = samples.training or TrainingData(samples.inputs, samples.labels)
    private = _windows(everything.inputs, everything.labels)[:, 1:].ravel()
    cut = choose_tokens(preprocessing, private, expected_tokens(model, samples.inputs), most=most)
    spell = spelling(preprocessing, cut.preprocessing).spell_windows

    def spelled(inputs: Inputs, labels: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        tokens = torch.from_numpy(spell(_windows(inputs, labels)))
        return {"input_ids": tokens[:, :-1].contiguous()}, tokens[:, 1:].contiguous()

    training = None if samples.training is None else TrainingData(*spelled(everything.inputs, everything.labels))
    own = TaskSamples(*spelled(samples.inputs, samples.labels), training)
    return OwnVocabulary(cut_vocabulary(model, cut), cut.preprocessing, own)


def _windows(inputs: Inputs, labels: Tensor | None) -> Tokens:
    """Return the windows [windows, length + 1] that samples were made from."""
    assert labels is not None
    return np.concatenate([inputs["input_ids"].numpy(), labels[:, -1:].numpy()], axis=1)
