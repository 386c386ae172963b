"""How a command ends that can't do what was asked: one line, and an exit code."""

from typing import NoReturn

import typer
from rich.console import Console


def stop(line: str, *, code: int) -> NoReturn:
    """Print one line to standard error and end with `code`."""
    Console(stderr=True).print(" ".join(line.split()), style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)
