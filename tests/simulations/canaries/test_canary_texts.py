"""A canary sentence is found in every encoding that it could leave in, whole or a piece of it, and nowhere else."""

import bz2
import gzip
import io
import json
import lzma
import zipfile
import zlib
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from tiny_text import WORDS, tiny_tokenizer

from personalization.data.texts import TextPreprocessing
from simulations.canaries.needles import private_needles, sentence_needle, word_needles
from simulations.canaries.search import Search
from simulations.canaries.texts import canary_text, text_encodings, token_encodings

TOKENIZER = TextPreprocessing(tiny_tokenizer().to_str(), separator=0, context=64)
TEXT, OTHER = canary_text(0, 3), canary_text(0, 4)
IDS = TOKENIZER.encode(TEXT)
SEARCH = Search([sentence_needle("canary", TEXT, TOKENIZER)])
AROUND = "The river of the people. "


def as_zip(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", data)
    return buffer.getvalue()


def as_npz(tokens: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, input_ids=tokens)
    return buffer.getvalue()


RAW = TEXT.encode()
SPELLED = TOKENIZER.spellings(IDS)
LEAKS: dict[str, Callable[[], bytes]] = {
    "UTF-8": lambda: RAW,
    "a third of it": lambda: RAW[40:96],
    "in the middle of a text": lambda: (AROUND + TEXT + AROUND).encode(),
    "capitals": lambda: TEXT.upper().encode(),
    **{
        kind: lambda kind=kind: TEXT.encode(kind)
        for kind in ("utf-16", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-7")
    },
    "base64": lambda: b64encode(RAW),
    "base64 for addresses": lambda: urlsafe_b64encode(RAW),
    "base64 in lines": lambda: b"\n".join(b64encode(RAW)[n : n + 76] for n in range(0, 300, 76)),
    "base64 of UTF-16": lambda: b64encode(TEXT.encode("utf-16-le")),
    "hex": lambda: RAW.hex().encode(),
    "HEX": lambda: RAW.hex().upper().encode(),
    "JSON": lambda: json.dumps({"text": f"{TEXT}\n\u00e9\u2019"}).encode(),
    "JSON, each letter escaped": lambda: "".join(f"\\u{ord(letter):04x}" for letter in TEXT).encode(),
    "how Python prints bytes": lambda: repr(TEXT.encode("utf-16-le")).encode(),
    "an address": lambda: quote(TEXT).encode(),
    "a form": lambda: quote_plus(TEXT).encode(),
    "zlib": lambda: zlib.compress(RAW),
    "zlib, cut off": lambda: zlib.compress(RAW)[:120],
    "gzip of UTF-16": lambda: gzip.compress(TEXT.encode("utf-16-be")),
    "bz2": lambda: bz2.compress(RAW),
    "xz": lambda: lzma.compress(RAW),
    "zip": lambda: as_zip(RAW),
    "base64 of zlib": lambda: b64encode(zlib.compress(RAW)),
    "hex of gzip of base64": lambda: gzip.compress(b64encode(RAW)).hex().encode(),
    **{
        f"tokens as {kind}": lambda kind=kind: IDS.astype(kind).tobytes()
        for kind in ("<u2", ">u2", "<i4", ">i4", "<i8", ">i8", "<f4", ">f4", "<f8", ">f8")
    },
    "20 tokens": lambda: IDS[11:31].astype("<i4").tobytes(),
    "tokens as JSON numbers": lambda: json.dumps(IDS.tolist()).encode(),
    "tokens in lines": lambda: "\n".join(map(str, IDS)).encode(),
    "tokens as numbers with a point": lambda: json.dumps(IDS.astype(float).tolist()).encode(),
    "how numpy prints tokens": lambda: repr(IDS).encode(),
    "base64 of tokens": lambda: b64encode(IDS.astype("<i8").tobytes()),
    "zlib of tokens": lambda: zlib.compress(IDS.astype("<i4").tobytes()),
    "hex of tokens": lambda: IDS.astype("<i8").tobytes().hex().encode(),
    "npz of tokens": lambda: as_npz(IDS),
    "safetensors of tokens": lambda: save({"input_ids": IDS[None]}),
    "spellings in JSON": lambda: json.dumps(SPELLED).encode(),
    "spellings in JSON, UTF-8": lambda: json.dumps(SPELLED, ensure_ascii=False).encode(),
    "how Python prints spellings": lambda: repr(SPELLED).encode(),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_sentence_is_found_in_every_encoding(leak: str) -> None:
    assert SEARCH.find(b"reply\n" + LEAKS[leak]() + b"\n" + AROUND.encode())


@pytest.mark.parametrize("leak", LEAKS)
def test_another_sentence_is_not_taken_for_it(leak: str) -> None:
    assert Search([sentence_needle("other", OTHER, TOKENIZER)]).find(LEAKS[leak]()) == []


@pytest.mark.parametrize("offset", range(8))
@pytest.mark.parametrize("leak", ["UTF-8", "utf-16-le", "tokens as <i8", "tokens as >i4", "zlib"])
def test_a_sentence_is_found_at_every_alignment(leak: str, offset: int) -> None:
    assert SEARCH.find(b"\x01" * offset + LEAKS[leak]())


@settings(max_examples=20)
@given(st.data())
def test_any_piece_of_32_values_is_enough(data: st.DataObject) -> None:
    forms = [form for form in (*text_encodings(TEXT), *token_encodings(IDS, TOKENIZER)) if "spell" not in form[0]]
    name, size, raw = data.draw(st.sampled_from(forms))
    start = data.draw(st.integers(0, len(raw) // size - 32)) * size
    assert SEARCH.find(data.draw(st.binary(max_size=9)) + raw[start : start + 32 * size] + b"\xff" * 3), name


@settings(max_examples=20)
@given(st.binary(max_size=600))
def test_no_bytes_are_taken_for_a_sentence(data: bytes) -> None:
    assert SEARCH.find(data) == []


def test_a_devices_own_text_is_found_and_that_of_others_is_not(tmp_path) -> None:
    rng = np.random.default_rng(5)
    own, others = (" ".join(rng.choice(WORDS, 200)) for _ in range(2))
    (tmp_path / "letters-home.txt").write_text(own)
    (tmp_path / "notes.jsonl").write_text(json.dumps({"text": " ".join(rng.choice(WORDS, 90))}) + "\n")
    needles = private_needles(tmp_path) + word_needles(tmp_path)
    search = Search(needles)
    for leak in (own[300:420].encode(), own.encode("utf-16"), b64encode(own.encode()), zlib.compress(own.encode())):
        assert search.find(b"..." + leak)
    assert search.find(b"could not read letters-home.txt")
    # A few words in a row that both have are no finding.
    for clean in (others.encode(), own[310:340].encode(), b64encode(others.encode()), b"nothing of all that"):
        assert search.find(clean) == []
    assert search.to_record()["passages"] == sum(needle.natural for needle in needles) > 3
