"""Options that several commands share, and what they do before torch is imported."""

import os
from typing import Annotated, Literal

import typer

from personalization.settings import BudgetKind, Precision, Recovery, Signal, Solver

Task = Literal["image", "text"]

ModelOption = Annotated[
    str | None,
    typer.Option(
        help="Pre-trained transformer: a local folder, a Hugging Face name, or `smollm2` (after `make llm`).",
        show_default="bundled ViT",
    ),
]
TaskOption = Annotated[
    Task | None,
    typer.Option(help="Whether devices hold images or text.", show_default="what the model is for"),
]
WindowsOption = Annotated[
    int, typer.Option(help="Windows of private text that a device measures on, with a language model.")
]
WindowTokensOption = Annotated[int, typer.Option(help="Tokens in a window of text.")]
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
        help="What makes up for a cut: folded means only, closed-form refit (ridge), or that and training, without "
        "labels on what the whole model predicts (distill) or on labels, of text the next tokens (tune)."
    ),
]
RefitSamplesOption = Annotated[
    int,
    typer.Option(
        help="Windows of private text that the final cut of a language model is compensated on, where there are more "
        "than `--windows`: slower, and better; 0: those alone."
    ),
]
TrainingStepsOption = Annotated[int, typer.Option(help="Batches of training, with `--recovery distill` or `tune`.")]
AdaptersOption = Annotated[
    int,
    typer.Option(
        help="Train low-rank adapters (LoRA) of this rank instead of the weights; they are merged in the end. 0: train "
        "the weights."
    ),
]
TrainingPrecisionOption = Annotated[
    Precision, typer.Option(help="Of the passes of training; `bfloat16` is faster on processors that know it.")
]
VocabularyOption = Annotated[
    int | None,
    typer.Option(
        help="Cut the vocabulary of a language model: at most so many tokens stay, those that a device's text uses and "
        "the model expects there. Other text is spelled out in more tokens.",
        show_default="whole vocabulary",
    ),
]
StepProbesOption = Annotated[
    int,
    typer.Option(
        help="Fresh masked forward passes in each step, to see which of the surviving layers matter most; -1: 6 for a "
        "device whose fleet does not know all layers yet, none for others and for language models."
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
DpOption = Annotated[
    str,
    typer.Option(
        help="Differential privacy: `central`, the server adds noise to the sum of a round; `distributed`, every "
        "device adds a share before its statistics are masked (needs --secure-aggregation); `off`."
    ),
]
EpsilonOption = Annotated[
    float, typer.Option(help="With --dp: what a device gives away in this run at most; smaller is more private.")
]
DeltaOption = Annotated[float, typer.Option(help="With --dp: the chance that epsilon does not hold.")]
ClipOption = Annotated[
    float, typer.Option(help="With --dp: how far one device can move the sum; longer statistics are shortened to it.")
]
EpsilonBudgetOption = Annotated[
    float | None,
    typer.Option(
        help="What each device gives away in its life at most, as epsilon at delta 1e-5: it sits out a round that "
        "would exceed it, and one without noise.",
        show_default="no limit",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for scripts, instead of tables.")]


def spare_threads(model: str | None) -> None:
    """Call before torch is imported: the bundled model is so small that a second thread costs more than it gives."""
    if model is None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
