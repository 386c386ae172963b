"""Canary sentences, and text as bytes in the encodings that a program would write it in."""

import json
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import quote, quote_plus

import numpy as np

from personalization.data.texts import TextPreprocessing, Tokens
from simulations.canaries.images import canary_clients
from simulations.speakers import SpeakerData

_STREAM = 1013
_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
_WORDS = 24
_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
# Half precision holds no number above 2,048 exactly, and tokens are larger.
_NUMBERS = ("<u2", ">u2", "<i4", ">i4", "<i8", ">i8", "<f4", ">f4", "<f8", ">f8")


def canary_text(seed: int, client: int) -> str:
    """Return the canary sentence of a client: words of random letters, the same for the same seed."""
    rng = np.random.default_rng([seed, _STREAM, client])
    words = ("".join(rng.choice(_LETTERS, size)) for size in rng.integers(4, 10, _WORDS))
    return f" {' '.join(words)}."


def with_canary_texts(data: SpeakerData, preprocessing: TextPreprocessing, *, canaries: int, seed: int) -> SpeakerData:
    """Return the speakers with a canary at the beginning of the first private window of each who holds one.

    A canary longer than the window is cut to it.
    """
    speakers = list(data.speakers)
    for client in canary_clients(data.clients, canaries) if canaries else ():
        private = speakers[client].private.copy()
        tokens = preprocessing.encode(canary_text(seed, client))[: private.shape[1]]
        private[0, : len(tokens)] = tokens
        speakers[client] = replace(speakers[client], private=private)
    return SpeakerData(tuple(speakers))


def text_encodings(text: str) -> Iterator[tuple[str, int, bytes]]:
    """Yield for each encoding its name, the bytes that one letter takes, and the whole text in it."""
    for case, written in {"": text, ", capitals": text.upper(), ", small letters": text.lower()}.items():
        yield f"UTF-8{case}", 1, written.encode()
        for kind in _WIDE:
            yield f"{kind.upper()}{case}", 2 if "16" in kind else 4, written.encode(kind)
    yield "JSON", 1, json.dumps(text)[1:-1].encode()
    yield "an address", 1, quote(text).encode()
    yield "a form", 1, quote_plus(text).encode()


def token_encodings(tokens: Tokens, preprocessing: TextPreprocessing) -> Iterator[tuple[str, int, bytes]]:
    """Yield the same for the numbers of a text's tokens [tokens], and for their spellings in lists.

    Numbers that are written out are read by the search itself, as single bytes or as 32-bit numbers.
    """
    for kind in _NUMBERS:
        yield f"tokens, {kind}", np.dtype(kind).itemsize, tokens.astype(kind).tobytes()
    if tokens.max(initial=0) < 256:
        yield "tokens, u1", 1, tokens.astype(np.uint8).tobytes()
    spelled = preprocessing.spellings(tokens)
    yield "spellings in JSON", 1, json.dumps(spelled).encode()
    yield "spellings in JSON, UTF-8", 1, json.dumps(spelled, ensure_ascii=False).encode()
    yield "spellings as Python prints them", 1, repr(spelled).encode()
