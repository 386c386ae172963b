"""Find the layers and units of a transformer from its module tree.

A layer is one attention or one MLP sublayer of one block. Its readers (query, key, value; or the first MLP matrices)
read the residual stream, its writer (the output projection; or the last MLP matrix) writes to it. A unit is the
smallest part that can be cut: rows of the readers with the columns of the writer that they feed.

Nothing here asks for the name of a model. What is asked for are the names of linear modules, which transformers 5
keeps alike across models, and shapes that fit together; whatever does not fit is named in the error.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from personalization.errors import UserError

_QUERY_NAMES = frozenset({"q_proj", "query", "q_lin"})
_KEY_NAMES = frozenset({"k_proj", "key", "k_lin"})
_VALUE_NAMES = frozenset({"v_proj", "value", "v_lin"})
_FUSED_NAMES = frozenset({"c_attn", "qkv", "query_key_value"})
_GATE_NAMES = frozenset({"gate_proj"})


class LayerKind(StrEnum):
    """What a layer does; its unit is a head (with grouped queries: a key-value group) or a channel."""

    ATTENTION = "attention"
    MLP = "mlp"


@dataclass(frozen=True)
class Reader:
    """A linear module that reads the residual stream; a unit owns `rows_per_unit` rows in each of its `parts`."""

    path: str
    rows_per_unit: int
    parts: int = 1


@dataclass(frozen=True)
class Layer:
    """One attention or MLP sublayer.

    `columns_per_unit` input columns of the writer belong to each unit, side by side. `weights_per_unit` counts every
    weight and bias that goes when a unit is cut; `core` is the module that holds the readers (and, but for BERT, the
    writer) and is replaced when a whole attention layer is dropped.
    """

    index: int
    block: int
    kind: LayerKind
    block_path: str
    core: str
    readers: tuple[Reader, ...]
    writer: str
    units: int
    columns_per_unit: int
    weights_per_unit: int

    @property
    def name(self) -> str:
        """Short name for people: the block's number and what the layer does."""
        return f"{self.block}.{self.kind.value}"

    @property
    def weights(self) -> int:
        """Number of weights that can be cut from this layer."""
        return self.units * self.weights_per_unit

    def columns(self, units: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the writer's input columns [len(units) * columns_per_unit] that belong to `units`."""
        starts = np.asarray(units, dtype=np.int64)[:, None] * self.columns_per_unit
        return (starts + np.arange(self.columns_per_unit)).reshape(-1)

    def rows(self, reader: Reader, units: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the output rows of `reader` that belong to `units`, part by part."""
        starts = np.asarray(units, dtype=np.int64)[:, None] * reader.rows_per_unit
        part = (starts + np.arange(reader.rows_per_unit)).reshape(-1)
        width = self.units * reader.rows_per_unit
        return np.concatenate([part + p * width for p in range(reader.parts)])


def is_linear(module: nn.Module) -> bool:
    """Say whether a module is a plain linear map, in either of the two forms that transformers uses."""
    return isinstance(module, nn.Linear) or is_conv1d(module)


def is_conv1d(module: nn.Module) -> bool:
    """Say whether a module is the linear map of GPT-2, which keeps its weight transposed."""
    # Whoever made such a module has imported its class: looking is enough, and importing it takes seconds.
    home = sys.modules.get("transformers.pytorch_utils")
    return home is not None and isinstance(module, home.Conv1D)


def linear_weight(module: nn.Module) -> Tensor:
    """Return the weight of a linear module as [outputs, inputs]; Conv1D keeps it transposed."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.t() if is_conv1d(module) else weight


def linear_bias(module: nn.Module) -> Tensor | None:
    """Return the bias [outputs] of a linear module, or None where it has none."""
    bias = module.bias
    assert bias is None or isinstance(bias, Tensor)
    return bias


def find_layers(model: nn.Module) -> tuple[Layer, ...]:
    """Return the layers of `model` in the order in which they run.

    Raises UserError that names the module which was not understood.
    """
    blocks_path, blocks = _find_blocks(model)
    layers: list[Layer] = []
    for number, block in enumerate(blocks):
        path = f"{blocks_path}.{number}"
        layers += _block_layers(block, path, number, len(layers))
    return tuple(layers)


def _find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    candidates = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and _has_attention(module[0])
    ]
    if not candidates:
        raise UserError(
            f"{type(model).__name__}: no list of transformer blocks with query, key and value projections was found; "
            "supported are ViT, DeiT, DINOv2, BERT, GPT-2, Llama, Qwen2 and models built like them"
        )
    outer = [c for c in candidates if not any(c[0].startswith(f"{other}.") for other, _ in candidates)]
    if len(outer) > 1:
        raise UserError(
            f"{type(model).__name__}: {outer[1][0]} is a second list of blocks beside {outer[0][0]}; "
            "models with one stack of blocks are supported"
        )
    return outer[0]


def _linears(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((path, child) for path, child in module.named_modules() if is_linear(child))


def _last(path: str) -> str:
    return path.rsplit(".", 1)[-1]


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _has_attention(block: nn.Module) -> bool:
    names = {_last(path) for path, _ in _linears(block)}
    return bool(names & _FUSED_NAMES) or bool(names & _QUERY_NAMES and names & _KEY_NAMES and names & _VALUE_NAMES)


def _block_layers(block: nn.Module, path: str, number: int, first: int) -> list[Layer]:
    linears = dict(_linears(block))
    attention = [p for p in linears if _last(p) in _QUERY_NAMES | _KEY_NAMES | _VALUE_NAMES | _FUSED_NAMES]
    cores = {_parent(p) for p in attention}
    if len(cores) != 1:
        raise UserError(f"{path}: {len(cores)} attention modules in one block; one is supported")
    core = cores.pop()
    rest = [p for p in linears if p not in attention]
    width = linear_weight(linears[attention[0]]).shape[1]
    writer = _attention_writer(block, path, core, rest, width)
    rest.remove(writer)
    attention_layer = _attention_layer(block, path, core, attention, writer, number, first)
    return [attention_layer, _mlp_layer(linears, path, rest, width, number, first + 1)]


def _attention_writer(block: nn.Module, path: str, core: str, rest: list[str], width: int) -> str:
    inside = [p for p in rest if p.startswith(f"{core}.")]
    beside = [p for p in rest if p.startswith(f"{_parent(core)}.")]
    for candidates in (inside, beside):
        if len(candidates) == 1:
            outputs = linear_weight(block.get_submodule(candidates[0])).shape[0]
            if outputs != width:
                raise UserError(
                    f"{path}.{candidates[0]}: writes {outputs} numbers, expected the {width} that the block reads"
                )
            return candidates[0]
    raise UserError(f"{path}.{core}: no single output projection was found beside the query, key and value projections")


def _heads(core: nn.Module, path: str, query_rows: int) -> int:
    for name in ("head_dim", "attention_head_size"):
        size = getattr(core, name, None)
        if isinstance(size, int) and size > 0 and query_rows % size == 0:
            return size
    raise UserError(
        f"{path}: the width of a head was not found; expected an attribute head_dim that divides {query_rows}"
    )


def _attention_layer(
    block: nn.Module, path: str, core_path: str, attention: list[str], writer: str, number: int, first: int
) -> Layer:
    core, out = block.get_submodule(core_path), block.get_submodule(writer)
    columns = linear_weight(out).shape[1]
    head = _heads(core, f"{path}.{core_path}", columns)
    full = f"{path}.{core_path}"
    fused = [p for p in attention if _last(p) in _FUSED_NAMES]
    readers: tuple[Reader, ...]
    if fused:
        rows = linear_weight(block.get_submodule(fused[0])).shape[0]
        if len(attention) != 1 or rows != 3 * columns:
            raise UserError(f"{path}.{fused[0]}: {rows} rows, expected query, key and value of {columns} rows each")
        units, readers = columns // head, (Reader(f"{path}.{fused[0]}", head, parts=3),)
    else:
        by_role = {}
        for role, names in (("query", _QUERY_NAMES), ("key", _KEY_NAMES), ("value", _VALUE_NAMES)):
            found = [p for p in attention if _last(p) in names]
            if len(found) != 1:
                raise UserError(f"{full}: {len(found)} {role} projections, expected one")
            by_role[role] = (found[0], linear_weight(block.get_submodule(found[0])).shape[0])
        units = by_role["key"][1] // head
        if by_role["query"][1] != columns or by_role["key"][1] != by_role["value"][1] or columns % (units * head):
            raise UserError(f"{full}: query, key, value and output projections of widths that do not fit together")
        readers = tuple(Reader(f"{path}.{p}", rows // units) for p, rows in by_role.values())
    modules = [block.get_submodule(r.path.removeprefix(f"{path}.")) for r in readers]
    return Layer(
        index=first,
        block=number,
        kind=LayerKind.ATTENTION,
        block_path=path,
        core=full,
        readers=readers,
        writer=f"{path}.{writer}",
        units=units,
        columns_per_unit=columns // units,
        weights_per_unit=_unit_weights(modules, out, units),
    )


def _unit_weights(readers: list[nn.Module], writer: nn.Module, units: int) -> int:
    read = sum(p.numel() for module in readers for p in module.parameters())
    return (read + linear_weight(writer).numel()) // units


def _mlp_layer(linears: dict[str, nn.Module], path: str, rest: list[str], width: int, number: int, first: int) -> Layer:
    readers = [p for p in rest if linear_weight(linears[p]).shape[1] == width]
    writers = [p for p in rest if linear_weight(linears[p]).shape[0] == width and p not in readers]
    if len(rest) in (2, 3) and not writers:  # a square MLP: the order of the modules tells
        readers, writers = rest[:-1], rest[-1:]
    if len(writers) != 1 or len(readers) + 1 != len(rest) or not readers:
        unknown = next((p for p in rest if p not in readers and p not in writers), rest[0] if rest else "mlp")
        raise UserError(
            f"{path}.{unknown}: this linear module was not understood; expected an MLP of two or three matrices"
        )
    gated = any(_last(p) in _GATE_NAMES for p in readers)
    if len(readers) != (2 if gated else 1):
        raise UserError(
            f"{path}.{readers[-1]}: {len(readers)} modules read into the MLP; expected one, or gate_proj and up_proj"
        )
    channels = linear_weight(linears[writers[0]]).shape[1]
    for reader in readers:
        if linear_weight(linears[reader]).shape[0] != channels:
            raise UserError(f"{path}.{reader}: its outputs are not the {channels} inputs of {path}.{writers[0]}")
    return Layer(
        index=first,
        block=number,
        kind=LayerKind.MLP,
        block_path=path,
        core=f"{path}.{_parent(writers[0])}".rstrip("."),
        readers=tuple(Reader(f"{path}.{p}", 1) for p in readers),
        writer=f"{path}.{writers[0]}",
        units=channels,
        columns_per_unit=1,
        weights_per_unit=_unit_weights([linears[p] for p in readers], linears[writers[0]], channels),
    )
