"""`fedsieve predict` with a language model: how it goes on from a prompt, and how well it predicts files of text."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from personalization.data.texts import TEXT_SUFFIXES
from personalization.device import DEVICE_MANIFEST
from personalization.prediction.continuation import Generation
from simulations.cli.options import SeedOption


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How a language model goes on from a prompt."""

    tokens: Annotated[int, typer.Option(help="Most tokens to go on for.")] = 60
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token; higher is more varied.")] = 0.0
    top_k: Annotated[int, typer.Option(help="Draw from so many of the likeliest tokens; 0: from all.")] = 50
    top_p: Annotated[
        float, typer.Option(help="Draw from the likeliest tokens that together are this likely; 1: from all.")
    ] = 1.0
    seed: SeedOption = 0

    def settings(self) -> Generation:
        """Return the same, checked. Raises UserError."""
        return Generation(**asdict(self))


def are_texts(files: Sequence[Path]) -> bool:
    """Say whether these are files of text, by their names."""
    return bool(files) and all(file.suffix.lower() in TEXT_SUFFIXES for file in files)


def predict_text(
    folder: Path,
    files: list[Path],
    prompt: str | None,
    settings: Generation,
    *,
    speak: Callable[..., dict[str, Any]] | None = None,
    as_json: bool,
) -> None:
    """Predict with the personal or the exported model in a folder, and print what came of it. Raises UserError.

    speak: does so for a folder that holds neither, but the state of a node.
    """
    from simulations.report.predictions import scores_table

    own = speak or _speaker(folder)
    found = own(folder, prompt=prompt, files=files, settings=settings)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    if prompt is not None:
        typer.echo(prompt + found["continuation"])
    if files:
        Console().print(scores_table(found["scores"]))


def _speaker(folder: Path) -> Callable[..., dict[str, Any]]:
    """Return what predicts with the model in a folder: of an exported one without torch."""
    if (folder / DEVICE_MANIFEST).is_file():
        from personalization.device.text import predict_text as on_device

        return on_device
    from simulations.device import predict_text as with_torch

    return with_torch
