"""A canary is found in every encoding that it could leave in, whole or a piece of it, and nowhere else."""

import bz2
import gzip
import io
import json
import lzma
import zipfile
import zlib
from base64 import b64encode, b85encode, urlsafe_b64encode
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from simulations.canaries.encodings import encodings, png
from simulations.canaries.images import canary_image
from simulations.canaries.needles import image_needle, private_needles, word_needles
from simulations.canaries.search import Search

SHAPE = (28, 28)
CANARY = canary_image(0, 3, SHAPE)
OTHER = canary_image(0, 4, SHAPE)
SEARCH = Search([image_needle("canary", CANARY, noise=True)])
NORMALIZED = (CANARY / 255.0 - 0.286) / 0.353
PADDING = bytes(range(40, 101))


def as_zip(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", data)
    return buffer.getvalue()


def as_npz(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, image=image)
    return buffer.getvalue()


def as_image(image: np.ndarray, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def quantized(levels: int) -> np.ndarray:
    return np.round(CANARY / 255 * (levels - 1)).astype(np.uint8)


RAW = CANARY.tobytes()
LEAKS: dict[str, Callable[[], bytes]] = {
    "bytes": lambda: RAW,
    "bytes by columns": lambda: CANARY.T.tobytes(),
    "a quarter of the rows": lambda: RAW[196:392],
    **{
        f"normalized {kind}": lambda kind=kind: NORMALIZED.astype(kind).tobytes()
        for kind in ("<f4", ">f4", "<f2", ">f2", "<f8", ">f8")
    },
    "shares as half precision, as a vector would be": lambda: (CANARY / 255).astype("<f2").tobytes(),
    "16-bit fixed point": lambda: (CANARY.astype(np.uint16) * 257).astype("<u2").tobytes(),
    "negated and halved": lambda: (127 - CANARY.astype(np.int16) // 2).astype(np.int8).tobytes(),
    "16 levels": lambda: quantized(16).tobytes(),
    "PNG": lambda: png(CANARY),
    "PNG, cut off": lambda: png(CANARY)[100:400],
    "JPEG": lambda: as_image(CANARY, "JPEG", quality=90),
    "BMP": lambda: as_image(CANARY, "BMP"),
    "zlib": lambda: zlib.compress(RAW),
    "zlib, cut off": lambda: zlib.compress(RAW)[:400],
    "gzip of floats": lambda: gzip.compress(NORMALIZED.astype("<f4").tobytes()),
    "bz2": lambda: bz2.compress(RAW),
    "xz": lambda: lzma.compress(RAW),
    "zip": lambda: as_zip(RAW),
    "npz": lambda: as_npz(NORMALIZED.astype(np.float32)),
    "base64": lambda: b64encode(RAW),
    "base64 of a PNG": lambda: b64encode(png(CANARY)),
    "base64 for addresses": lambda: urlsafe_b64encode(RAW),
    "base64 in lines": lambda: b"\n".join(b64encode(RAW)[n : n + 76] for n in range(0, 1048, 76)),
    "hex": lambda: RAW.hex().encode(),
    "HEX": lambda: RAW.hex().upper().encode(),
    "base64 of zlib": lambda: b64encode(zlib.compress(RAW)),
    "hex of gzip of base64": lambda: gzip.compress(b64encode(RAW)).hex().encode(),
    "JSON of whole numbers": lambda: json.dumps(CANARY.tolist()).encode(),
    "JSON of normalized numbers": lambda: json.dumps(np.round(NORMALIZED, 3).tolist()).encode(),
    "CSV": lambda: "\n".join(",".join(map(str, row)) for row in CANARY).encode(),
    "how numpy prints it": lambda: repr(CANARY[:4]).encode(),
    "how numpy prints it, in JSON": lambda: json.dumps({"message": repr(CANARY[:4])}).encode(),
    "how Python prints bytes": lambda: repr(RAW).encode(),
    "JSON of a text with its bytes": lambda: json.dumps(RAW.decode("latin-1")).encode(),
    "UTF-8 of a text with its bytes": lambda: RAW.decode("latin-1").encode(),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_canary_is_found_in_every_encoding(leak):
    assert SEARCH.find(PADDING[:5] + b"\n" + LEAKS[leak]() + b"\n" + PADDING)


@pytest.mark.parametrize("offset", range(8))
@pytest.mark.parametrize("leak", ["bytes", "normalized <f4", "normalized >f8", "16-bit fixed point", "PNG", "zlib"])
def test_a_canary_is_found_at_every_alignment(leak, offset):
    assert SEARCH.find(PADDING[:offset] + LEAKS[leak]())


@pytest.mark.parametrize("offset", range(4))
def test_text_encodings_are_found_inside_longer_runs(offset):
    for encode in (b64encode, lambda data: data.hex().encode()):
        assert SEARCH.find(b"A" * offset + encode(RAW) + b"ABCD")


@pytest.mark.parametrize("leak", LEAKS)
def test_another_canary_is_not_taken_for_it(leak):
    """The same encodings of another device's canary, against a search for this one: no false alarm."""
    search = Search([image_needle("other", OTHER, noise=True)])
    assert search.find(LEAKS[leak]()) == []


@settings(max_examples=20)
@given(st.data())
def test_any_piece_of_48_values_is_enough(data):
    forms = [form for form in encodings(CANARY) if form[0] != "PNG"]
    name, size, raw = data.draw(st.sampled_from(forms))
    start = data.draw(st.integers(0, len(raw) // size - 48)) * size
    before = data.draw(st.binary(max_size=9))
    assert SEARCH.find(before + raw[start : start + 48 * size] + b"\xff" * 3), name


@settings(max_examples=20)
@given(st.binary(max_size=600))
def test_no_bytes_crash_the_search_or_are_taken_for_a_canary(data):
    assert SEARCH.find(data) == []
    assert SEARCH.find(b"\x78\x9c" + data + b"PK\x03\x04" + data[:40]) == []


def test_random_bytes_and_numbers_raise_no_alarm():
    rng = np.random.default_rng(0)
    noise = rng.bytes(20_000)
    numbers = rng.random(2_000)
    for data in (noise, numbers.tobytes(), numbers.astype("<f2").tobytes(), json.dumps(numbers.tolist()).encode()):
        assert SEARCH.find(data) == []


def photograph(seed: int) -> np.ndarray:
    """Something smooth with texture and a black frame, as photographs of things are."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:28, 0:28]
    image = 120 + 60 * np.sin(rows / 4 + seed) + 40 * np.cos(columns / 3) + rng.normal(0, 12, SHAPE)
    image[:6] = 0
    return np.clip(image, 0, 255).astype(np.uint8)


def test_a_devices_own_images_are_found_and_those_of_others_are_not(tmp_path):
    data = tmp_path / "data" / "sneakers"
    data.mkdir(parents=True)
    for number in range(3):
        Image.fromarray(photograph(number)).save(data / f"holiday-{number}.png")
    search = Search(private_needles(data.parent) + word_needles(data.parent))
    file = (data / "holiday-1.png").read_bytes()
    floats = (photograph(2) / np.float32(127.5) - np.float32(1)).astype("<f4").tobytes()
    for leak in (photograph(1).tobytes(), file, b64encode(file), floats, json.dumps(photograph(0).tolist()).encode()):
        assert search.find(b"..." + leak)
    assert search.find(b"could not read holiday-2.png")
    assert search.find(b"label SNEAKERS")
    for clean in (photograph(7).tobytes(), bytes(5000), b64encode(png(photograph(8))), b"nothing of all that"):
        assert search.find(clean) == []


def test_what_the_search_does_not_know_is_said_here():
    """Encodings that are not peeled: base85, and a cipher. As a message they fail the audit: nothing explains them."""
    assert SEARCH.find(b85encode(RAW)) == []
    assert SEARCH.find(bytes(byte ^ key for byte, key in zip(RAW, OTHER.tobytes(), strict=True))) == []
