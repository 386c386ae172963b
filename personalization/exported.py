"""What is exported, and what comes of it before it is in a folder."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from personalization.backbone import load_backbone
from personalization.device.checks import ExportCheck, TextExportCheck
from personalization.device.manifest import DeviceText
from personalization.images import ImagePreprocessing
from personalization.storage import MANIFEST_FILE, LoadedPersonalModel, load_personal_model
from personalization.tasks import Preprocessing, preprocessing_from_dict

_DENSE = "config.json"


@dataclass(frozen=True, kw_only=True)
class ExportSource:
    """A model, personal or dense. identifier: SHA-256 of its weights. name: names it in errors."""

    model: nn.Module
    preprocessing: Preprocessing | None
    labels: tuple[str, ...]
    identifier: str
    name: str

    @classmethod
    def personal(cls, loaded: LoadedPersonalModel, name: str) -> "ExportSource":
        """Take a personal model that is in memory."""
        manifest = loaded.manifest
        record = manifest.preprocessing
        return cls(
            model=loaded.model,
            preprocessing=None if record is None else preprocessing_from_dict(record),
            labels=manifest.labels,
            identifier=manifest.weights_sha256,
            name=name,
        )


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A model as a device gets it. graph: ONNX. tokenizer: contents of its tokenizer's file, of a language model."""

    graph: bytes
    preprocessing: ImagePreprocessing | DeviceText
    labels: tuple[str, ...]
    check: ExportCheck | TextExportCheck
    tokenizer: bytes | None = None


def read_source(folder: Path) -> ExportSource:
    """Return the model in `folder`: a personal one, or a dense one as transformers saves it. Raises UserError."""
    if (folder / MANIFEST_FILE).exists() or not (folder / _DENSE).is_file():
        return ExportSource.personal(load_personal_model(folder), str(folder))
    backbone = load_backbone(str(folder))
    return ExportSource(
        model=backbone.model,
        preprocessing=backbone.preprocessing,
        labels=backbone.labels,
        identifier=backbone.identifier,
        name=str(folder),
    )
