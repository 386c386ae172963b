"""`fedsieve predict` with a language model: how it goes on from a prompt, and how well it predicts files of text."""

import json
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from personalization.continuation import Generation
from personalization.device import DEVICE_MANIFEST


def predict_text(folder: Path, files: list[Path], prompt: str | None, settings: Generation, *, as_json: bool) -> None:
    """Predict with the personal or the exported model in a folder, and print what came of it. Raises UserError."""
    if (folder / DEVICE_MANIFEST).is_file():
        from personalization.device.text import predict_text as speak
    else:
        from simulations.device import predict_text as speak
    found = speak(folder, prompt=prompt, files=files, settings=settings)
    show_text(found, as_json=as_json)


def show_text(found: dict[str, Any], *, as_json: bool) -> None:
    """Print what a language model said: `scores` of files, and a `prompt` with its `continuation` if there was one."""
    from simulations.report.predictions import scores_table

    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    if "prompt" in found:
        typer.echo(found["prompt"] + found["continuation"])
    if found["scores"]:
        Console().print(scores_table(found["scores"]))
