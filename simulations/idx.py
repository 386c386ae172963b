"""Read the idx format of MNIST and Fashion-MNIST (http://yann.lecun.com/exdb/mnist, section "file format")."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from personalization.errors import UserError

_UNSIGNED_BYTE = 0x08
_MOST_DIMENSIONS = 4


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the array of unsigned bytes in an idx file, gzip-compressed or not.

    Raises UserError if the file is not idx, not of unsigned bytes, empty, not of 1 to 4 dimensions, or of another
    length than its header says.
    """
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path}: damaged gzip file; fetch it again") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != _UNSIGNED_BYTE:
        raise UserError(f"{path}: not an idx file of unsigned bytes; expected a Fashion-MNIST style file")
    dimensions = raw[3]
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise UserError(f"{path}: {dimensions} dimensions; expected 1 to {_MOST_DIMENSIONS}, such as images or labels")
    header = 4 + 4 * dimensions
    if len(raw) < header:
        raise UserError(f"{path}: the idx header is cut short; fetch the file again")
    shape = tuple(int(n) for n in np.frombuffer(raw, dtype=">u4", count=dimensions, offset=4))
    if 0 in shape:
        raise UserError(f"{path}: holds no data, its header says {' x '.join(map(str, shape))}; fetch the file again")
    # In Python's integers, because sizes from a damaged header can overflow 64 bits.
    expected = header + math.prod(shape)
    if len(raw) != expected:
        raise UserError(f"{path}: {len(raw)} bytes, but its header promises {expected}; fetch the file again")
    return np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape)
