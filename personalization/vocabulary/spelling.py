"""Spell text of the whole vocabulary in the tokens of a cut one: what was dropped, in the pieces it is merged from."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from personalization.data.texts import TextPreprocessing, Tokens


@dataclass(frozen=True)
class Spelling:
    """pieces: for each token of the whole vocabulary the tokens, by their new numbers, that spell it."""

    pieces: tuple[Tokens, ...]

    @cached_property
    def whole(self) -> Tokens:
        """Number in the whole vocabulary of each token of the cut one, [tokens]."""
        kept = [(int(pieces[0]), number) for number, pieces in enumerate(self.pieces) if len(pieces) == 1]
        return np.array([number for _, number in sorted(kept)], dtype=np.int64)

    def spell(self, tokens: Sequence[int] | Tokens) -> Tokens:
        """Return text of whole tokens [tokens] in tokens of the cut vocabulary, [as many or more]."""
        return np.concatenate([self.pieces[token] for token in tokens]) if len(tokens) else np.zeros(0, dtype=np.int64)

    def spell_windows(self, windows: Tokens) -> Tokens:
        """Return windows [windows, length + 1] spelled out, each without what no longer fits into it at its end."""
        spelled = [self.spell(window)[: windows.shape[1]] for window in windows]
        return np.stack(spelled) if spelled else windows


def spelling(whole: TextPreprocessing, cut: TextPreprocessing) -> Spelling:
    """Return how tokens of `whole` are spelled in those of `cut`, a vocabulary that was cut from it."""
    pairs = _first_pairs(whole)
    numbers = _numbers(cut)
    known = {name: np.array([number], dtype=np.int64) for name, number in numbers.items()}

    def pieces(name: str) -> Tokens:
        if name not in known:
            known[name] = np.concatenate([pieces(part) for part in pairs[name]])
        return known[name]

    names = _numbers(whole)
    nothing = np.zeros(0, dtype=np.int64)
    found = [nothing] * (max(names.values(), default=-1) + 1)
    for name, number in names.items():
        found[number] = pieces(name)
    return Spelling(tuple(found))


def _numbers(preprocessing: TextPreprocessing) -> dict[str, int]:
    record = json.loads(preprocessing.tokenizer)
    added = {token["content"]: int(token["id"]) for token in record.get("added_tokens") or []}
    return {**record["model"]["vocab"], **added}


def _first_pairs(preprocessing: TextPreprocessing) -> dict[str, tuple[str, str]]:
    """Return the two names that each token is merged from, by the first merge that makes it."""
    pairs: dict[str, tuple[str, str]] = {}
    for merge in json.loads(preprocessing.tokenizer)["model"]["merges"]:
        first, second = merge.split(" ") if isinstance(merge, str) else merge
        pairs.setdefault(first + second, (first, second))
    return pairs
