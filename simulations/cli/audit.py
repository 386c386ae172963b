"""`fedsieve audit`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from simulations.cli.ending import stop
from simulations.cli.options import JsonOption, SeedOption


def audit(
    recording: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run that was made with `simulate --record`, or what `join --record` wrote. Either may "
            "still be going on."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for audit.json, audit.html and messages.jsonl.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="The device's own images or text: they, their file names and class folders are looked for in all that "
            "left."
        ),
    ] = None,
    search: Annotated[
        list[Path] | None,
        typer.Option(help="File or folder that others can see, such as a log or the server's folder; can be repeated."),
    ] = None,
    attacks: Annotated[
        bool,
        typer.Option(
            "--attacks",
            help="Also attack uplinks like these, to see what statistics and sums give away: shadow fleets are "
            "simulated and attackers trained on them, which takes long.",
        ),
    ] = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Decode every byte that left the devices, and look for private data in it.

    For instance: fedsieve audit runs/mine --out runs/mine-audit

    Exit code 0: every byte is explained and nothing private was found. 1: something is wrong; what and where is said.
    2: there is nothing to audit.
    """
    from personalization.system.files import write_atomically
    from simulations.audit.run import AuditSettings, run_audit
    from simulations.report.audit.page import write_audit
    from simulations.report.audit.table import audit_tables, finding_lines
    from simulations.report.audit.words import headline, search_lines

    console = Console(stderr=True)
    settings = AuditSettings(source=recording, out=out, data=data, search=tuple(search or ()))
    with console.status("") as status:
        tell = status.update if console.is_terminal else _once(console.out)
        found = run_audit(settings, on_progress=tell)
        if attacks:
            from simulations.inference.run import InferenceSettings, run_inference

            found["inference"] = run_inference(
                InferenceSettings(seed=seed), on_progress=lambda stage, done, of: tell(_stage(console, stage, done, of))
            )
    write_atomically(out / "audit.json", json.dumps(found, indent=1, allow_nan=False).encode())
    write_audit(found, out / "audit.html")
    if as_json:
        typer.echo(json.dumps({"out": str(out), **found}, indent=2))
    else:
        Console().print(*audit_tables(found))
        for line in (headline(found), *search_lines(found["search"])):
            typer.echo(line)
        typer.echo(f"{out / 'audit.html'}: every field; audit.json and messages.jsonl beside it: the numbers")
    if found["verdict"] != "clean":
        for line in finding_lines(found):
            console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
        stop("the audit failed", code=1)


def _once(show: Callable[[str], None]) -> Callable[[str], None]:
    """Return what shows a line unless it is the one before: a stage of many steps is one line in a log."""
    shown = [""]

    def tell(line: str) -> None:
        if line != shown[0]:
            shown[0] = line
            show(line)

    return tell


def _stage(console: Console, stage: str, done: int, of: int) -> str:
    return f"{stage}: {done} of {of}" if console.is_terminal else stage
