"""A language model with all its tokens, as the teacher of one that has fewer, and the text that is taught on."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from personalization.data.texts import Tokens, spread
from personalization.training.loop import TrainingSettings
from personalization.transformer.readout import outputs_of, token_head
from personalization.vocabulary.piece_predictions import PiecePredictions
from personalization.vocabulary.spelling import Spelling

# Of the tokens of practice windows, those that are exchanged for dropped ones.
PRACTICE_SHARE = 0.05
# Positions whose predictions exist at a time: 100 MB of 49,152 tokens.
_POSITIONS = 512
_LEAST = 1e-30


@dataclass(frozen=True)
class WholeTeacher:
    """model: with all tokens. spelling: of these in the pieces that its student has. windows [windows, length + 1]:
    private text in the model's tokens.
    """

    model: nn.Module
    spelling: Spelling
    windows: Tokens

    def of_windows(self, most: int) -> "WholeTeacher":
        """Return the teacher of at most `most` of the windows, evenly spread."""
        return replace(self, windows=spread(self.windows, most))

    def private(self) -> Tensor:
        """Return the private windows in the student's pieces, [windows, length + 1]."""
        return torch.from_numpy(self.spelling.spell_windows(self.windows))

    @torch.no_grad()
    def practice(self, predictions: PiecePredictions, settings: TrainingSettings) -> Tensor:
        """Return the private windows with words in them that the student must spell, [windows, length + 1].

        Private text has almost none of these: what it uses was kept. So dropped tokens take the place of some others,
        where the teacher expects them, and as often as it does there: in `PRACTICE_SHARE` of all places, each drawn
        from what it predicts. Without dropped tokens there are no windows.
        """
        if not len(predictions.dropped):
            return torch.from_numpy(self.windows[:0])
        generator = torch.Generator().manual_seed(settings.seed)
        expected, drawn = [], []
        for part in torch.from_numpy(self.windows).split(max(1, _POSITIONS // (self.windows.shape[1] - 1))):
            dropped = self.predicted(part[:, :-1], settings)[..., predictions.dropped]
            expected.append(dropped.sum(-1))
            # Where one can't come at all, none is taken.
            possible = dropped.flatten(0, 1).clamp_min(_LEAST)
            drawn.append(torch.multinomial(possible, 1, generator=generator).view(part.shape[0], -1))
        chance, words = torch.cat(expected), predictions.dropped[torch.cat(drawn)]
        often = PRACTICE_SHARE / chance.mean().clamp_min(_LEAST)
        exchanged = torch.rand(chance.shape, generator=generator) < often * chance
        windows = torch.from_numpy(self.windows).clone()
        windows[:, 1:][exchanged] = words[exchanged]
        return torch.from_numpy(self.spelling.spell_windows(windows.numpy()))

    def predicted(self, tokens: Tensor, settings: TrainingSettings) -> Tensor:
        """Return the probabilities of the next token, [windows, positions, tokens], after `tokens`."""
        head = token_head(self.model)
        assert head is not None
        with settings.passes():
            logits: Tensor = head(outputs_of(self.model, {"input_ids": tokens}))
        return logits.float().softmax(-1)
