"""What comes of an export before it is in a folder."""

from dataclasses import dataclass

from personalization.data.images import ImagePreprocessing
from personalization.device.checks import ExportCheck, TextExportCheck
from personalization.device.manifest import DeviceText


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A model as a device gets it. graph: ONNX. tokenizer: contents of its tokenizer's file, of a language model."""

    graph: bytes
    preprocessing: ImagePreprocessing | DeviceText
    labels: tuple[str, ...]
    check: ExportCheck | TextExportCheck
    tokenizer: bytes | None = None
