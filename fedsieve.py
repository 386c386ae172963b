"""The command line: simulate a fleet, compare strategies, personalize one device, predict, enrol edge devices, audit
what leaves them.

Heavy packages are imported inside the commands, so that `fedsieve --help` answers at once.
"""

import errno
import json
import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import typer
from rich.console import Console
from typer.core import TyperGroup

from deployment.cli import enroll
from deployment.join_cli import KeyEnvironmentOption, KeyFileOption, KeyringOption, join, vault
from deployment.serve_cli import serve
from personalization.continuation import Generation
from personalization.device import DEVICE_MANIFEST
from personalization.errors import UserError
from personalization.texts import TEXT_SUFFIXES
from simulations.cli.audit import audit
from simulations.cli.compare import compare
from simulations.cli.ending import stop
from simulations.cli.gguf import export_to_gguf
from simulations.cli.options import JsonOption, SeedOption
from simulations.cli.personalize import personalize
from simulations.cli.simulate import simulate
from simulations.cli.text import predict_text

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
            stop(f"error: {missing}: not installed, and this needs it; pip install 'fedsieve[{extra}]'", code=2)
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


def export(
    model_folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of a personal model, or of a dense one (config.json); or the state of a node that joined."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the exported model; with --format gguf a file.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="This device's images, to check the export on: a folder, or class folders; its text, for a language "
            "model. Not for --format gguf."
        ),
    ] = None,
    file_format: Annotated[
        Literal["onnx", "gguf"],
        typer.Option(
            "--format",
            help="`onnx` runs with `fedsieve predict`; `gguf`, for language models whose layers are all of one size, "
            "with llama.cpp.",
        ),
    ] = "onnx",
    int8: Annotated[
        Literal["none", "dynamic", "static"],
        typer.Option(
            help="8-bit weights: `dynamic` scales activations as the model runs, `static` by their range on --data "
            "(images only); `none` exports 32-bit numbers."
        ),
    ] = "dynamic",
    vault_key_file: KeyFileOption = None,
    vault_keyring: KeyringOption = None,
    vault_env: KeyEnvironmentOption = False,
    as_json: JsonOption = False,
) -> None:
    """Export a model to ONNX, for devices without torch; checked against torch on the device's own images or text.

    A state that is encrypted is opened with the key that it was last joined with; what is exported is not encrypted.
    """
    from deployment.join.layout import is_state
    from personalization.device.manifest import Precision
    from simulations.report.device import export_table

    precisions: dict[str, Precision] = {"none": "fp32", "dynamic": "int8-dynamic", "static": "int8-static"}
    precision = precisions[int8]
    if file_format == "gguf":
        _refuse_key(model_folder, vault_key_file, vault_keyring, vault_env)
        export_to_gguf(model_folder, data, out, int8=int8, as_json=as_json)
        return
    if data is None:
        raise UserError("--data: missing; give this device's images or text, which the export is checked on")
    if is_state(model_folder):
        from deployment.join.stored import export_from_state
        from deployment.join.vault_choice import choose_vault

        choice = choose_vault(key_file=vault_key_file, keyring=vault_keyring, environment=vault_env)
        manifest = export_from_state(
            model_folder, data, out, precision=precision, choice=choice, environment=os.environ
        )
    else:
        from personalization.export import export_folder

        _refuse_key(model_folder, vault_key_file, vault_keyring, vault_env)
        manifest = export_folder(model_folder, data, out, precision=precision)
    if as_json:
        typer.echo(manifest.to_json(), nl=False)
    else:
        Console().print(export_table(manifest))
        sample = "IMAGE" if manifest.labels else '--prompt "..."'
        typer.echo(f"{out}: saved; try it with: fedsieve predict {out} {sample}")


def predict(
    model_folder: Annotated[
        Path, typer.Argument(help="Folder of a personal model, of an exported one, or the state of a node that joined.")
    ],
    files: Annotated[
        list[Path] | None, typer.Argument(help="Image files; for a language model, files of text to score.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Text that a language model goes on from.")] = None,
    tokens: Annotated[int, typer.Option(help="Most tokens to go on for.")] = 60,
    temperature: Annotated[
        float, typer.Option(help="0 always takes the likeliest token; higher is more varied.")
    ] = 0.0,
    top_k: Annotated[int, typer.Option(help="Draw from so many of the likeliest tokens; 0: from all.")] = 50,
    top_p: Annotated[
        float, typer.Option(help="Draw from the likeliest tokens that together are this likely; 1: from all.")
    ] = 1.0,
    seed: SeedOption = 0,
    vault_key_file: KeyFileOption = None,
    vault_keyring: KeyringOption = None,
    vault_env: KeyEnvironmentOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a personal model sees on images: file, class, probability. An exported model needs no torch.

    A language model goes on from --prompt, and scores files of text: perplexity of each.

    A state that is encrypted is opened with the key that it was last joined with; `fedsieve join` may be running.
    """
    from deployment.join.layout import is_state
    from simulations.report.predictions import predictions_table

    images = files or []
    if prompt is not None or (images and all(file.suffix.lower() in TEXT_SUFFIXES for file in images)):
        settings = Generation(tokens=tokens, temperature=temperature, seed=seed, top_k=top_k, top_p=top_p)
        speak = None
        if is_state(model_folder):
            from deployment.join.stored import predict_text_from_state
            from deployment.join.vault_choice import choose_vault

            choice = choose_vault(key_file=vault_key_file, keyring=vault_keyring, environment=vault_env)
            speak = partial(predict_text_from_state, choice=choice, environment=os.environ)
        else:
            _refuse_key(model_folder, vault_key_file, vault_keyring, vault_env)
        predict_text(model_folder, images, prompt, settings, speak=speak, as_json=as_json)
        return
    if not images:
        raise UserError("nothing to predict: give image files, or for a language model --prompt or files of text")
    exported = (model_folder / DEVICE_MANIFEST).is_file()
    if not exported and is_state(model_folder):
        from deployment.join.stored import predict_from_state
        from deployment.join.vault_choice import choose_vault

        choice = choose_vault(key_file=vault_key_file, keyring=vault_keyring, environment=vault_env)
        predictions = predict_from_state(model_folder, images, choice, os.environ)
    else:
        _refuse_key(model_folder, vault_key_file, vault_keyring, vault_env)
        if exported:
            from personalization.device.predict import predict_files
        else:
            from simulations.device import predict_files
        predictions = predict_files(model_folder, images)
    if as_json:
        typer.echo(json.dumps(predictions, indent=2))
    else:
        Console().print(predictions_table(predictions))


def _refuse_key(folder: Path, *options: Path | str | bool | None) -> None:
    if any(options):
        raise UserError(f"{folder}: not the state of a node, so there is no key; leave out the --vault options")


for command in (simulate, compare, personalize, export, predict, enroll, serve, join, vault, audit):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
