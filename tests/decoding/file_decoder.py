"""A decoder of a file or of a text, made from what reads it."""

import os
from collections.abc import Callable
from pathlib import Path

from benchmarks.fuzz.wire import Decoder
from personalization.errors import UserError


def of_file(
    path: Path,
    valid: bytes,
    read: Callable[[Path], object],
    *,
    allowed: tuple[type[Exception], ...] = (UserError,),
    spare_bytes: int = 1_000_000,
    factor: int = 60,
) -> Decoder:
    """Return the decoder of a file at `path`, of mode 600, which `read` reads."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def call(raw: bytes) -> object:
        path.write_bytes(raw)
        os.chmod(path, 0o600)
        return read(path)

    return Decoder((valid,), call, allowed, spare_bytes=spare_bytes, factor=factor)


def of_text(valid: str, read: Callable[[str], object]) -> Decoder:
    """Return the decoder of a text."""
    return Decoder((valid.encode(),), lambda raw: read(raw.decode(errors="replace")), (UserError,))
