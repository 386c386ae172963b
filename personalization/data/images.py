"""Turn image files and arrays of bytes into the pixel values that a vision model takes.

Only `to_pixel_values` needs torch: a device that runs an exported model prepares its images here without it.
"""

import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from personalization.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

_DECODING_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,  # Pillow's word for a broken PNG
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True, kw_only=True)
class ImagePreprocessing:
    """What a model expects of its images.

    Pixel values are (byte / 255 - mean) / std, one mean and std a channel; with both at 0.5 that is byte / 127.5 - 1.
    channels is 1 (grey) or 3 (RGB).
    """

    height: int
    width: int
    channels: int = 3
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        """Refuse values that no image can meet."""
        if self.height < 1 or self.width < 1:
            raise UserError(f"image size {self.height} x {self.width}: expected at least 1 x 1 pixels")
        if self.channels not in (1, 3):
            raise UserError(f"{self.channels} image channels: expected 1 (grey) or 3 (RGB)")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise UserError(f"image mean {self.mean} and std {self.std}: expected {self.channels} numbers each")
        if not all(map(math.isfinite, self.mean)) or not all(math.isfinite(s) and s > 0 for s in self.std):
            raise UserError(f"image mean {self.mean} and std {self.std}: expected finite numbers, std above 0")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as what JSON can hold."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "ImagePreprocessing":
        """Return the preprocessing that `to_dict` wrote. Raises UserError if a field is missing or of a wrong type."""
        try:
            return cls(
                height=int(record["height"]),
                width=int(record["width"]),
                channels=int(record["channels"]),
                mean=tuple(float(m) for m in record["mean"]),
                std=tuple(float(s) for s in record["std"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"image preprocessing {dict(record)!r}: expected height, width, channels, mean and std"
            ) from error


def image_preprocessing(config: Any, processor: Mapping[str, Any] | None = None) -> ImagePreprocessing | None:
    """Return what a model with this transformers config expects, or None if it doesn't take images.

    processor: the contents of the model's preprocessor_config.json; its size, mean, std and scale come before the
    config's. Images are resized straight to that size, without cropping. Raises UserError on values that make no sense.
    """
    size, channels = getattr(config, "image_size", None), getattr(config, "num_channels", None)
    if size is None or channels is None:
        return None
    processor = processor or {}
    try:
        height, width = _height_width(_processor_size(processor) or size)
        # Folding the scale into mean and std: (b * rescale - mean) / std = (b / 255 - mean / scale) / (std / scale).
        scale = 255.0 * float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 255.0
        normalize = processor.get("do_normalize", True)
        mean = processor.get("image_mean", 0.5) if normalize else 0.0
        std = processor.get("image_std", 0.5) if normalize else 1.0
        return ImagePreprocessing(
            height=height,
            width=width,
            channels=int(channels),
            mean=_per_channel(mean, int(channels), scale),
            std=_per_channel(std, int(channels), scale),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise UserError(
            f"image size {size!r}, channels {channels!r} or preprocessor_config.json: not understood ({error}); "
            "expected numbers as transformers writes them"
        ) from error


def _processor_size(processor: Mapping[str, Any]) -> Any:
    if processor.get("do_center_crop") and processor.get("crop_size"):
        return processor["crop_size"]
    return processor.get("size") if processor.get("do_resize", True) else None


def _height_width(size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping):
        edge = size.get("shortest_edge", size.get("longest_edge"))
        height, width = size.get("height", edge), size.get("width", edge)
        return int(height), int(width)
    if isinstance(size, Sequence):
        height, width = size
        return int(height), int(width)
    return int(size), int(size)


def _per_channel(values: Any, channels: int, scale: float) -> tuple[float, ...]:
    numbers = [float(v) / scale for v in (values if isinstance(values, Sequence) else [values])]
    if len(numbers) == channels:
        return tuple(numbers)
    return (sum(numbers) / len(numbers),) * channels


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read and fully decode an image file: bytes [height, width] if it is grey, else [height, width, 3].

    The camera's rotation is applied; 16-bit grey keeps its upper byte. Raises UserError that names the file.
    """
    try:
        # From memory: a file takes as much of it as a damaged chunk says that it is long, before it reads.
        with Image.open(BytesIO(path.read_bytes())) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I;16"):
                return (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
            if image.mode in ("I", "F"):
                raise UserError(f"{path}: an image of 32-bit pixels; expected 8 or 16 bits, convert it first")
            if image.mode == "P":  # a palette may carry transparency, which only RGBA takes over silently
                image = image.convert("RGBA")
            grey = image.mode in ("1", "L", "LA", "La")
            return np.asarray(image.convert("L" if grey else "RGB"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such image file") from error
    except _DECODING_ERRORS as error:
        raise UserError(f"{path}: not an image that can be decoded; replace it or take it out of the folder") from error


def fit_image(image: NDArray[np.uint8], preprocessing: ImagePreprocessing) -> NDArray[np.uint8]:
    """Return one image [h, w] or [h, w, 3] with the model's channels and size: [height, width] or [height, width, 3].

    Resized with Pillow (bilinear, the aspect ratio is not kept) only if the size differs. Grey is ITU-R 601 luma.
    """
    wanted = (preprocessing.height, preprocessing.width)
    grey = image.ndim == 2
    if image.shape[:2] == wanted and grey == (preprocessing.channels == 1):
        return image
    picture = Image.fromarray(np.ascontiguousarray(image))
    if grey != (preprocessing.channels == 1):
        picture = picture.convert("L" if preprocessing.channels == 1 else "RGB")
    if image.shape[:2] != wanted:
        picture = picture.resize((preprocessing.width, preprocessing.height), Image.Resampling.BILINEAR)
    return np.asarray(picture)


def to_pixel_values(images: NDArray[np.uint8], preprocessing: ImagePreprocessing) -> "Tensor":
    """Return bytes [samples, h, w] or [samples, h, w, 3] as float32 pixel values [samples, channels, height, width]."""
    import torch

    return torch.from_numpy(pixel_array(images, preprocessing))


def pixel_array(images: NDArray[np.uint8], preprocessing: ImagePreprocessing) -> NDArray[np.float32]:
    """Return what `to_pixel_values` returns, as a numpy array.

    Raises ValueError for images of any other shape.
    """
    grey = images.ndim == 3
    if not grey and (images.ndim != 4 or images.shape[-1] != 3):
        raise ValueError(f"images of shape {images.shape}: expected [samples, h, w] or [samples, h, w, 3]")
    height, width, channels = preprocessing.height, preprocessing.width, preprocessing.channels
    fits = images.shape[1:3] == (height, width)
    if len(images) and not (fits and grey == (channels == 1)):
        if fits and grey:
            images = np.repeat(images[..., None], 3, axis=-1)
        else:
            images = np.stack([fit_image(image, preprocessing) for image in images])
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)
    values = images.astype(np.float32).reshape(len(images), height, width, channels)
    values /= 255.0 * std
    values -= mean / std
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
