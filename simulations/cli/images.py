"""`fedsieve predict` with a classifier of images: what is printed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.console import Console

from simulations.report.predictions import predictions_table


def show_predictions(predictions: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print file, class and probability of each prediction."""
    if as_json:
        typer.echo(json.dumps(predictions, indent=2))
    else:
        Console().print(predictions_table(predictions))
