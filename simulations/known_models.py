"""Which model `--model` means: the bundled one, one that is converted once, a folder, or a name on the hub."""

from pathlib import Path

from simulations.pretrain import MODEL_FOLDER
from simulations.smollm2 import NAME, smollm2_folder


def model_folder(model: str | None) -> str:
    """Return what `personalization.backbone.load_backbone` takes. Raises UserError for a model not converted yet."""
    if model is None:
        return str(MODEL_FOLDER.absolute())
    if Path(model).is_dir():
        return str(Path(model).absolute())
    return str(smollm2_folder()) if model == NAME else model
