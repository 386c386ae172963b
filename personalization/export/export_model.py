"""Export a model for a device: ONNX, checked against torch on the client's own samples, and measured.

The model file is named after its hash and the manifest names it, so putting the new manifest in place is the one step
that makes a new export valid: whatever fails before it, an export that was there stays what `fedsieve predict` uses.
"""

import contextlib
import hashlib
from pathlib import Path

from personalization.data.texts import TextPreprocessing
from personalization.device import DEVICE_MANIFEST
from personalization.device.footprint import (
    DeviceFootprint,
    TextFootprint,
    measure_device_footprint,
    measure_text_footprint,
)
from personalization.device.manifest import DeviceManifest, DeviceText, Precision, read_device_manifest
from personalization.errors import UserError
from personalization.export.exported import Exported
from personalization.export.image_export import export_classifier
from personalization.export.text_export import export_language_model
from personalization.model_files.source_model import SourceModel, read_source_model
from personalization.system.files import remove_temporary, write_atomically


def export_folder(folder: Path, data: Path, out: Path, *, precision: Precision) -> DeviceManifest:
    """Export the model in `folder`, personal or dense, to `out`, checked on the client's samples in `data`.

    data: a folder of images, class folders, or an .npz file; for a language model a folder of text. Returns the
    manifest that was written. Raises UserError if the model, a sample or the folder is not what it should be, or the
    export is too far from torch; an export that was in `out` before is then kept.
    """
    _check_folder(out)
    return export_source(read_source_model(folder), data, out, precision=precision)


def export_source(source: SourceModel, data: Path, out: Path, *, precision: Precision) -> DeviceManifest:
    """Export a model that is in memory, as `export_folder` does."""
    _check_folder(out)
    preprocessing = source.preprocessing
    if preprocessing is None:
        raise UserError(
            f"{source.name}: neither an image classifier nor a language model with its tokenizer.json; expected one of "
            "them"
        )
    if isinstance(preprocessing, TextPreprocessing):
        exported = export_language_model(source, preprocessing, data, precision=precision)
    else:
        exported = export_classifier(source, preprocessing, data, precision=precision)
    return _write(out, exported, precision=precision, identifier=source.identifier)


def _check_folder(out: Path) -> None:
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / DEVICE_MANIFEST).is_file())):
        raise UserError(f"{out}: holds something else; choose a new folder, or that of an earlier export")


def _write(out: Path, exported: Exported, *, precision: Precision, identifier: str) -> DeviceManifest:
    digest = hashlib.sha256(exported.graph).hexdigest()
    path = out / f"model-{digest[:16]}.onnx"
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, exported.graph)
        if isinstance(exported.preprocessing, DeviceText):
            assert exported.tokenizer is not None
            write_atomically(out / exported.preprocessing.tokenizer_file, exported.tokenizer)
        manifest = DeviceManifest(
            precision=precision,
            model_file=path.name,
            model_sha256=digest,
            personal=identifier,
            preprocessing=exported.preprocessing,
            labels=exported.labels,
            check=exported.check,
            footprint=_footprint(path, exported),
        )
        write_atomically(out / DEVICE_MANIFEST, manifest.to_json().encode())
    except OSError as error:
        raise UserError(f"{out}: the export was not saved ({error.strerror or error}); an older one is kept") from None
    finally:
        _remove_unnamed(out)
    return manifest


def _footprint(path: Path, exported: Exported) -> DeviceFootprint | TextFootprint:
    text = exported.preprocessing
    if isinstance(text, DeviceText):
        return measure_text_footprint(path, path.with_name(text.tokenizer_file), context=text.context)
    return measure_device_footprint(path)


def _remove_unnamed(out: Path) -> None:
    """Remove files that the manifest in place does not name; what cannot be removed is left to the next export."""
    with contextlib.suppress(OSError, UserError):
        remove_temporary(out)
        named = read_device_manifest(out).files if (out / DEVICE_MANIFEST).exists() else frozenset[str]()
        for path in (*out.glob("model-*.onnx"), *out.glob("tokenizer-*.json")):
            if path.name not in named:
                path.unlink(missing_ok=True)
