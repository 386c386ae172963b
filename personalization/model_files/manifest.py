"""The manifest of a saved personal model: what to build, what was cut from it, and which file holds the weights."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from personalization.errors import UserError

FORMAT = 1
LINEAR_KINDS = ("Linear", "Conv1D")
ATTENTION_KINDS = ("eager", "sdpa")
STORED_DTYPES = ("float32", "float16")
_WEIGHTS_FILE = re.compile(r"model-[0-9a-f]{16}\.safetensors")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """What is left of one layer: the `kept` of its `units`, and the form of its writer."""

    units: int
    kept: tuple[int, ...]
    writer: str
    writer_bias: bool


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that is needed, beside the weights, to load a personal model without the model that it was cut from.

    architecture: class in transformers. config: of the dense model. attention: implementation, `eager` or `sdpa`.
    generation: generation settings of a language model. tied: parameters that are another one under a second name.
    weights_bytes: size of `weights_file`. dtype: as stored; a model is always loaded as float32.
    backbone: identifier of the dense model. preprocessing: of inputs, as its own `to_dict` gives it.
    labels: names of the classes. extra: anything else that JSON can hold, such as a footprint.
    """

    architecture: str
    config: dict[str, Any]
    attention: str
    generation: dict[str, Any] | None
    layers: tuple[LayerRecord, ...]
    tied: dict[str, str]
    weights_file: str
    weights_sha256: str
    weights_bytes: int
    dtype: str
    backbone: str = ""
    preprocessing: dict[str, Any] | None = None
    labels: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> str:
        """Return the manifest as JSON text. Raises TypeError where `extra` holds what JSON cannot."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, source: str) -> "Manifest":
        """Read a manifest; `source` names it in errors. Raises UserError for what is no manifest of this format."""
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{source}: not valid JSON ({error}); save the personal model again") from None
        if not isinstance(fields, dict) or type(fields.get("format")) is not int:
            raise UserError(f"{source}: not the manifest of a personal model; expected an object with its format")
        if fields["format"] > FORMAT:
            raise UserError(
                f"{source}: format {fields['format']} is newer than {FORMAT}; use a newer version to read it"
            )
        if set(fields) != set(_CHECKS):
            odd = sorted(set(fields) ^ set(_CHECKS))
            raise UserError(f"{source}: damaged, fields missing or unknown: {', '.join(odd)}; save the model again")
        for name, check in _CHECKS.items():
            if not check(fields[name]):
                raise UserError(f"{source}: damaged, {name} is not what was expected; save the personal model again")
        layers = tuple(LayerRecord(**record | {"kept": tuple(record["kept"])}) for record in fields["layers"])
        return cls(**fields | {"layers": layers, "labels": tuple(fields["labels"])})


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_strings(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(item, str) for item in value.values())


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_object_or_none(value: Any) -> bool:
    return value is None or isinstance(value, dict)


def _matches(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_layer(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and set(record) == set(LayerRecord.__dataclass_fields__)
        and _is_count(record["units"])
        and isinstance(record["kept"], list)
        and all(_is_count(unit) and unit < record["units"] for unit in record["kept"])
        and len(set(record["kept"])) == len(record["kept"])
        and record["writer"] in LINEAR_KINDS
        and isinstance(record["writer_bias"], bool)
    )


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "format": lambda value: value == FORMAT,
    "architecture": lambda value: isinstance(value, str) and value.isidentifier(),
    "config": _is_object,
    "attention": lambda value: value in ATTENTION_KINDS,
    "generation": _is_object_or_none,
    "layers": lambda value: isinstance(value, list) and all(map(_is_layer, value)),
    "tied": _is_strings,
    "weights_file": _matches(_WEIGHTS_FILE),
    "weights_sha256": _matches(_SHA256),
    "weights_bytes": _is_count,
    "dtype": lambda value: value in STORED_DTYPES,
    "backbone": lambda value: isinstance(value, str),
    "preprocessing": _is_object_or_none,
    "labels": lambda value: isinstance(value, list) and all(isinstance(label, str) for label in value),
    "extra": _is_object,
}
