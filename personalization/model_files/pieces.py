"""The backbone as content-addressed pieces: one for each group of units, one for every other tensor.

A piece is known by its SHA-256, so a device can tell what it holds, and a group that the fleet dropped or took back
is one piece more or less on the wire. A piece of a group is flat: the rows of each reader, their biases, the columns
of the writer. Numbers that half precision represents exactly travel in half precision.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from personalization.errors import UserError
from personalization.model_files.skeleton import build_skeleton
from personalization.transformer.groups import UnitGroups
from personalization.transformer.layers import Layer, find_layers, linear_bias, linear_weight

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_Index = tuple[Tensor | slice, ...]


class PieceError(ValueError):
    """A manifest or a piece that does not fit, or does not match its hash."""


@dataclass(frozen=True)
class BackboneManifest:
    """What a backbone is made of.

    config: JSON of the transformers config. description: JSON of what else a device must know (identifier,
    preprocessing, labels, class, implementation of attention). base: names of the tensors that belong to no group.
    groups: units of each group. hashes: SHA-256 of every piece, the base first, then the groups in order.
    """

    config: str
    description: str
    base: tuple[str, ...]
    groups: UnitGroups
    hashes: tuple[bytes, ...]

    @property
    def root(self) -> bytes:
        """SHA-256 [32 bytes] over everything in the manifest; two backbones are the same if their roots are."""
        digest = hashlib.sha256()
        named = sorted(zip(self.names, self.hashes, strict=True))
        for part in (
            self.config.encode(),
            self.description.encode(),
            self._order(),
            *(n.encode() + h for n, h in named),
        ):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return digest.digest()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all pieces in the order of `hashes`; a group is called `layer.group`, both counted from 0."""
        own = [f"{layer}.{group}" for layer, groups in enumerate(self.groups) for group in range(len(groups))]
        return (*self.base, *own)

    @property
    def group_count(self) -> int:
        """Number of groups over all layers."""
        return sum(len(groups) for groups in self.groups)

    def _order(self) -> bytes:
        return b"".join(np.asarray(g, dtype="<u4").tobytes() for groups in self.groups for g in groups)

    def to_record(self) -> dict[str, Any]:
        """Return the manifest as strings, bytes and lists of integers and strings."""
        widest = max((int(g.max()) for groups in self.groups for g in groups if len(g)), default=0)
        width = "<u2" if widest < 2**16 else "<u4"
        return {
            "config": self.config,
            "description": self.description,
            "base": list(self.base),
            "order-type": width,
            "order": b"".join(g.astype(width).tobytes() for groups in self.groups for g in groups),
            "layer-groups": [len(groups) for groups in self.groups],
            "group-sizes": [len(g) for groups in self.groups for g in groups],
            "hashes": b"".join(self.hashes),
        }

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> "BackboneManifest":
        """Return the manifest in `record`. Raises PieceError if a field is missing or does not fit the others."""
        config, description = _json_text(record, "config"), _json_text(record, "description")
        width, raw = record.get("order-type"), _bytes(record, "hashes")
        if width not in ("<u2", "<u4"):
            raise PieceError("the manifest's unit order is of an unknown type")
        try:
            order = np.frombuffer(_bytes(record, "order"), dtype=width).astype(np.int64)
        except ValueError as error:
            raise PieceError("the manifest's unit order is cut short") from error
        sizes, counts, base = _counts(record, "group-sizes"), _counts(record, "layer-groups"), record.get("base")
        if not isinstance(base, list) or not all(isinstance(name, str) for name in base):
            raise PieceError("the manifest's base is no list of names")
        if sum(sizes) != len(order) or sum(counts) != len(sizes) or len(raw) != 32 * (len(base) + len(sizes)):
            raise PieceError("the manifest's groups and hashes do not fit together")
        parts = iter(np.split(order, np.cumsum(sizes, dtype=np.int64)[:-1]))
        groups = tuple(tuple(next(parts) for _ in range(count)) for count in counts)
        hashes = tuple(raw[i : i + 32] for i in range(0, len(raw), 32))
        return BackboneManifest(config, description, tuple(base), groups, hashes)


def _json_text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    try:
        if isinstance(value, str):
            json.loads(value)
            return value
    except (ValueError, RecursionError) as error:
        raise PieceError(f"the manifest's {key} is not JSON") from error
    raise PieceError(f"the manifest's {key} is missing or of the wrong type")


def _bytes(record: Mapping[str, Any], key: str) -> bytes:
    # Never bytes(value): of a number it makes as many zeros.
    value = record.get(key)
    if not isinstance(value, bytes):
        raise PieceError(f"the manifest's {key} is missing or of the wrong type")
    return value


def _counts(record: Mapping[str, Any], key: str) -> list[int]:
    value = record.get(key)
    if not isinstance(value, list) or not all(type(count) is int and count >= 0 for count in value):
        raise PieceError(f"the manifest's {key} is no list of counts")
    return value


def piece_hash(piece: Tensor) -> bytes:
    """Return the SHA-256 [32 bytes] of a tensor's type, shape and contents. Raises PieceError for an odd type."""
    try:
        array = piece.contiguous().numpy()
    except (TypeError, RuntimeError) as error:
        raise PieceError(f"a piece of type {piece.dtype}, which none has") from error
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(array.tobytes())
    return digest.digest()


def split_backbone(model: nn.Module, layers: Sequence[Layer], groups: UnitGroups) -> dict[str, Tensor]:
    """Return the pieces of `model` by name, in the order of `BackboneManifest.names`; tied tensors appear once."""
    owned = {f"{r.path}.{kind}" for layer in layers for r in layer.readers for kind in ("weight", "bias")}
    owned |= {f"{layer.writer}.weight" for layer in layers}
    pieces, seen = {}, set()
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tuple(tensor.shape))
        if name not in owned and (place not in seen or not tensor.numel()):
            pieces[name] = _narrow(tensor)
            seen.add(place)
    for layer, layer_groups in zip(layers, groups, strict=True):
        for number, units in enumerate(layer_groups):
            parts = [tensor[index].reshape(-1) for tensor, index in _slots(model, layer, units)]
            pieces[f"{layer.index}.{number}"] = _narrow(torch.cat(parts))
    return pieces


def make_manifest(
    model: "PreTrainedModel", description: Mapping[str, Any], groups: UnitGroups, pieces: Mapping[str, Tensor]
) -> BackboneManifest:
    """Return the manifest of the pieces that `split_backbone` made of `model`."""
    build = {"architecture": type(model).__name__, "attention": model.config._attn_implementation}
    count = len(pieces) - sum(len(layer_groups) for layer_groups in groups)
    return BackboneManifest(
        json.dumps(model.config.to_dict(), sort_keys=True, separators=(",", ":")),
        json.dumps({**description, **build}, sort_keys=True, separators=(",", ":")),
        tuple(pieces)[:count],
        groups,
        tuple(piece_hash(piece) for piece in pieces.values()),
    )


def assemble_backbone(
    manifest: BackboneManifest, pieces: Mapping[str, Tensor], folds: Mapping[int, Tensor]
) -> nn.Module:
    """Return the float32 model in evaluation mode that `pieces` (by name) amount to.

    Groups without a piece become units that add nothing to the residual stream; `folds` holds for the index of a
    layer the vector [outputs] that its lacking groups added on average. Raises PieceError if a piece does not fit.
    """
    model = _blank_model(manifest)
    layers = find_layers(model)
    if len(layers) != len(manifest.groups) or any(name not in pieces for name in manifest.base):
        raise PieceError("the pieces do not make up the model of the manifest")
    try:
        model.load_state_dict({name: pieces[name].float() for name in manifest.base}, strict=False)
        for layer, groups in zip(layers, manifest.groups, strict=True):
            for number, units in enumerate(groups):
                _place(model, layer, units, pieces.get(f"{layer.index}.{number}"))
            if layer.index in folds:
                _add_to_bias(model.get_submodule(layer.writer), folds[layer.index].float())
    except (RuntimeError, IndexError) as error:
        raise PieceError("a piece does not have the shape that the model needs") from error
    return model.eval()


def _place(model: nn.Module, layer: Layer, units: NDArray[np.int64], piece: Tensor | None) -> None:
    slots = list(_slots(model, layer, units))
    if piece is None:
        for tensor, index in slots:
            tensor[index] = 0.0
        return
    shapes = [tensor[index].shape for tensor, index in slots]
    chunks = piece.float().split([shape.numel() for shape in shapes])
    for (tensor, index), chunk, shape in zip(slots, chunks, shapes, strict=True):
        tensor[index] = chunk.view(shape)


def _slots(model: nn.Module, layer: Layer, units: NDArray[np.int64]) -> Iterator[tuple[Tensor, _Index]]:
    """Yield each tensor that holds a part of `units`, and where; the tensors share the model's memory."""
    for reader in layer.readers:
        module, rows = model.get_submodule(reader.path), torch.from_numpy(layer.rows(reader, units))
        yield linear_weight(module).detach(), (rows,)
        bias = linear_bias(module)
        if bias is not None:
            yield bias.detach(), (rows,)
    columns = torch.from_numpy(layer.columns(units))
    yield linear_weight(model.get_submodule(layer.writer)).detach(), (slice(None), columns)


def _add_to_bias(writer: nn.Module, fold: Tensor) -> None:
    bias = linear_bias(writer)
    writer.bias = nn.Parameter(fold if bias is None else bias.detach() + fold)


def _narrow(tensor: Tensor) -> Tensor:
    whole = tensor.detach().contiguous().clone()
    if not whole.is_floating_point():
        return whole
    half = whole.half()
    return half if torch.equal(half.float(), whole.float()) else whole


def _blank_model(manifest: BackboneManifest) -> nn.Module:
    config, description = json.loads(manifest.config), json.loads(manifest.description)
    try:
        model = build_skeleton(str(description["architecture"]), config, str(description["attention"]))
    except (UserError, KeyError, TypeError) as error:
        raise PieceError("no model can be built from the manifest") from error
    # Every module gets memory of its own for what is to be filled; names that share a tensor are tied again. Not by
    # torch.zeros_like: from a meta tensor it imports a computer algebra system, which takes a second.
    whole: nn.Module = model
    whole._apply(lambda t: torch.zeros(t.shape, dtype=t.dtype) if t.is_meta else t)
    model.tie_weights()
    return whole.float()
