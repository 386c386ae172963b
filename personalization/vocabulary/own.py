"""The vocabulary of one device's text, and that text in its tokens."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from personalization.data.tasks import PrivateSamples, all_windows, windows_of
from personalization.training.loop import TrainingData
from personalization.transformer.trace import Inputs
from personalization.vocabulary.cut import VocabularyCut, choose_tokens
from personalization.vocabulary.fewer_tokens import FewerTokens
from personalization.vocabulary.spelling import spelling
from personalization.vocabulary.whole_teacher import WholeTeacher


@dataclass(frozen=True)
class OwnVocabulary:
    """cut: which tokens stay. samples: the device's text in them, in windows as long as before. teacher: the model with
    all its tokens.
    """

    cut: VocabularyCut
    samples: PrivateSamples
    teacher: WholeTeacher


def own_vocabulary(
    model: nn.Module, samples: PrivateSamples, fewer: FewerTokens, expected: NDArray[np.float64]
) -> OwnVocabulary:
    """Choose as many tokens of `model` as `fewer` lets stay, for the text in `samples`.

    All of the text says which tokens it uses. expected [tokens]: see `choose_tokens`. Raises UserError from there.
    """
    windows = all_windows(samples)
    cut = choose_tokens(fewer.preprocessing, windows[:, 1:].ravel(), expected, most=fewer.most)
    teacher = WholeTeacher(model, spelling(fewer.preprocessing, cut.preprocessing), windows)

    def spelled(inputs: Inputs, labels: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        tokens = torch.from_numpy(teacher.spelling.spell_windows(windows_of(inputs, labels)))
        return {"input_ids": tokens[:, :-1].contiguous()}, tokens[:, 1:].contiguous()

    everything = samples.training
    training = None if everything is None else TrainingData(*spelled(everything.inputs, everything.labels))
    return OwnVocabulary(cut, PrivateSamples(*spelled(samples.inputs, samples.labels), training), teacher)
