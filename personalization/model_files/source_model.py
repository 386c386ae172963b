"""A model that is asked or exported: a personal one, or a dense one as transformers saves it."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from personalization.data.tasks import Preprocessing, preprocessing_from_dict
from personalization.model_files.backbone import load_backbone
from personalization.model_files.known_models import named_model
from personalization.model_files.storage import MANIFEST_FILE, LoadedPersonalModel, load_personal_model

_DENSE = "config.json"


@dataclass(frozen=True, kw_only=True)
class SourceModel:
    """A model. identifier: SHA-256 of its weights. name: names it in errors. dense: whether nothing was cut from it."""

    model: nn.Module
    preprocessing: Preprocessing | None
    labels: tuple[str, ...]
    identifier: str
    name: str
    dense: bool

    @classmethod
    def personal(cls, loaded: LoadedPersonalModel, name: str) -> "SourceModel":
        """Take a personal model that is in memory."""
        manifest = loaded.manifest
        record = manifest.preprocessing
        return cls(
            model=loaded.model,
            preprocessing=None if record is None else preprocessing_from_dict(record),
            labels=manifest.labels,
            identifier=manifest.weights_sha256,
            name=name,
            dense=False,
        )


def read_source_model(folder: Path) -> SourceModel:
    """Return the model in `folder`: a personal one, or a dense one as transformers saves it. Raises UserError.

    A name of `known_models` stands for the folder of that model.
    """
    place = folder if folder.exists() else Path(named_model(str(folder)))
    if (place / MANIFEST_FILE).exists() or not (place / _DENSE).is_file():
        return SourceModel.personal(load_personal_model(place), str(folder))
    backbone = load_backbone(str(place))
    return SourceModel(
        model=backbone.model,
        preprocessing=backbone.preprocessing,
        labels=backbone.labels,
        identifier=backbone.identifier,
        name=str(folder),
        dense=True,
    )
