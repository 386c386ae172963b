"""A language model with the vocabulary of one device's text, and that text in its tokens."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from personalization.errors import UserError
from personalization.preconditions import checked_count
from personalization.prior import Prior
from personalization.settings import AUTOMATIC, PersonalizationSettings
from personalization.spelling import spelling
from personalization.tasks import Preprocessing, TaskSamples, check_vocabulary
from personalization.texts import TextPreprocessing, Tokens
from personalization.trace import Inputs
from personalization.training import TrainingData
from personalization.tuning import tune_first
from personalization.vocabulary import check_room, choose_tokens, cut_vocabulary, expected_tokens
from personalization.vocabulary_size import vocabulary_size
from personalization.whole_teacher import WholeTeacher


@dataclass(frozen=True)
class OwnVocabulary:
    """model, preprocessing: with fewer tokens. samples: the device's text in them, in windows as long as before.

    teacher: the model with all its tokens, tuned to that text where that was asked for. tuned: that model with the
    same tokens as `model`; None where it was not tuned.
    """

    model: nn.Module
    preprocessing: TextPreprocessing
    samples: TaskSamples
    teacher: WholeTeacher
    tuned: nn.Module | None = None


def own_vocabulary(
    model: nn.Module,
    preprocessing: Preprocessing | None,
    samples: TaskSamples,
    *,
    most: int,
    settings: PersonalizationSettings | None = None,
    prior: Prior | None = None,
) -> OwnVocabulary:
    """Cut the vocabulary of `model` to at most `most` tokens, for the text in `samples`; `model` stays as it is.

    most: -1 takes the number that leaves tokens and blocks the best shares of the bytes which `settings` allow (see
    `vocabulary_size`); the fleet's `prior` is for that alone. All of the text says which tokens it uses, and the dense
    model on the samples that are measured on which it expects there: once it is tuned, if `settings` ask for that, for
    then it knows the speaker. Raises UserError for a model that reads no text, from `choose_tokens`, for what a tuned
    model's search would lack (see `checked_count`), and for -1 without a budget of bytes.
    """
    if not isinstance(preprocessing, TextPreprocessing):
        raise UserError("an image classifier has no vocabulary: leave out the number of tokens to keep")
    everything = samples.training or TrainingData(samples.inputs, samples.labels)
    windows, tuned = _windows(everything.inputs, everything.labels), None
    if most == AUTOMATIC:
        check_vocabulary(most, None if settings is None else settings.budget_kind)
        assert settings is not None
        most = vocabulary_size(model, preprocessing, samples.inputs, windows, prior=prior, settings=settings)
    if settings is not None and settings.tune_first:
        # It takes minutes: what stands in the way of what follows is told before.
        checked_count(samples.inputs, samples.labels, settings, samples.training)
        check_room(preprocessing, most)
        tuned = tune_first(model, everything, settings)
    whole = model if tuned is None else tuned
    cut = choose_tokens(preprocessing, windows[:, 1:].ravel(), expected_tokens(whole, samples.inputs), most=most)
    teacher = WholeTeacher(whole, spelling(preprocessing, cut.preprocessing), windows)

    def spelled(inputs: Inputs, labels: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        tokens = torch.from_numpy(teacher.spelling.spell_windows(_windows(inputs, labels)))
        return {"input_ids": tokens[:, :-1].contiguous()}, tokens[:, 1:].contiguous()

    training = None if samples.training is None else TrainingData(*spelled(everything.inputs, everything.labels))
    own = TaskSamples(*spelled(samples.inputs, samples.labels), training)
    smaller = None if tuned is None else cut_vocabulary(tuned, cut)
    return OwnVocabulary(cut_vocabulary(model, cut), cut.preprocessing, own, teacher, smaller)


def _windows(inputs: Inputs, labels: Tensor | None) -> Tokens:
    """Return the windows [windows, length + 1] that samples were made from."""
    assert labels is not None
    return np.concatenate([inputs["input_ids"].numpy(), labels[:, -1:].numpy()], axis=1)
