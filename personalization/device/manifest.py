"""The manifest beside an exported model: which file it is, how it was checked, what it costs, what it takes."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from personalization.data.images import ImagePreprocessing
from personalization.device import DEVICE_MANIFEST
from personalization.device.checks import ExportCheck, TextExportCheck
from personalization.device.footprint import DeviceFootprint, TextFootprint
from personalization.errors import UserError

FORMAT = 1
Precision = Literal["fp32", "int8-dynamic", "int8-static"]

_MODEL_FILE = re.compile(r"model-[0-9a-f]{16}\.onnx")
_TOKENIZER_FILE = re.compile(r"tokenizer-[0-9a-f]{16}\.json")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class DeviceText:
    """What an exported language model expects of its text: the preprocessing, with the tokenizer in a file of its own.

    separator: the token between two texts, None if it knows none. stops: tokens after which it does not go on. context:
    the most tokens that it reads.
    """

    tokenizer_file: str
    tokenizer_sha256: str
    separator: int | None
    stops: tuple[int, ...]
    context: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as what JSON can hold."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class DeviceManifest:
    """All that a device needs to run an exported model.

    personal: SHA-256 of the weights of the personal model that was exported, or of the dense one. preprocessing: of
    images, or of text. labels: names of the classes, in the order of the logits; none of a language model.
    """

    precision: Precision
    model_file: str
    model_sha256: str
    personal: str
    preprocessing: ImagePreprocessing | DeviceText
    labels: tuple[str, ...]
    check: ExportCheck | TextExportCheck
    footprint: DeviceFootprint | TextFootprint
    format: int = FORMAT

    @property
    def files(self) -> frozenset[str]:
        """Names of the files that the manifest names."""
        text = self.preprocessing
        return frozenset({self.model_file} | ({text.tokenizer_file} if isinstance(text, DeviceText) else set()))

    def to_json(self) -> str:
        """Return the manifest as JSON text, one field a line."""
        record = asdict(self) | {"preprocessing": self.preprocessing.to_dict()}
        return json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> "DeviceManifest":
        """Read a manifest; `source` names it in errors. Raises UserError for what is no manifest of this format."""
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            raise UserError(f"{source}: not valid JSON; export the model again") from None
        if not isinstance(fields, dict) or type(fields.get("format")) is not int:
            raise UserError(f"{source}: not the manifest of an exported model; expected an object with its format")
        if fields["format"] > FORMAT:
            raise UserError(
                f"{source}: format {fields['format']} is newer than {FORMAT}; use a newer version to read it"
            )
        of_text = isinstance(fields.get("preprocessing"), dict) and "tokenizer_file" in fields["preprocessing"]
        checks = _COMMON | (_OF_TEXT if of_text else _OF_IMAGES)
        wrong = [name for name, check in checks.items() if name not in fields or not check(fields[name])]
        if wrong or set(fields) != set(checks):
            named = wrong or sorted(set(fields) - set(checks))
            raise UserError(f"{source}: damaged, {named[0]} is not what was expected; export the model again")
        own = _text_fields(fields) if of_text else _image_fields(fields)
        return cls(**fields | own | {"labels": tuple(fields["labels"])})


def read_device_manifest(folder: Path) -> DeviceManifest:
    """Read the manifest of an exported model. Raises UserError when it is missing or malformed."""
    path = folder / DEVICE_MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{folder}: no exported model here; expected a folder with {DEVICE_MANIFEST}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); export the model again") from None
    return DeviceManifest.from_json(text, str(path))


def _image_fields(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "preprocessing": ImagePreprocessing.from_dict(fields["preprocessing"]),
        "check": ExportCheck(**fields["check"]),
        "footprint": DeviceFootprint(**fields["footprint"]),
    }


def _text_fields(fields: dict[str, Any]) -> dict[str, Any]:
    record = fields["preprocessing"]
    return {
        "preprocessing": DeviceText(**record | {"stops": tuple(record["stops"])}),
        "check": TextExportCheck(**fields["check"]),
        "footprint": TextFootprint(**fields["footprint"]),
    }


def _text(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _numbers(kind: type) -> Callable[[Any], bool]:
    """Return a check for an object that has the fields of the dataclass `kind`, each of its type."""
    types = {name: field.type for name, field in kind.__dataclass_fields__.items()}  # type: ignore[attr-defined]

    def fits(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and set(value) == set(types)
            and all(
                type(value[name]) in ((int, float) if wanted is float else (wanted,)) for name, wanted in types.items()
            )
        )

    return fits


def _is_token(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_text(value: dict[str, Any]) -> bool:
    return (
        set(value) == set(DeviceText.__dataclass_fields__)
        and _text(_TOKENIZER_FILE)(value["tokenizer_file"])
        and _text(_SHA256)(value["tokenizer_sha256"])
        and (value["separator"] is None or _is_token(value["separator"]))
        and isinstance(value["stops"], list)
        and all(map(_is_token, value["stops"]))
        and type(value["context"]) is int
        and value["context"] >= 2
    )


_COMMON: dict[str, Callable[[Any], bool]] = {
    "format": lambda value: value == FORMAT,
    "precision": lambda value: value in get_args(Precision),
    "model_file": _text(_MODEL_FILE),
    "model_sha256": _text(_SHA256),
    "personal": _text(_SHA256),
}
_OF_IMAGES: dict[str, Callable[[Any], bool]] = {
    "preprocessing": lambda value: isinstance(value, dict),
    "labels": lambda value: isinstance(value, list) and len(value) > 0 and all(isinstance(v, str) for v in value),
    "check": _numbers(ExportCheck),
    "footprint": _numbers(DeviceFootprint),
}
_OF_TEXT: dict[str, Callable[[Any], bool]] = {
    "preprocessing": _is_text,
    "labels": lambda value: value == [],
    "check": _numbers(TextExportCheck),
    "footprint": _numbers(TextFootprint),
}
