"""What a language model with all its tokens predicts, told in the pieces that a cut vocabulary has left.

A dropped token begins with a piece that is a token itself. The probability of a next piece is that of all tokens that
may begin with it, and inside of a word, of those that go on with it: the sum over every way of reading the pieces so
far as tokens (Vieira et al. 2024, 2412.03719, where the model is one over characters).
"""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from personalization.vocabulary.spelling import Spelling

Prefix = tuple[int, ...]


class PiecePredictions:
    """Tells predictions over the whole vocabulary in pieces, for one spelling."""

    def __init__(self, spelling: Spelling) -> None:
        """Sort the dropped tokens by how their spelling begins."""
        self.whole = torch.from_numpy(spelling.whole)
        following: dict[Prefix, list[tuple[int, int]]] = defaultdict(list)
        self._spelled: dict[Prefix, int] = {}
        for token, found in enumerate(spelling.pieces):
            if len(found) < 2:
                continue
            pieces = tuple(found.tolist())
            self._spelled[pieces] = token
            for length in range(1, len(pieces)):
                following[pieces[:length]].append((token, pieces[length]))
        self._following = {
            prefix: (torch.tensor([token for token, _ in pairs]), torch.tensor([piece for _, piece in pairs]))
            for prefix, pairs in following.items()
        }
        self.dropped = torch.tensor(list(self._spelled.values()), dtype=torch.long)
        self._first = torch.tensor([pieces[0] for pieces in self._spelled], dtype=torch.long)

    def of(self, probabilities: Tensor, pieces: Tensor) -> Tensor:
        """Return the probabilities of the next piece [positions, pieces], a distribution at each position.

        probabilities [positions, tokens]: of the next token, in single precision, were each piece so far a token.
        pieces [positions]: what was read; the first of them is a token.
        """
        told, read = self._beginnings(probabilities), pieces.tolist()
        reading = _Reading(1.0, {})
        for position, row in enumerate(told):
            if position:
                reading = self._read_on(reading, probabilities, read, position)
            row *= reading.ended
            for start, share in reading.started.items():
                tokens, following = self._following[tuple(read[start : position + 1])]
                row.index_add_(0, following, probabilities[start - 1, tokens], alpha=share)
            row /= row.sum()
        return told

    def _beginnings(self, probabilities: Tensor) -> Tensor:
        """Return the probability [positions, pieces] that the next token begins with a piece."""
        found = probabilities[:, self.whole]
        return found.index_add_(1, self._first, probabilities[:, self.dropped])

    def _read_on(self, reading: "_Reading", probabilities: Tensor, read: list[int], position: int) -> "_Reading":
        """Return how the piece at `position` goes along with what was read before it."""
        ended = reading.ended * float(probabilities[position - 1, self.whole[read[position]]])
        started, total = {}, ended
        for start, share in [*reading.started.items(), (position, reading.ended)]:
            prefix, before = tuple(read[start : position + 1]), probabilities[start - 1]
            if prefix in self._spelled:
                ends = share * float(before[self._spelled[prefix]])
                ended, total = ended + ends, total + ends
            if prefix in self._following:
                started[start] = share
                total += share * float(before[self._following[prefix][0]].sum())
        if not total > 0.0:
            return _Reading(1.0, {})
        return _Reading(ended / total, {start: share / total for start, share in started.items()})


@dataclass(frozen=True)
class _Reading:
    """How pieces may have been meant. ended: probability that a token ends with the last of them. started: for each
    place where a longer one may have begun, the same of the token before it, over the probability of all that was read.
    """

    ended: float
    started: dict[int, float]
