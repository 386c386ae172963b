"""The windows of a device's text: made once, and kept in the vault for as long as the text stays what it is."""

import hashlib
import json
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from client.entries import WINDOWS
from client.state import ClientState, report
from personalization.data.tasks import load_windows
from personalization.data.texts import TextPreprocessing, read_file, text_files
from personalization.system.arrays import read_arrays

if TYPE_CHECKING:
    from personalization.data.texts import Tokens

_STORED = np.dtype("<i4")


def private_windows(folder: Path, preprocessing: TextPreprocessing, length: int, state: ClientState) -> "Tokens":
    """Return the windows [windows, length + 1] of the text in `folder`, from the vault if they are of just this text.

    Every message has a process of its own, and none of them has to tokenize again what the one before it did. Without a
    key nothing is kept: a copy in the open would be one more place to read the text in. Raises UserError if there is no
    text, or too little of it; OSError, ClientError.
    """
    if state.vault is None:
        return load_windows(folder, preprocessing, length)
    source = _fingerprint(folder, preprocessing, length)
    kept = kept_windows(state, source, length)
    if kept is None:
        kept = load_windows(folder, preprocessing, length)
        state.write(WINDOWS, windows_entry(kept, source))
    return kept


def windows_entry(windows: "Tokens", source: bytes) -> bytes:
    """Return the entry of the vault that keeps windows [windows, length + 1], made of a source [32 bytes]."""
    buffer = BytesIO()
    np.savez(buffer, windows=windows.astype(_STORED), source=np.frombuffer(source, dtype=np.uint8))
    return buffer.getvalue()


def kept_windows(state: ClientState, source: bytes, length: int) -> "Tokens | None":
    """Return the windows [windows, length + 1] in the vault, None if they are of another source, or cannot be read."""
    try:
        found = read_arrays(BytesIO(state.read(WINDOWS)), ("windows", "source"))
        kept = found["windows"]
        if kept.dtype != _STORED or kept.shape[1:] != (length + 1,):
            raise ValueError("no windows")
        return kept.astype(np.int64) if found["source"].tobytes() == source else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError):  # ArrayFileError is one
        report(f"{WINDOWS}: damaged; the windows are made again")
        return None


def _fingerprint(folder: Path, preprocessing: TextPreprocessing, length: int) -> bytes:
    """Return SHA-256 [32 bytes] of all that windows follow from: the files, the tokenizer and their length."""
    digest = hashlib.sha256(str(length).encode())
    parts = [json.dumps(preprocessing.to_dict()).encode()]
    for file in text_files(folder):
        parts += [file.name.encode(), read_file(file)]
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
