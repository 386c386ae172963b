"""What samples, labels and settings must be before a device begins a search that takes long."""

from torch import Tensor

from personalization.data.tasks import Preprocessing
from personalization.data.texts import TextPreprocessing
from personalization.errors import UserError
from personalization.settings import AUTOMATIC, PersonalizationSettings
from personalization.system.extras import check_adapters
from personalization.training.loop import TrainingData
from personalization.transformer.tokenizer_fit import check_tokenizer
from personalization.transformer.trace import DenseTrace, Inputs
from personalization.vocabulary.cut import check_room, fewest_tokens

FEWEST_SAMPLES = 8


def checked_count(
    inputs: Inputs, labels: Tensor | None, settings: PersonalizationSettings, training: TrainingData | None
) -> int:
    """Return how many private samples `inputs` are; raise UserError for what a search, or what follows it, would lack.

    labels: of the samples. training: what is trained on instead of the samples, if the settings train.
    """
    counts = {len(value) for value in inputs.values()}
    if len(counts) != 1:
        raise UserError(f"inputs of {sorted(counts)} samples; expected as many of each")
    count = counts.pop()
    if count < FEWEST_SAMPLES:
        raise UserError(
            f"{count} private samples; probes need at least {FEWEST_SAMPLES}, to fit on some and measure on others"
        )
    if settings.signal == "loss" and (labels is None or len(labels) != count):
        raise UserError("signal loss needs a label for every private sample; give labels or use signal entropy")
    if settings.trains or settings.tunes:
        _check_training(labels if training is None else training.labels, settings)
    return count


def check_tokens(
    preprocessing: Preprocessing | None, labels: Tensor | None, settings: PersonalizationSettings
) -> TextPreprocessing | None:
    """Return the tokenizer whose vocabulary the settings cut, None where they keep all of it.

    labels: the next tokens of the samples. Raises UserError for a model that reads no text, a tokenizer that can't be
    cut, and fewer tokens than spell any text.
    """
    if not settings.vocabulary:
        return None
    if not isinstance(preprocessing, TextPreprocessing):
        raise UserError("an image classifier has no vocabulary: leave out the number of tokens to keep")
    if labels is None:
        raise UserError("a vocabulary of fewer tokens needs the next tokens of the samples as labels")
    if settings.vocabulary == AUTOMATIC:
        fewest_tokens(preprocessing)
    else:
        check_room(preprocessing, settings.vocabulary)
    return preprocessing


def _check_training(labels: Tensor | None, settings: PersonalizationSettings) -> None:
    if settings.tunes and labels is None:
        asked = "tune_first" if settings.tune_first else f"recovery {settings.recovery}"
        raise UserError(f"{asked} needs labels, which these samples lack; recovery distill needs none")
    if settings.adapters:
        check_adapters()


def check_trace(trace: DenseTrace, labels: Tensor | None, settings: PersonalizationSettings) -> None:
    """Raise UserError where the settings ask for what a model that does this with the samples can't give, and for
    samples that mean nothing to it.
    """
    if "input_ids" in trace.inputs:
        check_tokenizer(trace.model, trace.inputs["input_ids"], trace.outputs, trace.positions)
    if settings.refit_samples and trace.head is None:
        raise UserError("refit_samples is for language models: an image model is cut on all private images already")
    if settings.signal == "loss" and labels is not None:
        _check_labels(trace, labels)


def _check_labels(trace: DenseTrace, labels: Tensor) -> None:
    if labels.shape != trace.outputs.shape[:-1]:
        expected = f"expected {list(trace.outputs.shape[:-1])}, one for each prediction"
        raise UserError(f"labels of shape {list(labels.shape)}; {expected}")
    if bool(((labels < 0) | (labels >= trace.classes)).any()):
        raise UserError(
            f"labels from {int(labels.min())} to {int(labels.max())}; the model knows 0 to {trace.classes - 1}"
        )
