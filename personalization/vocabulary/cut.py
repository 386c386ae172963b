"""Cut the vocabulary: drop tokens that a device's text does not use and its model does not expect there.

A token's share of the private text says how often it came, and the probability that the dense model gives it there, on
average over all positions, how often it may come: words that belong to a text, used so far or not. Of these the first
are kept. Single bytes and special tokens stay too, and so does everything that a kept token is merged from (byte-pair
encoding, Sennrich et al. 2016, section 3.2): then text of kept tokens is encoded as before, token by token, and any
other text still can be encoded, in more tokens.
"""

import copy
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from personalization.data.texts import TextPreprocessing, Tokens
from personalization.errors import UserError
from personalization.transformer.layers import linear_weight
from personalization.transformer.readout import in_chunks, outputs_of, token_head
from personalization.transformer.trace import Inputs

# Windows whose hidden states exist at a time.
_BATCH = 16

_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "decoder_start_token_id")


@dataclass(frozen=True)
class VocabularyCut:
    """preprocessing: with the smaller tokenizer. kept [tokens]: the dense model's number of each token that is left."""

    preprocessing: TextPreprocessing
    kept: Tokens


@torch.inference_mode()
def expected_tokens(model: nn.Module, inputs: Inputs) -> NDArray[np.float64]:
    """Return the mean probability that a causal language model gives each token on `inputs`, [tokens]; it sums to 1."""
    head = token_head(model)
    assert head is not None
    means, samples = list[NDArray[np.float64]](), list[int]()
    for rows in zip(*(value.split(_BATCH) for value in inputs.values()), strict=True):
        means.append(mean_predictions(head, outputs_of(model, dict(zip(inputs, rows, strict=True)))))
        samples.append(len(rows[0]))
    return np.average(means, axis=0, weights=samples)


@torch.inference_mode()
def mean_predictions(head: nn.Module, outputs: Tensor) -> NDArray[np.float64]:
    """Return the mean probability of each token, [tokens], over all that `head` reads, [samples, positions, width]."""
    classes = len(linear_weight(head))
    total, hidden = torch.zeros(classes, dtype=torch.float64), outputs.flatten(0, -2)
    for (part,) in in_chunks(classes, hidden):
        total += head(part).softmax(-1).sum(0)
    return (total / len(hidden)).numpy()


def choose_tokens(
    preprocessing: TextPreprocessing, private: Tokens, expected: NDArray[np.float64], *, most: int
) -> VocabularyCut:
    """Return the cut that keeps at most `most` tokens: those with the largest sum of share and expectation, and parts.

    private: tokens of the device's text. expected [tokens]: see `expected_tokens`. Raises UserError for a tokenizer
    that is no byte-pair encoding, and where not even single bytes find room.
    """
    merged = _Merged(preprocessing)
    _check_room(merged, most)
    kept = np.flatnonzero(merged.sizes(_ranked(private, expected)) <= most)
    separator = preprocessing.separator
    number = int(np.searchsorted(kept, separator)) if separator is not None and separator in kept else None
    return VocabularyCut(TextPreprocessing(_smaller(merged.record, kept), number, preprocessing.context), kept)


def smallest_sizes(
    preprocessing: TextPreprocessing, private: Tokens, expected: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return for each number [tokens] at how many tokens `choose_tokens` begins to keep it; one that is no token never.

    Raises UserError for a tokenizer that is no byte-pair encoding.
    """
    return _Merged(preprocessing).sizes(_ranked(private, expected))


def _ranked(private: Tokens, expected: NDArray[np.float64]) -> Tokens:
    """Return the numbers of tokens, those first that have the largest sum of share and expectation."""
    score = expected + np.bincount(private, minlength=len(expected)) / max(len(private), 1)
    return np.argsort(-score, kind="stable")


def fewest_tokens(preprocessing: TextPreprocessing) -> int:
    """Return how many tokens a cut of the vocabulary keeps at least: without them some text could not be encoded.

    Raises UserError for a tokenizer that is no byte-pair encoding.
    """
    return _Merged(preprocessing).fewest


def check_room(preprocessing: TextPreprocessing, most: int) -> None:
    """Raise UserError where a cut to at most `most` tokens would leave some text that can't be encoded."""
    _check_room(_Merged(preprocessing), most)


def _check_room(merged: "_Merged", most: int) -> None:
    if most < merged.fewest:
        raise UserError(
            f"a vocabulary of {most} tokens: expected {merged.fewest:,} or more, or some text could not be encoded"
        )


def cut_vocabulary(model: nn.Module, cut: VocabularyCut) -> nn.Module:
    """Return a copy of a causal language model with the rows of the tokens that are kept; it shares the other tensors.

    Embeddings that are tied to the head stay so. `model` stays as it is.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    personal: Any = copy.deepcopy(model, dict(shared))
    embedding, head = personal.get_input_embeddings(), personal.get_output_embeddings()
    rows, tied = torch.from_numpy(cut.kept), head.weight is embedding.weight
    embedding.weight = _rows(embedding.weight, rows)
    head.weight = embedding.weight if tied else _rows(head.weight, rows)
    if head.bias is not None:
        head.bias = _rows(head.bias, rows)
    embedding.num_embeddings, head.out_features = len(rows), len(rows)
    number = {int(old): new for new, old in enumerate(cut.kept)}
    if embedding.padding_idx is not None:
        embedding.padding_idx = number.get(embedding.padding_idx)
    personal.config.vocab_size = len(rows)
    for settings in (personal.config, personal.generation_config):
        for key in _SPECIAL:
            value = getattr(settings, key, None)
            if value is not None:
                listed = [number[v] for v in (value if isinstance(value, list) else [value]) if v in number]
                setattr(settings, key, listed if isinstance(value, list) else next(iter(listed), None))
    whole: nn.Module = personal
    return whole


class _Merged:
    """The tokens of a byte-pair encoding by their numbers, each with what it is merged from."""

    def __init__(self, preprocessing: TextPreprocessing) -> None:
        """Read them. Raises UserError for another kind of tokenizer."""
        self.record = json.loads(preprocessing.tokenizer)
        _check(self.record["model"])
        self._numbers: dict[str, int] = self.record["model"]["vocab"]
        self._parts = _parts(self.record)
        special = {int(token["id"]) for token in self.record.get("added_tokens") or []}
        whole = (number for number in self._numbers.values() if number not in self._parts)
        self._always: set[int] = set()
        for number in (*special, *whole):
            self._add(number, self._always)

    @property
    def fewest(self) -> int:
        """How many tokens always stay."""
        return len(self._always)

    def sizes(self, ranked: Tokens) -> NDArray[np.int64]:
        """Return for each of `ranked`, numbers from 0 in any order, how many tokens stay if it does: those before it in
        that order and the parts of all. A number that is no token never stays.
        """
        known, stay = set(self._numbers.values()), set(self._always)
        sizes = np.full(len(ranked), np.iinfo(np.int64).max)
        sizes[list(stay)] = len(stay)
        for number in ranked.tolist():
            if number in known:
                added = self._add(number, stay)
                sizes[added] = len(stay)
        return sizes

    def _add(self, number: int, stay: set[int]) -> list[int]:
        """Add a token and its parts to those that `stay`; return which of them are new."""
        new, waiting = list[int](), [number]
        while waiting:
            found = waiting.pop()
            if found not in stay:
                stay.add(found)
                new.append(found)
                waiting += self._parts.get(found, [])
        return new


def _rows(parameter: Tensor, rows: Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach()[rows], requires_grad=parameter.requires_grad)


def _smaller(record: dict[str, Any], kept: Tokens) -> str:
    """Return the tokenizer `record` with the `kept` tokens alone, numbered anew, as JSON."""
    model, number = record["model"], {int(old): new for new, old in enumerate(kept)}
    vocabulary = {name: number[old] for name, old in model["vocab"].items() if old in number}
    merges = [list(merge) for merge in _merges(record) if {*merge, "".join(merge)} <= vocabulary.keys()]
    added = [{**token, "id": number[token["id"]]} for token in record.get("added_tokens") or []]
    # A post-processor puts special tokens around a text, by their old numbers; they are never asked for.
    changed = {"model": {**model, "vocab": vocabulary, "merges": merges}, "added_tokens": added, "post_processor": None}
    return json.dumps({**record, **changed})


def _merges(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the pairs of names that the tokenizer `record` merges, the first it learned first."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in record["model"]["merges"])
    return [(first, second) for first, second in pairs]


def _parts(record: dict[str, Any]) -> dict[int, list[int]]:
    """Return the tokens that each token may be merged from, by their numbers."""
    numbers, parts = record["model"]["vocab"], defaultdict[int, list[int]](list)
    for first, second in _merges(record):
        parts[numbers[first + second]] += [numbers[first], numbers[second]]
    return parts


def _check(model: dict[str, Any]) -> None:
    """Raise UserError unless tokens are merged from pieces that stay: then whatever could be encoded still can be."""
    if model.get("type") != "BPE" or model.get("continuing_subword_prefix"):
        raise UserError(
            f"a {model.get('type')} tokenizer, which does not merge its tokens from single characters or bytes: its "
            "vocabulary can't be cut, or some text could no longer be encoded; leave out --vocabulary"
        )
