"""Options that several commands share, alone or in groups, and what they do before torch is imported."""

import os
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from personalization.data.tasks import TextBatch
from personalization.errors import UserError
from personalization.settings import (
    RECOVERY_WORDS,
    TRAINING_RECOVERIES,
    BudgetKind,
    PersonalizationSettings,
    Precision,
    Recovery,
    Signal,
    Solver,
)

Task = Literal["image", "text"]
_IDLE = "--{}: nothing is trained with --recovery {}; choose distill, tune or distill-tune{}, or leave it out"

ModelOption = Annotated[
    str | None,
    typer.Option(
        help="Pre-trained transformer: a local folder, a Hugging Face name, or `smollm2` (after `make llm`).",
        show_default="bundled ViT",
    ),
]
SeedOption = Annotated[int, typer.Option(help="Start of all random numbers; the same seed gives the same result.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for scripts, instead of tables.")]


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """What a device takes of its text."""

    task: Annotated[
        Task | None,
        typer.Option(help="Whether devices hold images or text.", show_default="what the model is for"),
    ] = None
    windows: Annotated[
        int, typer.Option(help="Windows of private text that a device measures on, with a language model.")
    ] = TextBatch.windows
    window_tokens: Annotated[int, typer.Option(help="Tokens in a window of text.")] = TextBatch.tokens
    vocabulary: Annotated[
        int | None,
        typer.Option(
            help="Cut the vocabulary of a language model: at most so many tokens stay, those that a device's text uses "
            "and the model expects there. Other text is spelled out in more tokens. -1: as many as leave tokens and "
            "blocks the best shares of a budget of bytes, by each device's text.",
            show_default="whole vocabulary",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class CuttingOptions:
    """How much a device cuts, and how it finds out where."""

    budget: Annotated[
        float, typer.Option(help="Share that a personal model may keep of what --budget-kind counts, above 0 to 1.")
    ] = PersonalizationSettings.budget
    budget_kind: Annotated[
        BudgetKind,
        typer.Option(
            help="What --budget is a share of: the blocks' weights; or the whole model's bytes, multiply-accumulates "
            "(macs), or latency as measured on this machine."
        ),
    ] = PersonalizationSettings.budget_kind
    signal: Annotated[
        Signal,
        typer.Option(help="What a probe measures: the rise in entropy (needs no labels) or in loss (needs labels)."),
    ] = PersonalizationSettings.signal
    probes: Annotated[
        int,
        typer.Option(
            help="Probes (masked forward passes) that a device measures each time to learn which layers it needs."
        ),
    ] = PersonalizationSettings.probes
    solver: Annotated[
        Solver,
        typer.Option(
            help="How sensitivities are found from few probes: sparse deviation from the fleet's prior, non-negative "
            "lasso, or orthogonal matching pursuit."
        ),
    ] = PersonalizationSettings.solver
    steps: Annotated[int, typer.Option(help="In how many steps a model is pruned down to its budget.")] = (
        PersonalizationSettings.steps
    )
    step_probes: Annotated[
        int,
        typer.Option(
            help="Fresh masked forward passes in each step, to see which of the surviving layers matter most; -1: 6 "
            "for a device whose fleet does not know all layers yet, none for others and for language models."
        ),
    ] = PersonalizationSettings.step_probes
    tolerance: Annotated[
        float,
        typer.Option(help="Rise in entropy (nats, on held-out private samples) up to which a pruning step is kept."),
    ] = PersonalizationSettings.tolerance
    layer_limit: Annotated[
        float,
        typer.Option(help="Largest share of a layer's units, heads or channels, that is cut; 1 lets whole layers go."),
    ] = PersonalizationSettings.layer_limit


@dataclass(frozen=True, kw_only=True)
class RecoveryOptions:
    """What a device does about a cut."""

    recovery: Annotated[
        Recovery,
        typer.Option(help=f"What makes up for a cut: {RECOVERY_WORDS}."),
    ] = PersonalizationSettings.recovery
    refit_samples: Annotated[
        int,
        typer.Option(
            help="Windows of private text that the final cut of a language model is made on, where there are "
            "more than `--windows`: slower, and better; 0: those alone."
        ),
    ] = PersonalizationSettings.refit_samples
    tune_first: Annotated[
        int,
        typer.Option(
            help="Batches on which the whole model is tuned to the labels, of text the next tokens, before its final "
            "cut; `--recovery distill` or `distill-tune` then learns from it. 0: none."
        ),
    ] = PersonalizationSettings.tune_first
    training_steps: Annotated[int, typer.Option(help="Batches of training, with a recovery that trains.")] = (
        PersonalizationSettings.training_steps
    )
    adapters: Annotated[
        int,
        typer.Option(
            help="Train low-rank adapters (LoRA) of this rank instead of the weights; they are merged in the end. 0: "
            "train the weights."
        ),
    ] = PersonalizationSettings.adapters
    training_precision: Annotated[
        Precision, typer.Option(help="Of the passes of training; `bfloat16` is faster on processors that know it.")
    ] = PersonalizationSettings.training_precision
    adapt_head: Annotated[
        bool, typer.Option(help="Fit the classifier's bias to how often the device sees each class; needs no labels.")
    ] = PersonalizationSettings.adapt_head

    def __post_init__(self) -> None:
        """Refuse what is said of training where nothing is trained. Raises UserError."""
        trained_after = self.recovery in TRAINING_RECOVERIES
        if self.training_steps not in (0, PersonalizationSettings.training_steps) and not trained_after:
            raise UserError(_IDLE.format("training-steps", self.recovery, ""))
        if not trained_after and not self.tune_first:
            for name in ("adapters", "training_precision"):
                if getattr(self, name) != getattr(PersonalizationSettings, name):
                    raise UserError(_IDLE.format(name.replace("_", "-"), self.recovery, ", or --tune-first"))


def spare_threads(model: str | None) -> None:
    """Call before torch is imported: the bundled model is so small that a second thread costs more than it gives."""
    if model is None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
