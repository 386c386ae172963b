"""Which model `--model` means in a simulation: the bundled one unless it is named."""

from personalization.model_files.known_models import named_model
from simulations.pretrain import MODEL_FOLDER


def model_folder(model: str | None) -> str:
    """Return what `load_backbone` takes. Raises UserError for a model that is not converted yet."""
    return str(MODEL_FOLDER.absolute()) if model is None else named_model(model)
