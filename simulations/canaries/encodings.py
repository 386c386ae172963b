"""An image as bytes, in the encodings that a program would write it in."""

from collections.abc import Iterator
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Mean and standard deviation of pixel values, as models expect them; the last three are ImageNet's channels.
NORMALIZATIONS = {
    "shares": (0.0, 1.0),
    "-1 to 1": (0.5, 0.5),
    "ImageNet red": (0.485, 0.229),
    "ImageNet green": (0.456, 0.224),
    "ImageNet blue": (0.406, 0.225),
}
FLOATS = ("<f4", ">f4", "<f2", ">f2", "<f8", ">f8")
WORDS = ("<u2", ">u2")


def planes(image: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """Return an image [h, w] or [h, w, 3] as vectors of bytes: by rows and by columns, whole and a channel each."""
    found = {"rows": image.ravel(), "columns": image.swapaxes(0, 1).ravel()}
    if image.ndim == 3:
        for channel in range(image.shape[2]):
            found[f"channel {channel}"] = image[:, :, channel].ravel()
    return found


def encodings(image: NDArray[np.uint8]) -> Iterator[tuple[str, int, bytes]]:
    """Yield for each encoding its name, the bytes that one value takes, and the whole image in it."""
    for order, values in planes(image).items():
        yield f"bytes by {order}", 1, values.tobytes()
        for kind in WORDS:
            yield f"16-bit numbers by {order}, {kind}", 2, (values.astype(np.uint16) * 257).astype(kind).tobytes()
        for name, numbers in _numbers(values).items():
            for kind in FLOATS:
                yield f"{name} by {order}, {kind}", np.dtype(kind).itemsize, numbers.astype(kind).tobytes()


def _numbers(values: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Return byte values as numbers; the same number can differ in its last bit by the way that it was computed."""
    exact = values.astype(np.float32)
    found = {"numbers from 0 to 255": exact, "-1 to 1 at once": exact / np.float32(127.5) - np.float32(1)}
    for name, (mean, deviation) in NORMALIZATIONS.items():
        found[name] = (exact / np.float32(255) - np.float32(mean)) / np.float32(deviation)
    return found


def png(image: NDArray[np.uint8]) -> bytes:
    """Return the image as a PNG file."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
