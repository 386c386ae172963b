"""Find a canary whose values were scaled, shifted and rounded: as any affine map of its pixels.

Pixels of a canary are independent and uniform, so a stretch of 32 of them correlates by more than 0.95 with nothing by
chance: of windows of independent values, (1 - 0.95 ** 2) ** 15 < 1e-15 do, and of windows of two values none.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

WINDOW, STRIDE = 32, 16
LEAST = 0.95
_BLOCK = 1 << 15
_KINDS = ("u1", "i1", "<u2", ">u2", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "<u4", ">u4", "<u8", ">u8")
_LARGEST = 1e30

Floats = NDArray[np.float32]


def stretches(pixels: list[Floats]) -> Floats:
    """Return normalized stretches [stretches, 32] of a canary's pixels; 48 in a row always hold one of them whole."""
    windows = np.concatenate(
        [
            np.lib.stride_tricks.sliding_window_view(values, WINDOW)[::STRIDE]
            for values in pixels
            if len(values) >= WINDOW
        ]
    )
    return _normalized(windows.astype(np.float64))


def views(data: bytes) -> Iterator[NDArray[np.float64]]:
    """Yield `data` read as numbers of every kind and from every first byte."""
    for kind in map(np.dtype, _KINDS):
        for start in range(kind.itemsize):
            count = (len(data) - start) // kind.itemsize
            if count >= WINDOW:
                with np.errstate(invalid="ignore"):
                    yield np.frombuffer(data, kind, count, start).astype(np.float64)


def correlates(values: NDArray[np.float64], patterns: Floats) -> bool:
    """Return whether some 32 `values` in a row are an affine map of one of the patterns [patterns, 32]."""
    if len(values) < WINDOW:
        return False
    with np.errstate(invalid="ignore"):
        usable: NDArray[np.bool_] = np.isfinite(values)
        usable &= np.abs(values) < _LARGEST
    windows = np.lib.stride_tricks.sliding_window_view(np.where(usable, values, 0.0), WINDOW)
    whole = np.asarray(np.lib.stride_tricks.sliding_window_view(usable, WINDOW).all(axis=1))
    for start in range(0, len(windows), _BLOCK):
        block = windows[start : start + _BLOCK][whole[start : start + _BLOCK]]
        if len(block) and float(np.abs(_normalized(block) @ patterns.T).max()) > LEAST:
            return True
    return False


def _normalized(windows: NDArray[np.float64]) -> Floats:
    centred = windows - windows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    flat = norms <= 1e-12 * np.abs(windows).max(axis=1, keepdims=True)
    return np.asarray(np.where(flat, 0.0, centred / np.where(flat, 1.0, norms)), dtype=np.float32)
