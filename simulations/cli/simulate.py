"""`fedsieve simulate`."""

import json
import math
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from personalization.errors import UserError
from personalization.settings import PersonalizationSettings
from personalization.tasks import TextBatch
from simulations.cli.options import (
    AdaptersOption,
    AdaptHeadOption,
    BudgetKindOption,
    BudgetOption,
    ClipOption,
    DeltaOption,
    DpOption,
    EpsilonBudgetOption,
    EpsilonOption,
    JsonOption,
    ModelOption,
    ProbesOption,
    RecoveryOption,
    RefitSamplesOption,
    SeedOption,
    SignalOption,
    SolverOption,
    StepProbesOption,
    StepsOption,
    StrategyOption,
    TaskOption,
    ToleranceOption,
    TrainingPrecisionOption,
    TrainingStepsOption,
    VocabularyOption,
    WindowsOption,
    WindowTokensOption,
    spare_threads,
)

_DEFAULTS = PersonalizationSettings()


def simulate(
    clients: Annotated[int, typer.Option(help="Simulated devices; of text, the first so many speakers.")] = 30,
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
    refit_samples: RefitSamplesOption = _DEFAULTS.refit_samples,
    training_steps: TrainingStepsOption = _DEFAULTS.training_steps,
    adapters: AdaptersOption = _DEFAULTS.adapters,
    training_precision: TrainingPrecisionOption = _DEFAULTS.training_precision,
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
    dp: DpOption = "off",
    epsilon: EpsilonOption = 4.0,
    delta: DeltaOption = 1e-5,
    clip: ClipOption = 0.3,
    epsilon_budget: EpsilonBudgetOption = None,
    seed: SeedOption = 0,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Class folders of images, idx files, or .npz; or a folder with one folder of text for each speaker.",
            show_default="bundled Fashion-MNIST subset",
        ),
    ] = None,
    model: ModelOption = None,
    task: TaskOption = None,
    windows: WindowsOption = TextBatch.windows,
    window_tokens: WindowTokensOption = TextBatch.tokens,
    vocabulary: VocabularyOption = None,
    engine: Annotated[str, typer.Option(help="`in-process`, or `ray` for Flower's simulation engine.")] = "in-process",
    out: Annotated[
        Path | None, typer.Option(help="Folder for report, journal and models.", show_default="runs/<date and time>")
    ] = None,
    record: Annotated[
        bool,
        typer.Option("--record", help="Keep every encoded message in the run's folder, for `fedsieve audit`."),
    ] = False,
    canaries: Annotated[
        int,
        typer.Option(
            help="Devices that get one image of noise, or one sentence of random letters, among their own data, for "
            "`fedsieve audit` to look for."
        ),
    ] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in --out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Simulate a fleet: rounds of statistics, then a personal model for every device, and a report."""
    settings = {name: value for name, value in locals().items() if name != "as_json"}
    settings["out"] = _run_folder(out, resume=resume)
    spare_threads(model)

    from simulations.fleet import run_fleet
    from simulations.fleet_settings import FleetSettings
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
