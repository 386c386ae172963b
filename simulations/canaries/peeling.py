"""Take containers apart: what is compressed, encoded as text, escaped or an image file is looked into as well."""

import bz2
import lzma
import re
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterator
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DEPTH = 3
_LARGEST = 1 << 23
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}")
_HEX = re.compile(rb"[0-9A-Fa-f]{32,}")
_ESCAPED = re.compile(rb"\\x[0-9a-f]{2}|\\u00[0-9a-f]{2}|\\[nrt]")
_NUMBER = rb"-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?"
_NUMBERS = re.compile(rb"(?:" + _NUMBER + rb"[\s,;\[\]()]+){15,}" + _NUMBER)
_STREAMS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\x78[\x01\x5e\x9c\xda]"), "zlib"),
    (re.compile(rb"\x1f\x8b\x08"), "gzip"),
    (re.compile(rb"PK\x03\x04"), "zip"),
    (re.compile(rb"BZh[1-9]1AY"), "bz2"),
    (re.compile(rb"\xfd7zXZ\x00|\x5d\x00\x00"), "xz"),
    (re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8|RIFF|BM"), "image"),
)


def peel(data: bytes, depth: int = DEPTH) -> Iterator[tuple[str, bytes]]:
    """Yield `data` and whatever is found inside, to a depth, each with the names of what it was wrapped in."""
    yield "", data
    if depth == 0:
        return
    for name, inner in _inside(data):
        for wrapped, found in peel(inner, depth - 1):
            yield f"{name} {wrapped}".strip(), found


def number_lists(data: bytes) -> Iterator[NDArray[np.float64]]:
    """Yield every list of 16 numbers or more that is written out in a text, whatever the brackets."""
    for found in _NUMBERS.finditer(data):
        yield np.array([float(number) for number in re.findall(_NUMBER, found[0])])


def _inside(data: bytes) -> Iterator[tuple[str, bytes]]:
    for pattern, name in _STREAMS:
        for found in pattern.finditer(data):
            inner = _OPENERS[name](data[found.start() : found.start() + _LARGEST])
            if len(inner) >= 16:
                yield name, inner
    for found in _BASE64.finditer(data):
        run = found[0].replace(b"-", b"+").replace(b"_", b"/")
        for start in range(4):
            part = run[start:]
            yield "base64", b64decode(part[: len(part) - len(part) % 4])
    for found in _HEX.finditer(data):
        for start in range(2):
            part = found[0][start:]
            yield "hex", bytes.fromhex(part[: len(part) - len(part) % 2].decode())
    if _ESCAPED.search(data):
        yield "escapes", _unescape(data)
    if any(byte in data for byte in (b"\xc2", b"\xc3")):
        yield "UTF-8", data.decode("utf-8", "ignore").encode("latin-1", "ignore")


def _unescape(data: bytes) -> bytes:
    text = data.decode("latin-1")
    simple = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "\\": "\\", "'": "'", '"': '"', "/": "/"}

    def plain(found: re.Match[str]) -> str:
        return chr(int(found[1] or found[2], 16)) if found[1] or found[2] else simple[found[3]]

    return re.sub(r"\\(?:x([0-9a-f]{2})|u00([0-9a-f]{2})|([nrtbf\\'\"/]))", plain, text).encode("latin-1")


def _inflate(data: bytes, window: int) -> bytes:
    """Return what a stream holds, as far as it can be read."""
    stream, out = zlib.decompressobj(window), bytearray()
    try:
        for start in range(0, len(data), 4096):
            out += stream.decompress(data[start : start + 4096], _LARGEST)
            if stream.eof or len(out) > _LARGEST:
                break
    except zlib.error:
        return bytes(out)
    return bytes(out)


def _zip_entry(data: bytes) -> bytes:
    if len(data) < 30 or data[8] != 8:
        return b""  # what is stored uncompressed is found as it stands
    start = 30 + int.from_bytes(data[26:28], "little") + int.from_bytes(data[28:30], "little")
    return _inflate(data[start:], -zlib.MAX_WBITS)


def _other(make: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor], data: bytes) -> bytes:
    try:
        return make().decompress(data, _LARGEST)
    except (OSError, EOFError, lzma.LZMAError, MemoryError):
        return b""


def _pixels(data: bytes) -> bytes:
    try:
        with Image.open(BytesIO(data)) as image:
            if image.width * image.height > _LARGEST:
                return b""
            return np.asarray(image).tobytes()
    except Exception:  # whatever a decoder makes of bytes that are no image
        return b""


_OPENERS: dict[str, Callable[[bytes], bytes]] = {
    "zlib": lambda data: _inflate(data, zlib.MAX_WBITS),
    "gzip": lambda data: _inflate(data, zlib.MAX_WBITS | 16),
    "zip": _zip_entry,
    "bz2": lambda data: _other(bz2.BZ2Decompressor, data),
    "xz": lambda data: _other(lambda: lzma.LZMADecompressor(memlimit=1 << 26), data),
    "image": _pixels,
}
