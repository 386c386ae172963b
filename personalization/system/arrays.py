"""Read arrays from an .npz file that may have been damaged, or made to take more memory than there is."""

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

# Deflate makes at most so many bytes of one. Source: https://zlib.net/zlib_tech.html
_MOST_INFLATED = 1032


class ArrayFileError(ValueError):
    """Bytes that are no .npz file, or one with Python objects in it, or with less in it than it says."""


def read_arrays(file: Path | IO[bytes], keys: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    """Return those arrays of an .npz file that are among `keys`.

    Their sizes are checked before any memory is taken. Raises ArrayFileError, and OSError if a path can't be read.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            whole = _size(archive)
            present = set(archive.namelist())
            return {key: _array(archive, f"{key}.npy", whole) for key in keys if f"{key}.npy" in present}
    # NotImplementedError: a kind of compression that zipfile lacks; RuntimeError: an encrypted file.
    except (ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        raise ArrayFileError(str(error)) from error


def _array(archive: zipfile.ZipFile, name: str, whole: int) -> NDArray[np.generic]:
    with archive.open(name) as file:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"an array of format {version}")
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize > _MOST_INFLATED * whole:
            raise ValueError("an array of Python objects, or one that is larger than what is there")
    with archive.open(name) as file:
        found: NDArray[np.generic] = npy.read_array(file, allow_pickle=False)
        return found


def _size(archive: zipfile.ZipFile) -> int:
    assert archive.fp is not None
    place = archive.fp.tell()
    size = archive.fp.seek(0, 2)
    archive.fp.seek(place)
    return size
