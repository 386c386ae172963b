"""The command line: simulate a fleet, compare strategies, personalize one device, predict, enrol edge devices.

Heavy packages are imported inside the commands, so that `fedsieve --help` answers at once.
"""

import errno
import json
import math
import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import click
import typer
from rich.console import Console
from typer.core import TyperGroup

from deployment.cli import enroll
from deployment.join_cli import KeyEnvironmentOption, KeyFileOption, KeyringOption, join, vault
from deployment.serve_cli import serve
from personalization.device import DEVICE_MANIFEST
from personalization.errors import UserError
from personalization.settings import BudgetKind, PersonalizationSettings, Recovery, Signal, Solver

# What a disk or its permissions refuse is the user's to mend; any other OSError is a fault of ours.
_REFUSED = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)
# What the extra `fleet` brings, and `device` does not.
_FLEET_PACKAGES = frozenset(
    {
        "cryptography",
        "fastapi",
        "flwr",
        "httpx",
        "onnx",
        "plotly",
        "prometheus_client",
        "ray",
        "safetensors",
        "torch",
        "transformers",
        "uvicorn",
    }
)
_DEFAULTS = PersonalizationSettings()


class Commands(TyperGroup):
    """Turns a user's mistake into one line and exit code 2, wherever in a command it is found."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; see the class."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            _stop(f"error: {error}", code=2)
        except KeyboardInterrupt as interrupt:
            _stop(str(interrupt) or "interrupted", code=130)
        except ModuleNotFoundError as error:
            if error.name is None or (missing := error.name.split(".")[0]) not in {*_FLEET_PACKAGES, "onnxruntime"}:
                raise
            extra = "fleet" if missing in _FLEET_PACKAGES else "device"
            _stop(f"error: {missing}: not installed, and this needs it; pip install 'fedsieve[{extra}]'", code=2)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            _stop(f"error: {error.filename or 'writing'}: {error.strerror}; nothing that was saved is lost", code=2)


def _stop(line: str, *, code: int) -> NoReturn:
    Console(stderr=True).print(" ".join(line.split()), style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def _spare_threads(model: str | None) -> None:
    """Call before torch is imported: the bundled model is so small that a second thread costs more than it gives."""
    if model is None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Give every device its own small transformer; only sparsity statistics leave a device.",
)

ModelOption = Annotated[
    str | None,
    typer.Option(help="Pre-trained transformer: a local folder or a Hugging Face name.", show_default="bundled ViT"),
]
BudgetOption = Annotated[
    float, typer.Option(help="Share of the dense model that a personal model may keep, above 0 to 1.")
]
BudgetKindOption = Annotated[
    BudgetKind,
    typer.Option(
        help="What --budget is a share of: the blocks' weights; or the whole model's bytes, multiply-accumulates "
        "(macs), or latency as measured on this machine."
    ),
]
SignalOption = Annotated[
    Signal, typer.Option(help="What a probe measures: the rise in entropy (needs no labels) or in loss (needs labels).")
]
ProbesOption = Annotated[
    int,
    typer.Option(
        help="Probes (masked forward passes) that a device measures each time to learn which layers it needs."
    ),
]
SolverOption = Annotated[
    Solver,
    typer.Option(
        help="How sensitivities are found from few probes: sparse deviation from the fleet's prior, non-negative "
        "lasso, or orthogonal matching pursuit."
    ),
]
StepsOption = Annotated[int, typer.Option(help="In how many steps a model is pruned down to its budget.")]
ToleranceOption = Annotated[
    float, typer.Option(help="Rise in entropy (nats, on held-out private samples) up to which a pruning step is kept.")
]
RecoveryOption = Annotated[
    Recovery,
    typer.Option(
        help="What makes up for a cut: folded means only, closed-form refit (ridge), or that and label-free "
        "training (distill)."
    ),
]
StepProbesOption = Annotated[
    int,
    typer.Option(
        help="Fresh masked forward passes in each step, to see which of the surviving layers matter most; -1: 6 for a "
        "device whose fleet does not know all layers yet, none for others."
    ),
]
AdaptHeadOption = Annotated[
    bool, typer.Option(help="Fit the classifier's bias to how often the device sees each class; needs no labels.")
]
StrategyOption = Annotated[
    str,
    typer.Option(
        help="How the server makes one out of the clients' statistics, [PRE+]NAME[:KEY=VALUE...][+POST]: "
        "for instance `median` or `nnm+median`; docs/strategies.md lists them."
    ),
]
SeedOption = Annotated[int, typer.Option(help="Start of all random numbers; the same seed gives the same result.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for scripts, instead of tables.")]


@app.command()
def simulate(
    clients: Annotated[int, typer.Option(help="Number of simulated devices.")] = 30,
    rounds: Annotated[int, typer.Option(help="Rounds of the fleet before everybody gets a personal model.")] = 3,
    fraction: Annotated[float, typer.Option(help="Share of the devices that take part in a round.")] = 0.3,
    partition: Annotated[
        str,
        typer.Option(
            help="Who holds what: `classes` (a few classes each), `dirichlet` (uneven proportions) or `natural` "
            "(one folder of --data for each device)."
        ),
    ] = "classes",
    classes_per_client: Annotated[int, typer.Option(help="Classes on each device, with `--partition classes`.")] = 3,
    alpha: Annotated[float, typer.Option(help="Evenness of `--partition dirichlet`: smaller is more uneven.")] = 0.5,
    samples: Annotated[int, typer.Option(help="Private images of each device.")] = 200,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Let devices hold the same images, for a fleet larger than the data.")
    ] = False,
    budget: BudgetOption = _DEFAULTS.budget,
    budget_kind: BudgetKindOption = _DEFAULTS.budget_kind,
    signal: SignalOption = _DEFAULTS.signal,
    probes: ProbesOption = _DEFAULTS.probes,
    first_probes: Annotated[
        int, typer.Option(help="Probes of a device that has measured nothing itself before it makes its final model.")
    ] = _DEFAULTS.probes,
    solver: SolverOption = _DEFAULTS.solver,
    steps: StepsOption = _DEFAULTS.steps,
    step_probes: StepProbesOption = _DEFAULTS.step_probes,
    tolerance: ToleranceOption = _DEFAULTS.tolerance,
    recovery: RecoveryOption = _DEFAULTS.recovery,
    adapt_head: AdaptHeadOption = _DEFAULTS.adapt_head,
    strategy: StrategyOption = "precision-weighted-mean",
    secure_aggregation: Annotated[
        str,
        typer.Option(
            help="What the server learns in a round: each device's statistics (`off`), their sum alone (`sum`), or the "
            "sums of random `cohorts`, for strategies that tell vectors apart."
        ),
    ] = "off",
    cohort_size: Annotated[
        int, typer.Option(help="Fewest devices of a cohort, with `--secure-aggregation cohorts`.")
    ] = 10,
    seed: SeedOption = 0,
    data: Annotated[
        Path | None,
        typer.Option(help="Class folders of images, idx files, or .npz.", show_default="bundled Fashion-MNIST subset"),
    ] = None,
    model: ModelOption = None,
    engine: Annotated[str, typer.Option(help="`in-process`, or `ray` for Flower's simulation engine.")] = "in-process",
    out: Annotated[
        Path | None, typer.Option(help="Folder for report, journal and models.", show_default="runs/<date and time>")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in --out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Simulate a fleet: rounds of statistics, then a personal model for every device, and a report."""
    settings = {name: value for name, value in locals().items() if name != "as_json"}
    settings["out"] = _run_folder(out, resume=resume)
    _spare_threads(model)

    from simulations.fleet import FleetSettings, run_fleet
    from simulations.report.files import write_files
    from simulations.report.progress import RoundProgress
    from simulations.report.tables import clients_table, summary_table

    fleet = FleetSettings(**settings)
    answers = rounds * max(1, math.ceil(fraction * clients)) + clients
    with RoundProgress(Console(stderr=True), rounds=rounds + 1, answers=answers) as progress:
        result = run_fleet(fleet, on_round=progress.show, on_answer=progress.answered)
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


@app.command()
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
    scenario: Annotated[str, typer.Option(help="A bundled scenario or a TOML file.")] = "benign",
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
    _spare_threads(None)

    from simulations.comparison.command import compare as run
    from simulations.report.comparison_table import comparison_tables, failed_lines

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
        _stop(f"{failed} cells failed; the same command tries them again, and only them", code=1)


@app.command()
def personalize(
    data: Annotated[Path, typer.Option(help="This device's images: a folder, or class folders if there are labels.")],
    out: Annotated[Path, typer.Option(help="Folder for the personal model.")],
    model: ModelOption = None,
    budget: BudgetOption = _DEFAULTS.budget,
    budget_kind: BudgetKindOption = _DEFAULTS.budget_kind,
    signal: SignalOption = _DEFAULTS.signal,
    probes: ProbesOption = _DEFAULTS.probes,
    solver: SolverOption = _DEFAULTS.solver,
    steps: StepsOption = _DEFAULTS.steps,
    step_probes: StepProbesOption = _DEFAULTS.step_probes,
    tolerance: ToleranceOption = _DEFAULTS.tolerance,
    recovery: RecoveryOption = _DEFAULTS.recovery,
    adapt_head: AdaptHeadOption = _DEFAULTS.adapt_head,
    prior: Annotated[
        Path | None, typer.Option(help="report.json of a fleet with the same model: start from what the fleet knows.")
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Cut a personal model for one device from its own images, without a fleet."""
    settings = PersonalizationSettings(
        budget=budget,
        budget_kind=budget_kind,
        signal=signal,
        probes=probes,
        solver=solver,
        steps=steps,
        step_probes=step_probes,
        tolerance=tolerance,
        recovery=recovery,
        adapt_head=adapt_head,
        seed=seed,
    )
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / "manifest.json").is_file())):
        raise UserError(f"{out}: holds something else; choose a new folder, or that of an earlier personal model")
    _spare_threads(model)

    from simulations.device import personalize_folder
    from simulations.report.device import footprint_table, headline, layers_table

    report = personalize_folder(data, out, model=model, prior=prior, settings=settings)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        Console().print(layers_table(report), footprint_table(report), headline(report))
        typer.echo(f"{out}: saved; try it with: fedsieve predict {out} IMAGE")


@app.command()
def export(
    model_folder: Annotated[
        Path, typer.Argument(help="Folder of a personal model, or the state of a node that joined.")
    ],
    data: Annotated[
        Path, typer.Option(help="This device's images, to check the export on: a folder, or class folders.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the exported model.")],
    int8: Annotated[
        Literal["none", "dynamic", "static"],
        typer.Option(
            help="8-bit weights: `dynamic` scales activations as the model runs, `static` by their range on --data; "
            "`none` exports 32-bit numbers."
        ),
    ] = "dynamic",
    vault_key_file: KeyFileOption = None,
    vault_keyring: KeyringOption = None,
    vault_env: KeyEnvironmentOption = False,
    as_json: JsonOption = False,
) -> None:
    """Export a personal model to ONNX, for devices without torch; checked against torch on the device's own images.

    A state that is encrypted is opened with the key that it was last joined with; what is exported is not encrypted.
    """
    from deployment.join.layout import is_state
    from personalization.device.manifest import Precision
    from simulations.report.device import export_table

    precisions: dict[str, Precision] = {"none": "fp32", "dynamic": "int8-dynamic", "static": "int8-static"}
    precision = precisions[int8]
    if is_state(model_folder):
        from deployment.join.stored import export_from_state
        from deployment.join.vault_choice import choose_vault

        choice = choose_vault(key_file=vault_key_file, keyring=vault_keyring, environment=vault_env)
        manifest = export_from_state(
            model_folder, data, out, precision=precision, choice=choice, environment=os.environ
        )
    else:
        from personalization.export import export_personal_model

        _refuse_key(model_folder, vault_key_file, vault_keyring, vault_env)
        manifest = export_personal_model(model_folder, data, out, precision=precision)
    if as_json:
        typer.echo(manifest.to_json(), nl=False)
    else:
        Console().print(export_table(manifest))
        typer.echo(f"{out}: saved; try it with: fedsieve predict {out} IMAGE")


@app.command()
def predict(
    model_folder: Annotated[
        Path, typer.Argument(help="Folder of a personal model, of an exported one, or the state of a node that joined.")
    ],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    vault_key_file: KeyFileOption = None,
    vault_keyring: KeyringOption = None,
    vault_env: KeyEnvironmentOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a personal model sees on images: file, class, probability. An exported model needs no torch.

    A state that is encrypted is opened with the key that it was last joined with; `fedsieve join` may be running.
    """
    from deployment.join.layout import is_state
    from simulations.report.predictions import predictions_table

    exported = (model_folder / DEVICE_MANIFEST).is_file()
    if not exported and is_state(model_folder):
        from deployment.join.stored import predict_from_state
        from deployment.join.vault_choice import choose_vault

        choice = choose_vault(key_file=vault_key_file, keyring=vault_keyring, environment=vault_env)
        predictions = predict_from_state(model_folder, images, choice, os.environ)
    else:
        _refuse_key(model_folder, vault_key_file, vault_keyring, vault_env)
        if exported:
            from personalization.device.predict import predict_files
        else:
            from simulations.device import predict_files
        predictions = predict_files(model_folder, images)
    if as_json:
        typer.echo(json.dumps(predictions, indent=2))
    else:
        Console().print(predictions_table(predictions))


def _refuse_key(folder: Path, *options: Path | str | bool | None) -> None:
    if any(options):
        raise UserError(f"{folder}: not the state of a node, so there is no key; leave out the --vault options")


app.command()(enroll)
app.command()(serve)
app.command()(join)
app.command()(vault)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
