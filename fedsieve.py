"""The command line: simulate a fleet, compare strategies, personalize one device, predict, enrol edge devices, audit
what leaves them.

Heavy packages are imported inside the commands, so that `fedsieve --help` answers at once.
"""

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer
from typer.core import TyperGroup

from deployment.cli import enroll
from deployment.join.layout import is_state
from deployment.join.options import KeyOptions
from deployment.join_cli import join, vault
from deployment.serve_cli import serve
from personalization.device import DEVICE_MANIFEST
from personalization.errors import UserError
from personalization.system.allocator import give_memory_back
from personalization.system.extras import install
from personalization.system.option_groups import grouped
from simulations.cli.audit import audit
from simulations.cli.compare import compare
from simulations.cli.ending import stop
from simulations.cli.export import (
    DataOption,
    FormatOption,
    Int8Option,
    OutOption,
    SourceArgument,
    precision_of,
    show_export,
)
from simulations.cli.gguf import export_to_gguf
from simulations.cli.images import show_predictions
from simulations.cli.options import JsonOption
from simulations.cli.personalize import personalize
from simulations.cli.simulate import simulate
from simulations.cli.text import GenerationOptions, are_texts, predict_text

if TYPE_CHECKING:
    from personalization.device.manifest import DeviceManifest
    from personalization.model_files.source_model import SourceModel

# What a disk or its permissions refuse is the user's to mend; any other OSError is a fault of ours.
_REFUSED = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)
# What the extra `fleet` brings, and `device` does not.
_FLEET_PACKAGES = frozenset(
    {
        "cryptography",
        "fastapi",
        "flwr",
        "httpx",
        "onnx",
        "plotly",
        "prometheus_client",
        "ray",
        "safetensors",
        "torch",
        "transformers",
        "uvicorn",
    }
)
# What a device needs, and the extra that brings it: a language model needs more than a classifier.
_DEVICE_PACKAGES = {"onnxruntime": "device", "tokenizers": "device-text"}


class Commands(TyperGroup):
    """Turns a user's mistake into one line and exit code 2, wherever in a command it is found."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; see the class."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            stop(f"error: {error}", code=2)
        except KeyboardInterrupt as interrupt:
            stop(str(interrupt) or "interrupted", code=130)
        except ModuleNotFoundError as error:
            missing = (error.name or "").split(".")[0]
            extra = "fleet" if missing in _FLEET_PACKAGES else _DEVICE_PACKAGES.get(missing)
            if extra is None:
                raise
            stop(f"error: {missing}: not installed, and this needs it; {install(extra)}", code=2)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            stop(f"error: {error.filename or 'writing'}: {error.strerror}; nothing that was saved is lost", code=2)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Give every device its own small transformer; only sparsity statistics leave a device.",
)


@grouped
def export(
    *,
    model_folder: SourceArgument,
    out: OutOption,
    data: DataOption = None,
    file_format: FormatOption = "onnx",
    int8: Int8Option = "dynamic",
    key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """Export a model to ONNX, for devices without torch; checked against torch on the device's own images or text.

    A state that is encrypted is opened with the key that it was last joined with; what is exported is not encrypted.
    """
    if file_format == "gguf":
        export_to_gguf(_source(model_folder, key), data, out, int8=int8, as_json=as_json)
        return
    if data is None:
        raise UserError("--data: missing; give this device's images or text, which the export is checked on")
    exported = _exporter(model_folder, key)(model_folder, data, out, precision=precision_of(int8))
    show_export(exported, out, as_json=as_json)


@grouped
def predict(
    *,
    model_folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of a personal model, of an exported or a dense one (config.json; `smollm2` for that model), "
            "or the state of a node that joined."
        ),
    ],
    files: Annotated[
        list[Path] | None, typer.Argument(help="Image files; for a language model, files of text to score.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Text that a language model goes on from.")] = None,
    generation: GenerationOptions,
    key: KeyOptions,
    as_json: JsonOption = False,
) -> None:
    """Say what a model sees on images: file, class, probability. An exported model needs no torch.

    A language model goes on from --prompt, and scores files of text: perplexity of each.

    A state that is encrypted is opened with the key that it was last joined with; `fedsieve join` may be running.
    """
    given = files or []
    if prompt is None and generation != GenerationOptions():
        raise UserError(
            "--prompt: missing; --tokens, --temperature, --top-k, --top-p and --seed say how to go on from one"
        )
    if prompt is not None or are_texts(given):
        settings = generation.settings()
        predict_text(model_folder, given, prompt, settings, speak=_speaker(model_folder, key), as_json=as_json)
    elif given:
        show_predictions(_classifier(model_folder, key)(model_folder, given), as_json=as_json)
    else:
        raise UserError("nothing to predict: give image files, or for a language model --prompt or files of text")


def _exporter(folder: Path, key: KeyOptions) -> Callable[..., "DeviceManifest"]:
    """Return what exports the model in a folder, or in the state of a node. Raises UserError."""
    opened = _opened(folder, key)
    if opened is None:
        from personalization.export.export_model import export_folder

        return export_folder
    from deployment.join.stored import export_from_state

    return partial(export_from_state, **opened)


def _source(folder: Path, key: KeyOptions) -> "Callable[[], SourceModel]":
    """Return what reads the model in a folder, or in the state of a node. Raises UserError."""
    opened = _opened(folder, key)
    if opened is None:
        from personalization.model_files.source_model import read_source_model

        return partial(read_source_model, folder)
    from deployment.join.stored import model_of_state

    return partial(model_of_state, folder, **opened)


def _speaker(folder: Path, key: KeyOptions) -> Callable[..., dict[str, Any]] | None:
    """Return what speaks with the model in the state of a node, None for another folder. Raises UserError."""
    opened = _opened(folder, key)
    if opened is None:
        return None
    from deployment.join.stored import predict_text_from_state

    return partial(predict_text_from_state, **opened)


def _classifier(folder: Path, key: KeyOptions) -> Callable[..., list[dict[str, Any]]]:
    """Return what classifies images with the model in a folder, or in the state of a node. Raises UserError."""
    opened = _opened(folder, key)
    if opened is not None:
        from deployment.join.stored import predict_from_state

        return partial(predict_from_state, **opened)
    if (folder / DEVICE_MANIFEST).is_file():
        from personalization.device.predict import predict_files as on_device

        return on_device
    from simulations.device import predict_files

    return predict_files


def _opened(folder: Path, key: KeyOptions) -> dict[str, Any] | None:
    """Return with what the state of a node is opened, None for a model's folder. Raises UserError for a key to that."""
    if is_state(folder) and not (folder / DEVICE_MANIFEST).is_file():
        return {"choice": key.choice(), "environment": os.environ}
    key.refuse(folder)
    return None


for command in (simulate, compare, personalize, export, predict, enroll, serve, join, vault, audit):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    give_memory_back()
    app()


if __name__ == "__main__":
    main()
