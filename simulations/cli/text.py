"""`fedsieve predict` with a language model: how it goes on from a prompt, and how well it predicts files of text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from personalization.continuation import Generation
from personalization.device import DEVICE_MANIFEST


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
