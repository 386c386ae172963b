"""The generic layers on the device: received, checked against their hashes, cached, and put together."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from flwr.app import RecordDict
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from client.data import InputFacts
from client.entries import BACKBONE
from client.state import ClientState
from personalization.data.tasks import preprocessing_from_dict
from personalization.model_files.pieces import BackboneManifest, PieceError, assemble_backbone, piece_hash
from personalization.system.bounded_cache import BoundedCache
from personalization.transformer.groups import UnitGroups
from personalization.transformer.layers import Layer, find_layers
from personalization.wire.codes import ClientError, ClientFailure
from strategies.protocol import PIECES, read_manifest, read_pieces

_FOLD = "fold."
# Bytes of backbones that are kept together; a large one never exists twice.
_ROOM = 2**28


@dataclass(frozen=True)
class LocalBackbone:
    """The generic backbone that a device holds.

    groups: the fleet's, per layer. facts: what its inputs look like. identifier: the server's name for it. dtype: in
    which it travelled, and in which personal models are stored.
    """

    model: nn.Module
    layers: tuple[Layer, ...]
    groups: UnitGroups
    facts: InputFacts
    identifier: str
    dtype: str


class BackboneShelf:
    """Backbones put together, the last ones by what they are made of.

    A deployed client puts together one for each message; the clients of one simulating process share them, which
    is sound because personalization does not modify the backbone.
    """

    def __init__(self) -> None:
        """Keep none yet."""
        self._kept = BoundedCache[LocalBackbone](_ROOM)

    def get(self, content: RecordDict, state: ClientState, root: bytes, dropped: NDArray[np.bool_]) -> LocalBackbone:
        """Store what a request brings and return the backbone for its plan.

        root: hash that the plan names. dropped [groups]: what the plan drops; only such groups may be lacking.
        Raises PieceError if something doesn't match its hash, and ClientError (backbone missing) if the cache is not
        what the server believes.
        """
        _store(content, state)
        manifest, tensors = _read_cache(state)
        if manifest.root != root or manifest.group_count != len(dropped):
            raise ClientError(ClientFailure.BACKBONE_MISSING, "the cached backbone is another one")
        first = len(manifest.base)
        held = np.array([str(first + group) in tensors for group in range(manifest.group_count)])
        if (~held & ~dropped).any():
            raise ClientError(ClientFailure.BACKBONE_MISSING, "the cache lacks groups that the plan does not drop")
        key = (root, np.packbits(held).tobytes())
        size = sum(4 * tensor.numel() for tensor in tensors.values())
        return self._kept.get(key, size, lambda: _assemble(manifest, tensors))


def _store(content: RecordDict, state: ClientState) -> None:
    """Write what a request carries to the cache, once every piece has been checked against its hash.

    The pieces leave the request: they are as large as the model.
    """
    manifest, arrived = read_manifest(content), read_pieces(content)
    content.pop(PIECES, None)
    if manifest is None and not arrived:
        return
    tensors: dict[str, Tensor] = {}
    if manifest is None:
        manifest, cached = _read_cache(state)
        tensors = {name: tensor for name, tensor in cached.items() if not name.startswith(_FOLD)}
    for name, tensor in arrived.items():
        if not _is_named(name, manifest) or not _is_whole(name, tensor, manifest):
            raise PieceError(f"piece {name} does not match its hash")
    tensors.update(arrived)
    raw = safetensors.torch.save(tensors, metadata={"manifest": _to_json(manifest)})
    state.write(BACKBONE, raw)


def _read_cache(state: ClientState) -> tuple[BackboneManifest, dict[str, Tensor]]:
    try:
        text, tensors = _read_file(state.path(BACKBONE)) if state.vault is None else _read_bytes(state.read(BACKBONE))
        manifest = _from_json(text)
        if not all(_is_named(name, manifest) for name in tensors):
            raise ValueError("a tensor that is no piece")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ClientError(ClientFailure.BACKBONE_MISSING, "no readable backbone in the cache") from error
    return manifest, tensors


def _is_named(name: str, manifest: BackboneManifest) -> bool:
    """Say whether a tensor is a piece of the manifest, or a fold of one of its layers."""
    number, most = name.removeprefix(_FOLD), len(manifest.groups if name.startswith(_FOLD) else manifest.hashes)
    return number.isascii() and number.isdecimal() and len(number) < 10 and int(number) < most


def _is_whole(name: str, tensor: Tensor, manifest: BackboneManifest) -> bool:
    """Say whether a piece has its hash; a fold has none."""
    try:
        return name.startswith(_FOLD) or piece_hash(tensor) == manifest.hashes[int(name)]
    except PieceError:  # of a type that has no bytes to be hashed
        return False


def _read_file(path: Path) -> tuple[str, dict[str, Tensor]]:
    with safetensors.safe_open(path, framework="pt") as file:
        text = (file.metadata() or {})["manifest"]
        return text, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)


def _read_bytes(raw: bytes) -> tuple[str, dict[str, Tensor]]:
    # The format: 8 bytes with the length of a header in JSON, the header, the tensors.
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return str(header["__metadata__"]["manifest"]), safetensors.torch.load(raw)


def _assemble(manifest: BackboneManifest, tensors: dict[str, Tensor]) -> LocalBackbone:
    """Check the cached pieces and put them together: a file may have been damaged since it was written."""
    pieces, folds = {}, {}
    for name, tensor in tensors.items():
        if name.startswith(_FOLD):
            folds[int(name.removeprefix(_FOLD))] = tensor
            continue
        if not _is_whole(name, tensor, manifest):
            raise ClientError(ClientFailure.BACKBONE_MISSING, "a cached piece does not match its hash")
        pieces[manifest.names[int(name)]] = tensor
    model = assemble_backbone(manifest, pieces, folds)
    description = json.loads(manifest.description)
    record = description.get("preprocessing")
    preprocessing = None if record is None else preprocessing_from_dict(record)
    facts = InputFacts(preprocessing, tuple(description.get("labels", ())))
    half = all(piece.dtype == torch.float16 for piece in pieces.values() if piece.is_floating_point())
    identifier, dtype = str(description.get("identifier", "")), "float16" if half else "float32"
    return LocalBackbone(model, find_layers(model), manifest.groups, facts, identifier, dtype)


def _to_json(manifest: BackboneManifest) -> str:
    record = manifest.to_record()
    return json.dumps({k: v.hex() if isinstance(v, bytes) else v for k, v in record.items()})


def _from_json(text: str) -> BackboneManifest:
    record = json.loads(text)
    return BackboneManifest.from_record({**record, **{key: bytes.fromhex(record[key]) for key in ("order", "hashes")}})
