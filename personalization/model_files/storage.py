"""Save a personal model as safetensors with a manifest, and load it without the model that it was cut from.

The weights file is named after its hash and the manifest names it, so putting the new manifest in place is the one
step that makes a new model valid: a crash or a full disk before it leaves the old model, after it the new one.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor, nn

from personalization.errors import UserError
from personalization.model_files.manifest import ATTENTION_KINDS, STORED_DTYPES, LayerRecord, Manifest
from personalization.model_files.skeleton import build_personal_skeleton, can_be_rebuilt, linear_kind
from personalization.system.files import remove_temporary, write_atomically
from personalization.transformer.layers import Layer, linear_bias

MANIFEST_FILE = "manifest.json"
_WEIGHTS_PATTERN = "model-*.safetensors"
# What safetensors calls the types of a model's tensors, in the order in which they are in a file.
_STORED_TYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class LoadedPersonalModel:
    """A personal model in eval mode, float32, and the manifest that it was saved with."""

    model: nn.Module
    manifest: Manifest


@dataclass(frozen=True)
class PackedPersonalModel:
    """A personal model as it is stored: its manifest and the bytes of its weights file (safetensors)."""

    manifest: Manifest
    weights: bytes

    def files(self) -> dict[str, bytes]:
        """Return the files of the model by name, in the order in which they have to be written: the manifest last."""
        return {self.manifest.weights_file: self.weights, MANIFEST_FILE: self.manifest.to_json().encode()}


def save_personal_model(
    folder: Path | str,
    model: nn.Module,
    *,
    layers: Sequence[Layer],
    kept: Sequence[NDArray[np.int64]],
    backbone: str = "",
    labels: Sequence[str] = (),
    preprocessing: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    extra: Mapping[str, Any] | None = None,
) -> Manifest:
    """Pack `model` (see `pack_personal_model`) and write it to `folder` (see `write_personal_model`)."""
    packed = pack_personal_model(
        model,
        layers=layers,
        kept=kept,
        backbone=backbone,
        labels=labels,
        preprocessing=preprocessing,
        dtype=dtype,
        extra=extra,
    )
    write_personal_model(folder, packed)
    return packed.manifest


def pack_personal_model(
    model: nn.Module,
    *,
    layers: Sequence[Layer],
    kept: Sequence[NDArray[np.int64]],
    backbone: str = "",
    labels: Sequence[str] = (),
    preprocessing: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    extra: Mapping[str, Any] | None = None,
) -> PackedPersonalModel:
    """Return `model`, cut by `cut_model` with these `layers` of the dense model and these `kept` units, to be stored.

    dtype: `float32` (exact) or `float16` (half the bytes; rounded once). backbone, labels, preprocessing and extra
    are kept in the manifest as they are. Raises UserError for a model that is not one of transformers or does not
    fit `dtype`.
    """
    if dtype not in STORED_DTYPES:
        raise UserError(f"dtype {dtype!r}: expected one of {', '.join(STORED_DTYPES)}")
    if not can_be_rebuilt(model):
        raise UserError(
            f"{type(model).__name__}: not a model of transformers, so it cannot be saved to be loaded again"
        )
    config: Any = model.config
    tensors, tied = stored_tensors(model, dtype)
    data = save(tensors)
    digest = hashlib.sha256(data).hexdigest()
    attention = config._attn_implementation
    generation = getattr(model, "generation_config", None)
    manifest = Manifest(
        architecture=type(model).__name__,
        config=config.to_dict() | {"_name_or_path": ""},
        attention=attention if attention in ATTENTION_KINDS else ATTENTION_KINDS[0],
        generation=None if generation is None else generation.to_dict(),
        layers=tuple(_layer_record(model, layer, units) for layer, units in zip(layers, kept, strict=True)),
        tied=tied,
        weights_file=f"model-{digest[:16]}.safetensors",
        weights_sha256=digest,
        weights_bytes=len(data),
        dtype=dtype,
        backbone=backbone,
        preprocessing=None if preprocessing is None else dict(preprocessing),
        labels=tuple(labels),
        extra=dict(extra or {}),
    )
    return PackedPersonalModel(Manifest.from_json(manifest.to_json(), MANIFEST_FILE), data)  # as it will be read


def write_personal_model(folder: Path | str, packed: PackedPersonalModel) -> None:
    """Write a packed model to `folder`, in files that their owner only can read.

    A model saved before in `folder` stays valid until the new one is complete. Raises UserError when the disk is full
    or the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, data in packed.files().items():
            write_atomically(folder / name, data)
    except OSError as error:
        _remove_unnamed(folder)
        reason = error.strerror or str(error)
        raise UserError(
            f"{folder}: the personal model was not saved ({reason}); a model saved before is kept"
        ) from None
    _remove_unnamed(folder)


def load_personal_model(folder: Path | str) -> LoadedPersonalModel:
    """Load what `save_personal_model` saved; in float32 its outputs are bit for bit those of the model that was saved.

    Needs neither the dense model nor a network. Raises UserError for files that are missing, truncated, corrupt or
    changed, for a manifest that does not fit, and for a format that is newer than this version.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    return _assemble(manifest, _read_weights(folder / manifest.weights_file, manifest), str(folder))


def unpack_personal_model(packed: PackedPersonalModel) -> LoadedPersonalModel:
    """Load what `pack_personal_model` packed, as `load_personal_model` does. Raises UserError likewise."""
    manifest, name = packed.manifest, packed.manifest.weights_file
    _check_size(len(packed.weights), manifest, name)
    _check_hash(hashlib.sha256(packed.weights).hexdigest(), manifest, name)
    try:
        tensors = load(packed.weights)
    except SafetensorError as error:
        raise UserError(f"{name}: not readable as safetensors ({error}); save the personal model again") from None
    return _assemble(manifest, tensors, "personal model")


def _assemble(manifest: Manifest, stored: Mapping[str, Tensor], source: str) -> LoadedPersonalModel:
    model = build_personal_skeleton(manifest)
    # Copies, in memory that torch aligned: where a tensor of the file begins decides which instructions run on it, and
    # on some processors the last digits of what they compute.
    tensors = {n: t.to(torch.float32 if t.is_floating_point() else t.dtype, copy=True) for n, t in stored.items()}
    for second, first in manifest.tied.items():
        if first not in tensors or second in tensors:
            raise UserError(f"{source}: tied parameters {second} and {first} are not in the weights")
        tensors[second] = tensors[first]
    try:
        model.load_state_dict(tensors, strict=True, assign=True)
        for second, first in manifest.tied.items():
            path, _, name = second.rpartition(".")
            setattr(model.get_submodule(path), name, model.get_parameter(first))
        if manifest.generation is not None:
            from transformers import GenerationConfig

            decoder: Any = model
            decoder.generation_config = GenerationConfig.from_dict(manifest.generation)
    except (RuntimeError, AttributeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{source}: weights and manifest do not fit together ({reason})") from None
    return LoadedPersonalModel(model.eval(), manifest)


def read_manifest(folder: Path | str) -> Manifest:
    """Read the manifest of a saved personal model alone. Raises UserError when it is missing or malformed."""
    path = Path(folder) / MANIFEST_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder}: no personal model here; expected a folder with {MANIFEST_FILE}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); save the personal model again") from None
    return Manifest.from_json(text, str(path))


def stored_tensors(model: nn.Module, dtype: str = "float32") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors to store, floating ones as `dtype`, and the parameters that are only second names of one.

    Raises UserError for a value that is not finite, or is not any more in `dtype`.
    """
    tied = _second_names(model)
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name not in tied:
            stored = tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor
            if not bool(torch.isfinite(stored).all()):
                raise UserError(f"{name}: a weight is not a finite number in {dtype}; the model was not saved")
            tensors[name] = stored.contiguous()
    return tensors, tied


def stored_bytes(model: nn.Module, dtype: str = "float32") -> int:
    """Return the size in bytes of the model's safetensors file, without a copy of any of its weights.

    The file is the length of its header (8 bytes), the header, which is JSON filled up to a multiple of 8 bytes, and
    the tensors one after the other: https://github.com/huggingface/safetensors, "Format".
    """
    tied, floating = _second_names(model), getattr(torch, dtype)
    tensors = {
        name: (tensor, floating if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in model.state_dict().items()
        if name not in tied
    }
    order, header, end = list(_STORED_TYPES), {}, 0
    # How many digits an offset has depends on the order.
    for name in sorted(tensors, key=lambda name: (order.index(tensors[name][1]), name)):
        tensor, kind = tensors[name]
        start, end = end, end + tensor.numel() * kind.itemsize
        header[name] = {"dtype": _STORED_TYPES[kind], "shape": list(tensor.shape), "data_offsets": [start, end]}
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-length // 8) * 8 + end


def _second_names(model: nn.Module) -> dict[str, str]:
    """Return the parameters that are only second names of one, with its first name."""
    first_names: dict[int, str] = {}
    tied: dict[str, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first = first_names.setdefault(id(parameter), name)
        if first != name:
            tied[name] = first
    return tied


def _layer_record(model: nn.Module, layer: Layer, units: NDArray[np.int64]) -> LayerRecord:
    writer = model.get_submodule(layer.writer)
    return LayerRecord(
        units=layer.units,
        kept=tuple(units.tolist()),
        writer=linear_kind(writer),
        writer_bias=linear_bias(writer) is not None,
    )


def _remove_unnamed(folder: Path) -> None:
    """Remove weights that the manifest in place does not name; what cannot be removed is left to the next save."""
    with contextlib.suppress(OSError, UserError):
        remove_temporary(folder)
        named = read_manifest(folder).weights_file if (folder / MANIFEST_FILE).exists() else None
        for path in folder.glob(_WEIGHTS_PATTERN):
            if path.name != named:
                path.unlink(missing_ok=True)


def _read_weights(path: Path, manifest: Manifest) -> dict[str, Tensor]:
    try:
        _check_size(path.stat().st_size, manifest, path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        _check_hash(digest, manifest, path)
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: missing, though the manifest names it; save the personal model again") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error}); save the personal model again") from None


def _check_size(size: int, manifest: Manifest, source: Path | str) -> None:
    if size != manifest.weights_bytes:
        raise UserError(
            f"{source}: {size} bytes, expected {manifest.weights_bytes}; the file is truncated or changed, "
            "save the personal model again"
        )


def _check_hash(digest: str, manifest: Manifest, source: Path | str) -> None:
    if digest != manifest.weights_sha256:
        raise UserError(f"{source}: its hash is not the manifest's; the file was changed, save the model again")
