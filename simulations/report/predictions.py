"""What `fedsieve predict` prints. It is shown on devices too, where Rich is but the packages of reports are not."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from simulations.report.units import format_figure


def predictions_table(predictions: Sequence[Mapping[str, Any]]) -> Table:
    """Return one row for each file: its name, the most likely class and its probability."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("file", overflow="fold")
    table.add_column("class")
    table.add_column("probability", justify="right")
    for prediction in predictions:
        probability = format_figure(prediction["probability"], "share")
        table.add_row(prediction["file"], prediction["class"], probability)
    return table


def scores_table(scores: Sequence[Mapping[str, Any]]) -> Table:
    """Return one row for each file of text: its name, tokens, perplexity, and bits per token and per byte."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("file", overflow="fold")
    for name in ("tokens", "perplexity", "bits per token", "bits per byte"):
        table.add_column(name, justify="right")
    for score in scores:
        table.add_row(
            score["file"],
            f"{score['tokens']:,}",
            format_figure(score["perplexity"], "perplexity"),
            format_figure(score["bits_per_token"], "bits"),
            format_figure(score["bits_per_byte"], "bits"),
        )
    return table
