"""`fedsieve personalize`."""

import json
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


def personalize(
    data: Annotated[
        Path,
        typer.Option(
            help="This device's images: a folder, or class folders if there are labels. Or its text: a folder of .txt "
            "or .jsonl files."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the personal model.")],
    model: ModelOption = None,
    task: TaskOption = None,
    windows: WindowsOption = TextBatch.windows,
    window_tokens: WindowTokensOption = TextBatch.tokens,
    vocabulary: VocabularyOption = None,
    budget: BudgetOption = _DEFAULTS.budget,
    budget_kind: BudgetKindOption = _DEFAULTS.budget_kind,
    signal: SignalOption = _DEFAULTS.signal,
    probes: ProbesOption = _DEFAULTS.probes,
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
    prior: Annotated[
        Path | None, typer.Option(help="report.json of a fleet with the same model: start from what the fleet knows.")
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Cut a personal model for one device from its own images or text, without a fleet."""
    batch = TextBatch(windows=windows, tokens=window_tokens)
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
        refit_samples=refit_samples,
        training_steps=training_steps,
        adapters=adapters,
        training_precision=training_precision,
        adapt_head=adapt_head,
        seed=seed,
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
        task=task,
        batch=batch,
        vocabulary=vocabulary,
    )
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        Console().print(layers_table(report), footprint_table(report), headline(report))
        what = {"image": "IMAGE", "text": '--prompt "..."'}[report["task"]]
        typer.echo(f"{out}: saved; try it with: fedsieve predict {out} {what}")
