"""`fedsieve export`: what it is told, and what it says of an ONNX file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

if TYPE_CHECKING:
    from personalization.device.manifest import DeviceManifest, Precision

Int8 = Literal["none", "dynamic", "static"]

SourceArgument = Annotated[
    Path,
    typer.Argument(
        help="Folder of a personal model, or of a dense one (config.json; `smollm2` for that model); or the state of a "
        "node that joined."
    ),
]
OutOption = Annotated[Path, typer.Option(help="Folder for the exported model; with --format gguf a file.")]
DataOption = Annotated[
    Path | None,
    typer.Option(
        help="This device's images, to check the export on: a folder, or class folders; its text, for a language "
        "model. Not for --format gguf."
    ),
]
FormatOption = Annotated[
    Literal["onnx", "gguf"],
    typer.Option(
        "--format",
        help="`onnx` runs with `fedsieve predict`; `gguf`, for language models whose layers are all of one size, "
        "with llama.cpp.",
    ),
]
Int8Option = Annotated[
    Int8,
    typer.Option(
        help="8-bit weights: `dynamic` scales activations as the model runs, `static` by their range on --data "
        "(images only); `none` exports 32-bit numbers."
    ),
]


def precision_of(int8: Int8) -> "Precision":
    """Return what the manifest of an export calls a choice of `--int8`."""
    names: dict[Int8, Precision] = {"none": "fp32", "dynamic": "int8-dynamic", "static": "int8-static"}
    return names[int8]


def show_export(manifest: "DeviceManifest", out: Path, *, as_json: bool) -> None:
    """Print what was exported to `out`."""
    from simulations.report.device import export_table

    if as_json:
        typer.echo(manifest.to_json(), nl=False)
        return
    Console().print(export_table(manifest))
    sample = "IMAGE" if manifest.labels else '--prompt "..."'
    typer.echo(f"{out}: saved; try it with: fedsieve predict {out} {sample}")
