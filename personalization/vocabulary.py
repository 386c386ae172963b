"""Cut the vocabulary: drop tokens that a device's text and a public list never use, with their rows of the embeddings.

The public list comes with the tokenizer: byte-pair encoding learns its most common tokens first (Sennrich et al. 2016,
section 3.2), so the first merges are it. What no merge makes stays, single bytes above all, and so does everything that
a kept token is merged from: then text of kept tokens is encoded as before, token by token, and any other text still
can be encoded, in more tokens.
"""

import copy
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from personalization.errors import UserError
from personalization.texts import TextPreprocessing, Tokens

_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "decoder_start_token_id")


@dataclass(frozen=True)
class VocabularyCut:
    """preprocessing: with the smaller tokenizer. kept [tokens]: the dense model's number of each token that is left."""

    preprocessing: TextPreprocessing
    kept: Tokens

    def renumbered(self, tokens: Tensor) -> Tensor:
        """Return the new numbers of `tokens` of the dense model, all of which must be kept."""
        places = np.searchsorted(self.kept, tokens.numpy())
        assert (self.kept[places] == tokens.numpy()).all()
        return torch.from_numpy(places)


def choose_tokens(preprocessing: TextPreprocessing, private: Tokens, *, common: int) -> VocabularyCut:
    """Return the cut that keeps the tokens in `private` text and the `common` first that the tokenizer learned.

    Raises UserError for a tokenizer that is no byte-pair encoding.
    """
    if common < 0:
        raise UserError(f"{common} common tokens: expected 0 or more")
    record = json.loads(preprocessing.tokenizer)
    model, added = record["model"], record.get("added_tokens") or []
    _check(model)
    names: dict[int, str] = {number: name for name, number in model["vocab"].items()}
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    parts: dict[str, list[str]] = defaultdict(list)
    for first, second in merges:
        parts[first + second] += [first, second]
    special = {token["id"] for token in added}
    wanted = [name for name in model["vocab"] if name not in parts]
    wanted += [first + second for first, second in merges[:common]]
    wanted += [names[token] for token in np.unique(private).tolist() if token in names]
    chosen = _with_parts(wanted, parts)
    kept = np.array(sorted({model["vocab"][name] for name in chosen} | special), dtype=np.int64)
    number = {int(old): new for new, old in enumerate(kept)}
    model["vocab"] = {name: number[old] for name, old in model["vocab"].items() if old in number}
    model["merges"] = [list(m) for m in merges if {*m, "".join(m)} <= model["vocab"].keys()]
    record["added_tokens"] = [{**token, "id": number[token["id"]]} for token in added]
    record["post_processor"] = None  # puts special tokens around a text, by their old numbers; they are never asked for
    separator = None if preprocessing.separator is None else number.get(preprocessing.separator)
    return VocabularyCut(TextPreprocessing(json.dumps(record), separator, preprocessing.context), kept)


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


def _rows(parameter: Tensor, rows: Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach()[rows], requires_grad=parameter.requires_grad)


def _with_parts(wanted: Iterable[str], parts: dict[str, list[str]]) -> set[str]:
    chosen, waiting = set[str](), list(wanted)
    while waiting:
        name = waiting.pop()
        if name not in chosen:
            chosen.add(name)
            waiting += parts.get(name, [])
    return chosen


def _check(model: dict[str, Any]) -> None:
    """Raise UserError unless tokens are merged from pieces that stay: then whatever could be encoded still can be."""
    if model.get("type") != "BPE" or model.get("continuing_subword_prefix"):
        raise UserError(
            f"a {model.get('type')} tokenizer, which does not merge its tokens from single characters or bytes: its "
            "vocabulary can't be cut, or some text could no longer be encoded; leave out --common-tokens"
        )
