"""`fedsieve personalize`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from personalization.data.tasks import TextBatch
from personalization.errors import UserError
from personalization.settings import PersonalizationSettings
from personalization.system.option_groups import grouped
from simulations.cli.options import (
    CuttingOptions,
    JsonOption,
    ModelOption,
    RecoveryOptions,
    SeedOption,
    TextOptions,
    spare_threads,
)


@grouped
def personalize(
    data: Annotated[
        Path,
        typer.Option(
            help="This device's images: a folder, or class folders if there are labels. Or its text: a folder of .txt "
            "or .jsonl files."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the personal model.")],
    text: TextOptions,
    cutting: CuttingOptions,
    recovery: RecoveryOptions,
    model: ModelOption = None,
    prior: Annotated[
        Path | None, typer.Option(help="report.json of a fleet with the same model: start from what the fleet knows.")
    ] = None,
    equal_layers: Annotated[
        bool,
        typer.Option(
            "--equal-layers",
            help="Keep as many heads, and as many channels, in every layer: costs more than to choose freely, and lets "
            "a language model be exported as GGUF.",
        ),
    ] = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Cut a personal model for one device from its own images or text, without a fleet."""
    batch = TextBatch(windows=text.windows, tokens=text.window_tokens)
    settings = PersonalizationSettings(
        **asdict(cutting), **asdict(recovery), equal_layers=equal_layers, vocabulary=text.vocabulary or 0, seed=seed
    )
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / "manifest.json").is_file())):
        raise UserError(f"{out}: holds something else; choose a new folder, or that of an earlier personal model")
    spare_threads(model)

    from simulations.device import personalize_folder
    from simulations.report.device import footprint_table, headline, layers_table

    report = personalize_folder(
        data,
        out,
        model=model,
        prior=prior,
        settings=settings,
        task=text.task,
        batch=batch,
    )
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        Console().print(layers_table(report), footprint_table(report), headline(report))
        what = {"image": "IMAGE", "text": '--prompt "..."'}[report["task"]]
        typer.echo(f"{out}: saved; try it with: fedsieve predict {out} {what}")
