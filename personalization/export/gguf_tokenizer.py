"""A tokenizer as GGUF holds it: its tokens, the merges between them, and the name of how it splits text before."""

import json
from dataclasses import dataclass
from typing import Any

from personalization.data.texts import TextPreprocessing
from personalization.errors import UserError

# GGUF's numbers for what a token is.
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# How texts are split by an expression, by the name that llama.cpp knows it by: digits one by one, or up to three.
_EXPRESSIONS = {_WORDS + r"\p{N}" + _REST: "qwen2", _WORDS + r"\p{N}{1,3}" + _REST: "llama-bpe"}


@dataclass(frozen=True)
class TokenizerRecord:
    """name: of how it splits text. tokens, kinds: by number. merges: pairs of tokens with a space between."""

    name: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]


def read_tokenizer(preprocessing: TextPreprocessing, vocabulary: int) -> TokenizerRecord:
    """Return the tokenizer of a model with `vocabulary` tokens; those that it never makes get a name of their own.

    Raises UserError for a tokenizer that is no byte-level byte-pair encoding, or splits text in another way than those
    that llama.cpp has a name for.
    """
    record = json.loads(preprocessing.tokenizer)
    model = record["model"]
    name = _name(record.get("pre_tokenizer"), record.get("normalizer"))
    if model.get("type") != "BPE" or model.get("byte_fallback") or name is None:
        raise UserError(
            "a tokenizer that GGUF has no name for; expected a byte-level byte-pair encoding that splits text as those "
            "of GPT-2, SmolLM, Qwen2 or Llama 3 do, or use ONNX"
        )
    tokens = [f"[unused {number}]" for number in range(vocabulary)]
    kinds = [_UNUSED] * vocabulary
    for token, number in model["vocab"].items():
        tokens[number], kinds[number] = token, _NORMAL
    for added in record.get("added_tokens") or []:
        if added["id"] >= vocabulary:
            raise UserError(
                f"tokenizer.json: {added['content']!r} is token {added['id']}, but the model has tokens 0 to "
                f"{vocabulary - 1:,}; expected the tokenizer that belongs to the model"
            )
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = _CONTROL if added.get("special") else _USER_DEFINED
    merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    return TokenizerRecord(name, tuple(tokens), tuple(kinds), tuple(merges))


def _name(splitter: dict[str, Any] | None, normalizer: dict[str, Any] | None) -> str | None:
    """Return llama.cpp's name for how a text is split, or None if it has none."""
    steps = splitter.get("pretokenizers", [splitter]) if splitter else []
    kinds = [step["type"] for step in steps]
    if not kinds or kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    if normalizer is not None and normalizer["type"] != "NFC":
        return None
    split = steps[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and split:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and split and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not split:
        return _EXPRESSIONS.get(steps[0]["pattern"].get("Regex", ""))
    return None
