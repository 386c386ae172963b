"""`fedsieve compare`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from simulations.cli.ending import stop
from simulations.cli.options import JsonOption, spare_threads


def compare(
    strategies: Annotated[
        str,
        typer.Option(
            help="Strategies with commas between, each [PRE+]NAME[:KEY=VALUE...][+POST], for instance "
            "`median,nnm+krum:attackers=2`. Differences are from the first."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for cells, results and page; with the same one a comparison goes on.")
    ],
    arms: Annotated[
        str, typer.Option(help="Reference arms with commas between, `all` or `none`.")
    ] = "dense,local-only,one-cut,uniform,depth-linear",
    scenario: Annotated[
        str,
        typer.Option(
            help="A TOML file, or a bundled scenario: benign, non-iid, nearly-iid, attack, drift, dropout, devices, "
            "late-joiners, or speakers, which is text."
        ),
    ] = "benign",
    sweep: Annotated[
        list[str] | None,
        typer.Option(help="SETTING=VALUE,VALUE: run each value; can be repeated, for all combinations."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds that everything is run with.")] = 5,
    first_seed: Annotated[int, typer.Option(help="The first seed; the others follow.")] = 0,
    jobs: Annotated[int | None, typer.Option(help="Cells at a time.", show_default="processors")] = None,
    engine: Annotated[
        str, typer.Option(help="`processes` on this machine, or `ray`: on the cluster at RAY_ADDRESS, or here.")
    ] = "processes",
    as_json: JsonOption = False,
) -> None:
    """Compare strategies and reference arms on the same fleets and seeds: intervals, costs, and a page of figures."""
    spare_threads(None)

    from simulations.comparison.command import compare as run
    from simulations.report.comparison.table import comparison_tables, failed_lines

    summary = run(
        strategies=strategies,
        arms=arms,
        scenario=scenario,
        sweeps=sweep or [],
        seeds=seeds,
        first_seed=first_seed,
        jobs=jobs,
        engine=engine,
        out=out,
        console=Console(stderr=True),
    )
    failed = len(failed_lines(summary))
    if as_json:
        typer.echo(json.dumps({"out": str(out), "summary": summary}, indent=2))
    else:
        Console().print(*comparison_tables(summary))
        if (out / "report.html").exists():
            typer.echo(f"{out / 'report.html'}: the figures; results.csv and summary.json beside it: the numbers")
    if failed:
        stop(f"{failed} cells failed; the same command tries them again, and only them", code=1)
