"""What a personal model costs a device: weights, bytes on disk, multiply-accumulates, latency and peak memory."""

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from personalization.model_files.storage import stored_bytes
from personalization.system.torch_threads import torch_threads
from personalization.transformer.layers import Layer, LayerKind, is_linear, linear_weight


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a model costs.

    weights: parameters, a tied one once. block_weights: those of them that units own, as `Layer.weights` counts.
    bytes: size of the model as a safetensors file. macs: multiply-accumulates for one sample. latency_ms: median for
    a batch of one. peak_memory_bytes: parameters, buffers, input and the most that activations take at once.
    """

    weights: int
    block_weights: int
    bytes: int
    macs: int
    latency_ms: float
    peak_memory_bytes: int


def measure_footprint(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    *,
    layers: Sequence[Layer],
    dtype: str = "float32",
    runs: int = 20,
    warm_up: int = 3,
    threads: int | None = None,
) -> Footprint:
    """Measure `model`, dense or cut, on the first sample of `inputs`.

    layers: of the dense model. dtype: in which the weights would be stored. runs, warm_up, threads: see
    `measure_latency`.
    """
    sample = {name: tensor[:1] for name, tensor in inputs.items()}
    return Footprint(
        weights=sum(parameter.numel() for parameter in model.parameters()),
        block_weights=_remaining_weights(model, layers),
        bytes=stored_bytes(model, dtype),
        macs=count_macs(model, sample, layers),
        latency_ms=measure_latency(model, sample, runs=runs, warm_up=warm_up, threads=threads),
        peak_memory_bytes=measure_peak_memory(model, sample),
    )


def block_weights(layers: Sequence[Layer]) -> int:
    """Return the number of weights that can be cut from all layers together."""
    return sum(layer.weights for layer in layers)


def kept_weights(layers: Sequence[Layer], kept: Sequence[NDArray[np.int64]]) -> int:
    """Return how many of `block_weights` stay when only the `kept` units of each layer do."""
    return sum(len(units) * layer.weights_per_unit for layer, units in zip(layers, kept, strict=True))


@torch.no_grad()
def count_macs(model: nn.Module, inputs: Mapping[str, Tensor], layers: Sequence[Layer]) -> int:
    """Return the multiply-accumulates of one forward pass over `inputs`.

    Counted in every linear module and convolution, and in the two products of attention (queries with keys, weights
    with values: 2 * tokens^2 * width of the heads, masked or not). Norms, activations and biases are left out, as is
    usual.
    """
    total = 0

    def count(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if is_linear(module):
            total += output.numel() * linear_weight(module).shape[1]
        else:
            weight = module.weight
            assert isinstance(weight, Tensor)
            total += output.numel() * math.prod(weight.shape[1:])

    def count_attention(_: nn.Module, args: tuple[Tensor]) -> None:
        nonlocal total
        total += 2 * args[0].numel() * args[0].shape[-2]

    with ExitStack() as hooks:
        for module in model.modules():
            if is_linear(module) or isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
                hooks.callback(module.register_forward_hook(count).remove)
        for layer in layers:
            if layer.kind is LayerKind.ATTENTION:
                hooks.callback(model.get_submodule(layer.writer).register_forward_pre_hook(count_attention).remove)
        model(**inputs)
    return total


@torch.inference_mode()
def measure_latency(
    model: nn.Module, inputs: Mapping[str, Tensor], *, runs: int = 20, warm_up: int = 3, threads: int | None = None
) -> float:
    """Return the median time in milliseconds of `runs` forward passes, after `warm_up` that do not count.

    threads: that torch may use meanwhile; None leaves them as they are. Raises ValueError for less than one run.
    """
    if runs < 1:
        raise ValueError(f"{runs} runs: expected 1 or more")
    times = []
    with torch_threads(threads):
        for _ in range(warm_up):
            model(**inputs)
        for _ in range(runs):
            start = time.perf_counter()
            model(**inputs)
            times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


@torch.no_grad()
def measure_peak_memory(model: nn.Module, inputs: Mapping[str, Tensor]) -> int:
    """Return the bytes of parameters, buffers, `inputs` and the most activations alive at once in a forward pass.

    Activations are measured: after each operator, the storages that operators have returned and that still live.
    What an operator takes and gives back inside itself is not seen, nor are Python and torch themselves.
    """
    held = _storages(chain(model.parameters(), model.buffers(), inputs.values()))
    with _LiveStorages(frozenset(held)) as activations:
        model(**inputs)
    peak: int = activations.peak
    return sum(held.values()) + peak


class _LiveStorages(TorchDispatchMode):
    """Follows the storages that operators return; `peak` is the most bytes of them that lived at once."""

    def __init__(self, held: frozenset[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it without types
        self.held = held
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak: int = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        self.live = {key: entry for key, entry in self.live.items() if not entry[0].expired()}
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self.held:
                    self.live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return output


def _storages(tensors: Iterator[Tensor]) -> dict[int, int]:
    storages = (tensor.untyped_storage() for tensor in tensors)
    return {storage._cdata: storage.nbytes() for storage in storages}


def _remaining_weights(model: nn.Module, layers: Sequence[Layer]) -> int:
    modules = dict(model.named_modules())
    readers = (modules[reader.path] for layer in layers for reader in layer.readers if reader.path in modules)
    read: int = sum(parameter.numel() for reader in readers for parameter in reader.parameters())
    written: int = sum(linear_weight(modules[layer.writer]).numel() for layer in layers)
    return read + written
