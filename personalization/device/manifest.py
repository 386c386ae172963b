"""The manifest beside an exported model: which file it is, how it was checked, what it costs, what it takes."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from personalization.device import DEVICE_MANIFEST
from personalization.device.footprint import DeviceFootprint
from personalization.errors import UserError
from personalization.images import ImagePreprocessing

FORMAT = 1
Precision = Literal["fp32", "int8-dynamic", "int8-static"]

_MODEL_FILE = re.compile(r"model-[0-9a-f]{16}\.onnx")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class ExportCheck:
    """How close an export stayed to torch on the client's own samples, and how close it had to.

    disagreements: samples whose most likely class differs. difference: largest difference between two probabilities of
    the same class and sample. The two `_allowed` are the most that would have been let through.
    """

    samples: int
    disagreements: int
    disagreements_allowed: int
    difference: float
    difference_allowed: float

    @property
    def passed(self) -> bool:
        """Say whether the export may take the place of an older one."""
        return self.disagreements <= self.disagreements_allowed and self.difference <= self.difference_allowed


@dataclass(frozen=True, kw_only=True)
class DeviceManifest:
    """All that a device needs to run an exported model.

    personal: SHA-256 of the weights of the personal model that was exported. preprocessing: of images. labels: names of
    the classes, in the order of the logits.
    """

    precision: Precision
    model_file: str
    model_sha256: str
    personal: str
    preprocessing: ImagePreprocessing
    labels: tuple[str, ...]
    check: ExportCheck
    footprint: DeviceFootprint
    format: int = FORMAT

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
        wrong = [name for name, check in _CHECKS.items() if name not in fields or not check(fields[name])]
        if wrong or set(fields) != set(_CHECKS):
            named = wrong or sorted(set(fields) - set(_CHECKS))
            raise UserError(f"{source}: damaged, {named[0]} is not what was expected; export the model again")
        return cls(
            **fields
            | {
                "preprocessing": ImagePreprocessing.from_dict(fields["preprocessing"]),
                "labels": tuple(fields["labels"]),
                "check": ExportCheck(**fields["check"]),
                "footprint": DeviceFootprint(**fields["footprint"]),
            }
        )


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


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "format": lambda value: value == FORMAT,
    "precision": lambda value: value in get_args(Precision),
    "model_file": _text(_MODEL_FILE),
    "model_sha256": _text(_SHA256),
    "personal": _text(_SHA256),
    "preprocessing": lambda value: isinstance(value, dict),
    "labels": lambda value: isinstance(value, list) and len(value) > 0 and all(isinstance(v, str) for v in value),
    "check": _numbers(ExportCheck),
    "footprint": _numbers(DeviceFootprint),
}
