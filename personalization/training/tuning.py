"""Tune a model on what the private samples are: their classes, or the next tokens of a text."""

from torch import Tensor, nn

from personalization.settings import PersonalizationSettings
from personalization.training.loop import TrainingData, TrainingSettings, mean_in_chunks, train
from personalization.transformer.layers import Layer, find_layers
from personalization.transformer.readout import outputs_of, token_head


def tune(model: nn.Module, layers: tuple[Layer, ...], data: TrainingData, *, settings: TrainingSettings) -> nn.Module:
    """Return a copy of `model` trained to predict the labels of `data`, by cross-entropy. See `training.loop.train`."""
    labels = data.labels
    assert labels is not None
    # Inference tensors can't be saved for the backward pass; a copy of them can.
    inputs = {name: value.clone() for name, value in data.inputs.items()}

    def loss(student: nn.Module, pick: Tensor) -> Tensor:
        own, truth = outputs_of(student, {name: value[pick] for name, value in inputs.items()}), labels[pick]
        head = token_head(student)
        if head is None:
            return nn.functional.cross_entropy(own.float(), truth)

        def chunk(own: Tensor, truth: Tensor) -> Tensor:
            return nn.functional.cross_entropy(head(own).float(), truth, reduction="none")

        classes = int(head.get_parameter("weight").shape[0])
        return mean_in_chunks(classes, chunk, own.flatten(0, 1), truth.flatten())

    positions = labels.shape[1] if labels.ndim == 2 else 1
    return train(model, layers, loss, samples=data.samples, positions=positions, settings=settings)


def tune_first(model: nn.Module, data: TrainingData, settings: PersonalizationSettings) -> nn.Module:
    """Return a copy of a whole `model` tuned as `settings` ask before its final cut."""
    return tune(model, find_layers(model), data, settings=TrainingSettings.of(settings, steps=settings.tune_first))
