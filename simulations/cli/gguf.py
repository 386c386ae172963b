"""`fedsieve export --format gguf`: a language model for llama.cpp."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from personalization.errors import UserError

if TYPE_CHECKING:
    from personalization.model_files.source_model import SourceModel


def export_to_gguf(
    read: "Callable[[], SourceModel]", data: Path | None, out: Path, *, int8: str, as_json: bool
) -> None:
    """Write a model as GGUF and say what was written. read: returns the model. Raises UserError."""
    from personalization.export.gguf_export import export_gguf
    from simulations.report.units import format_bytes

    if data is not None:
        raise UserError("--data: a GGUF file is checked by reading it again, not on samples; leave it out")
    if int8 == "static":
        raise UserError("--int8 static: takes ranges from images; a GGUF file is of --int8 dynamic or none")
    record = export_gguf(read(), out, precision="fp32" if int8 == "none" else "int8")
    if as_json:
        typer.echo(json.dumps(asdict(record), indent=2))
    else:
        typer.echo(
            f"{out}: saved, {format_bytes(record.bytes)}; {record.tensors} tensors read back, at most "
            f"{record.difference:.2%} of a tensor's largest weight away"
        )
