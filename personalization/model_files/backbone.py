"""Load the backbone: a pre-trained transformer from a local folder or, by name, from the Hugging Face hub.

Only safetensors are read and only classes that transformers itself brings are built: a checkpoint is data, never code.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from personalization.data.images import image_preprocessing
from personalization.data.tasks import Preprocessing
from personalization.data.texts import WINDOW_TOKENS, TextPreprocessing, text_preprocessing
from personalization.errors import UserError
from personalization.transformer.layers import find_layers
from personalization.transformer.readout import token_head

if TYPE_CHECKING:  # importing transformers takes seconds on a small device
    from transformers import PreTrainedConfig, PreTrainedModel

_WEIGHTS, _INDEX, _CONFIG, _PROCESSOR = (
    "model.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "preprocessor_config.json",
)
_TOKENIZER = "tokenizer.json"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_CLASS_NAME = re.compile(r"[A-Z]\w*")


@dataclass(frozen=True)
class Backbone:
    """A pre-trained model, in float32 and evaluation mode, and what comes with it.

    identifier: SHA-256 over its tensors, in hexadecimal. preprocessing: of images, or of text for a causal language
    model whose folder holds its tokenizer; else None. labels: names of its classes, in the order of its logits; empty
    if it doesn't classify.
    """

    model: "PreTrainedModel"
    config: "PreTrainedConfig"
    identifier: str
    preprocessing: Preprocessing | None
    labels: tuple[str, ...]


def load_backbone(name_or_folder: str) -> Backbone:
    """Load a supported model from a local folder, or from the hub if there is no such folder.

    The hub is asked only for what looks like a hub name, and never in its offline mode (HF_HUB_OFFLINE=1), where what
    was fetched before is used. Raises UserError that says what is missing, damaged or not supported.
    """
    folder = _local_folder(name_or_folder)
    config_record = _read_json(folder / _CONFIG, "the folder of a model as save_pretrained writes it")
    _check_weights(folder)
    with _quiet_transformers():
        model = _load_model(folder, config_record)
    find_layers(model)
    processor_file = folder / _PROCESSOR
    processor = _read_json(processor_file, "JSON") if processor_file.is_file() else None
    names = {int(i): str(n) for i, n in (model.config.id2label or {}).items()} if _classifies(model) else {}
    return Backbone(
        model=model,
        config=model.config,
        identifier=model_identifier(model.state_dict()),
        preprocessing=_preprocessing(model, folder, processor),
        labels=tuple(names[i] for i in sorted(names)),
    )


def read_tokenizer(name_or_folder: str) -> TextPreprocessing | None:
    """Return what encodes the text of a model, for who does not need the model; None for one without a tokenizer.

    Raises UserError as `load_backbone` does, and where the tokenizer can't be read.
    """
    file = _local_folder(name_or_folder) / _TOKENIZER
    try:
        tokenizer = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: can't be read; fetch the model again") from error
    return TextPreprocessing(tokenizer, separator=None, context=WINDOW_TOKENS)


def _preprocessing(model: "PreTrainedModel", folder: Path, processor: Mapping[str, Any] | None) -> Preprocessing | None:
    if token_head(model) is not None and (folder / _TOKENIZER).is_file():
        return text_preprocessing(model.config, folder / _TOKENIZER)
    return image_preprocessing(model.config, processor)


def model_identifier(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256, in hexadecimal, over the name, type, shape and bytes of every tensor, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        kind = str(tensor.dtype).removeprefix("torch.")
        digest.update(json.dumps([name, kind, list(tensor.shape)]).encode() + b"\n")
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _local_folder(name_or_folder: str) -> Path:
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"{name_or_folder}: a file; expected the folder that holds {_CONFIG} and {_WEIGHTS}")
    if not _HUB_NAME.fullmatch(name_or_folder):
        raise UserError(f"{name_or_folder}: no such folder; expected a model folder or a name on the Hugging Face hub")
    return _hub_snapshot(name_or_folder)


def _hub_snapshot(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        return Path(
            snapshot_download(
                name, allow_patterns=[_CONFIG, _PROCESSOR, _TOKENIZER, _WEIGHTS, _INDEX, "model-*.safetensors"]
            )
        )
    except RepositoryNotFoundError as error:
        raise UserError(f"{name}: no such folder, and no such model on the Hugging Face hub") from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(
            f"{name}: no such folder, and the Hugging Face hub could not be reached (or is switched off by "
            "HF_HUB_OFFLINE); give a local model folder, or fetch the model while online"
        ) from error


def _read_json(path: Path, expected: str) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path.parent}: no {path.name} in it; expected {expected}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON; expected {expected}") from error
    if not isinstance(record, dict):
        raise UserError(f"{path}: not a JSON object; expected {expected}")
    return record


def _check_weights(folder: Path) -> None:
    """Open every weight file once: only then can an error name the file that is damaged."""
    names = [_WEIGHTS]
    if not (folder / _WEIGHTS).is_file():
        if not (folder / _INDEX).is_file():
            raise UserError(
                f"{folder}: no {_WEIGHTS} in it; pickled checkpoints are not read, save the model with save_pretrained"
            )
        weight_map = _read_json(folder / _INDEX, "the index of sharded safetensors").get("weight_map")
        names = sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else []
        if not names or any(name != Path(name).name or not name.endswith(".safetensors") for name in names):
            raise UserError(f"{folder / _INDEX}: expected a weight_map to safetensors files in the same folder")
    for name in names:
        path = folder / name
        try:
            with safe_open(path, framework="pt") as tensors:
                tensors.keys()
        except FileNotFoundError as error:
            raise UserError(f"{path}: missing, but {_INDEX} names it; fetch the model again") from error
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{path}: a corrupt or truncated safetensors file; fetch the model again") from error


def _model_class(folder: Path, config_record: Mapping[str, Any]) -> "type[PreTrainedModel]":
    import transformers

    named = config_record.get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    if not isinstance(name, str) or not _CLASS_NAME.fullmatch(name):
        raise UserError(f"{folder / _CONFIG}: names no class; expected architectures like ViTForImageClassification")
    try:
        found = getattr(transformers, name)
    except (AttributeError, ImportError, RuntimeError):
        found = None
    if not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel):
        raise UserError(f"{folder / _CONFIG}: transformers {transformers.__version__} has no model class {name}")
    expected = getattr(found.config_class, "model_type", None)
    if config_record.get("model_type") != expected:
        raise UserError(
            f"{folder / _CONFIG}: model_type {config_record.get('model_type')!r} does not go with {name}; "
            f"expected {expected!r}"
        )
    if config_record.get("quantization_config"):
        raise UserError(f"{folder / _CONFIG}: a quantized model; expected float weights")
    return found


def _load_model(folder: Path, config_record: Mapping[str, Any]) -> "PreTrainedModel":
    from huggingface_hub.errors import StrictDataclassError

    model_class = _model_class(folder, config_record)
    # With output_loading_info two values come back, which the annotations of transformers don't say.
    load: Callable[..., tuple[PreTrainedModel, dict[str, Any]]] = model_class.from_pretrained  # type: ignore[assignment]
    try:
        model, report = load(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # reported below, with the tensor's name
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise UserError(f"{folder}: a corrupt or truncated safetensors file; fetch the model again") from error
    # What a wrong config.json raises is whatever the model's constructor does with it.
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OSError, ArithmeticError) as error:
        raise UserError(f"{folder / _CONFIG}: no model can be built from it ({_one_line(error)})") from error
    except StrictDataclassError as error:
        raise UserError(f"{folder / _CONFIG}: a wrong value ({_one_line(error)})") from error
    wrong = sorted(report["missing_keys"]) + sorted(key for key, *_ in report["mismatched_keys"])
    if wrong:
        raise UserError(
            f"{folder}: the weights do not go with {_CONFIG}: {len(wrong)} tensors are missing or of another shape, "
            f"first {wrong[0]}; fetch the model again"
        )
    for name, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{folder}: {name} holds numbers that are not finite; fetch the model again")
    if model.base_model is model:
        raise UserError(f"{folder}: {type(model).__name__} has no head; expected a model with outputs to compare")
    model.eval()
    return model


def _classifies(model: "PreTrainedModel") -> bool:
    return "Classification" in type(model).__name__


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Let transformers log errors only and draw no bar while a model loads; the user's settings come back after it."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if bar:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
