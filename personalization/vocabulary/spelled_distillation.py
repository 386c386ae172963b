"""Distil a language model with all its tokens into a cut one that has fewer, on private text.

What was dropped comes all the same, spelled in pieces: about one token in two hundred. A student that never met that
finds it as unlikely as can be; what its teacher predicts, told in pieces, says when to begin such a word and how to end
it.
"""

import torch
from torch import Tensor, nn

from personalization.training.distillation import LABEL_SHARE, TOKEN_RATE
from personalization.training.loop import TrainingSettings, batch_size, mean_in_chunks, train
from personalization.transformer.layers import Layer
from personalization.transformer.readout import outputs_of, token_head
from personalization.vocabulary.piece_predictions import PiecePredictions
from personalization.vocabulary.whole_teacher import WholeTeacher


def distill_spelled(
    model: nn.Module,
    layers: tuple[Layer, ...],
    teacher: WholeTeacher,
    *,
    settings: TrainingSettings,
    labels: bool = False,
) -> nn.Module:
    """Return a copy of `model` trained to predict what `teacher` does, told in the pieces that `model` has.

    It is trained on the private text, and on as much practice with words that it has to spell (see
    `WholeTeacher.practice`). The loss is KL(p_teacher || p_model). labels: whether `LABEL_SHARE` of it, on the private
    text, is the cross-entropy of the next pieces. See `training.loop.train`.
    """
    if not settings.steps:
        return model
    predictions = PiecePredictions(teacher.spelling)
    # Half of what is trained on is practice, if there is any, and no more of it is made than there are batches for.
    samples = settings.steps * batch_size(model, teacher.windows.shape[1] - 1)
    teacher = teacher.of_windows(-(-samples // 2) if len(predictions.dropped) else samples)
    private = teacher.private()
    windows = torch.cat([private, teacher.practice(predictions, settings)])
    shares = torch.zeros(windows[:, 1:].shape)
    shares[: len(private)] = LABEL_SHARE if labels else 0.0

    def loss(student: nn.Module, pick: Tensor) -> Tensor:
        pieces, truth = windows[pick, :-1], windows[pick, 1:]
        with torch.no_grad():
            expected = teacher.predicted(predictions.whole[pieces], settings)
            targets = torch.cat([predictions.of(*window) for window in zip(expected, pieces, strict=True)])
        head = token_head(student)
        assert head is not None

        def chunk(own: Tensor, targets: Tensor, truth: Tensor, share: Tensor) -> Tensor:
            predicted: Tensor = head(own).float().log_softmax(-1)
            # Less the entropy of the targets this is the divergence: of both the gradients are the same.
            missed = -(targets * predicted).sum(-1)
            surprise = nn.functional.nll_loss(predicted, truth, reduction="none")
            return (1.0 - share) * missed + share * surprise

        outputs = outputs_of(student, {"input_ids": pieces}).flatten(0, 1)
        beside = targets, truth.flatten(), shares[pick].flatten()
        return mean_in_chunks(len(predictions.whole), chunk, outputs, *beside)

    return train(
        model,
        layers,
        loss,
        samples=len(windows),
        positions=shares.shape[1],
        settings=settings,
        rate=TOKEN_RATE,
    )
