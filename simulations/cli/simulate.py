"""`fedsieve simulate`."""

import json
import math
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from personalization.errors import UserError
from personalization.system.option_groups import grouped
from simulations.cli.fleet_options import DataOptions, FleetOptions, LearningOptions, NoiseOptions, RunOptions
from simulations.cli.options import CuttingOptions, JsonOption, RecoveryOptions, TextOptions, spare_threads


@grouped
def simulate(
    size: FleetOptions,
    data: DataOptions,
    text: TextOptions,
    cutting: CuttingOptions,
    recovery: RecoveryOptions,
    learning: LearningOptions,
    noise: NoiseOptions,
    run: RunOptions,
    as_json: JsonOption = False,
) -> None:
    """Simulate a fleet: rounds of statistics, then a personal model for every device, and a report."""
    settings: dict[str, Any] = {}
    for group in (size, data, text, cutting, recovery, learning, noise, run):
        settings |= asdict(group)
    settings["out"] = _run_folder(run.out, resume=run.resume)
    spare_threads(data.model)

    from simulations.fleet import run_fleet
    from simulations.fleet_settings import FleetSettings
    from simulations.report.files import write_files
    from simulations.report.progress import RoundProgress
    from simulations.report.tables import clients_table, summary_table

    fleet = FleetSettings(**settings)
    answers = size.rounds * max(1, math.ceil(size.fraction * size.clients)) + size.clients
    with RoundProgress(Console(stderr=True), rounds=size.rounds + 1, answers=answers) as progress:
        result = run_fleet(fleet, on_round=progress.show, on_answer=progress.answered, on_judged=progress.judged)
    report = write_files(result, fleet.out)
    if as_json:
        typer.echo(json.dumps({"out": str(fleet.out), "summary": report["summary"]}, indent=2))
    else:
        Console().print(summary_table(report), clients_table(report))
        typer.echo(f"{fleet.out / 'report.html'}: the figures of this run; report.json beside it: the numbers")


def _run_folder(out: Path | None, *, resume: bool) -> Path:
    if resume and out is None:
        raise UserError("--resume needs --out, the folder of the run to go on with")
    folder = out or Path("runs") / f"{datetime.now():%Y-%m-%dT%H-%M-%S}"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file; expected a folder for this run")
    if resume and not folder.exists():
        raise UserError(f"{folder}: no run to resume here; leave out --resume to start one")
    if not resume and folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: holds another run; choose another folder, or continue that run with --resume")
    return folder
