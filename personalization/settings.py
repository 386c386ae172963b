"""Settings of one device's personalization, checked where they are made."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from personalization.errors import UserError

Signal = Literal["entropy", "loss"]
Solver = Literal["deviation", "lasso", "omp"]
Recovery = Literal["fold", "ridge", "distill", "tune", "distill-tune"]
Precision = Literal["single", "bfloat16"]
Score = Literal["variance", "residual"]
BudgetKind = Literal["weights", "bytes", "macs", "latency"]

AUTOMATIC = -1
RECOVERY_WORDS = (
    "`fold` puts what the cut units give on average into biases; `ridge` refits what stays, in closed form; `distill` "
    "then trains it, without labels, towards the dense model, `tune` on labels, of text the next tokens, "
    "`distill-tune` on both"
)
TRAINING_RECOVERIES: tuple[Recovery, ...] = ("distill", "tune", "distill-tune")


def check_vocabulary(most: int | None, budget_kind: BudgetKind | None = None) -> None:
    """Raise UserError for a number of tokens to keep that is none. None and 0 keep all, -1 leaves it to the device.

    budget_kind: what else has to fit, None where that is not known yet.
    """
    if most is not None and most < AUTOMATIC:
        raise UserError(
            f"a vocabulary of {most} tokens: expected 0 or more, where 0 keeps all, or {AUTOMATIC} to let each device "
            "choose"
        )
    if most == AUTOMATIC and budget_kind not in (None, "bytes"):
        raise UserError(
            f"a vocabulary of {AUTOMATIC} shares bytes between tokens and blocks, but the budget is of {budget_kind}; "
            "use --budget-kind bytes, or say how many tokens to keep"
        )


@dataclass(frozen=True, kw_only=True)
class PersonalizationSettings:
    """How a device searches, prunes and recovers.

    budget: share of the blocks' weights, bytes, multiply-accumulates or latency that may stay, in (0, 1].
    signal: what a probe measures, in nats: `entropy` increase without labels, or `loss` increase with labels.
    probes: how many probes the device may measure before it cuts.
    layers_per_probe: how many layers are lowered together in one probe; 1 measures each exactly.
    levels: the levels (shares of a layer removed) at which layers are probed; sensitivity is kept for each of them.
    solver: how sensitivities are recovered from probes; `deviation` needs a prior and is lasso without one.
    recovery: what follows a cut: `fold` means only, `ridge` closed form, `distill` closed form and then training to
        predict what the dense model does, `tune` the same to predict labels (of text, the next tokens),
        `distill-tune` to do both.
    ridge: least strength of the closed-form refit, relative to the mean diagonal of the activations' second moments;
        where a device has few samples for a layer's units it is stronger.
    score: how the units of a layer are ranked.
    steps: in how many steps the budget is reached.
    step_probes: fresh probes of the survivors in each step; -1 takes 6 where there is no fleet prior or one
        that lacks atoms, and none where the prior knows them all and already tells what they would, and for language
        models, where each takes as long as a cut.
    tolerance: entropy increase (nats, on held-out private samples) up to which a step is committed.
    personalized_share: share of the total sensitivity that the personalized layers cover.
    layer_limit: largest share of a layer's units that is cut; 1 lets whole layers, and so whole blocks, go.
    equal_layers: whether all layers of a kind keep as many units, which formats without sizes of each layer need.
    held_out_share: share of the private samples that refits do not see.
    vocabulary: how many tokens of a language model may stay, chosen by the private text; 0 keeps all, -1 takes as many
        as leave tokens and blocks the best shares of a budget of bytes.
    refit_samples: of a language model, how many private samples the final cut of blocks and tokens is made on, where
        there are more than those that are measured on; 0 for those alone.
    tune_first: batches on which the whole model is tuned to the labels before its final cut, 0 for none; `distill`
        and `distill-tune` then learn from the tuned one.
    training_steps: batches of a recovery that trains, 0 for no training. adapters: rank of the low-rank adapters that
        all training trains instead of the weights, 0 for none. training_precision: of its passes; updates are in
        single precision.
    adapt_head: whether the head is fitted to how often the device sees each class, without labels (see `head`).
    """

    budget: float = 0.5
    budget_kind: BudgetKind = "weights"
    signal: Signal = "entropy"
    probes: int = 6
    layers_per_probe: int = 1
    levels: tuple[float, ...] = (0.5, 0.8)
    solver: Solver = "deviation"
    recovery: Recovery = "ridge"
    ridge: float = 0.1
    score: Score = "residual"
    steps: int = 1
    step_probes: int = AUTOMATIC
    tolerance: float = 0.5
    personalized_share: float = 0.8
    layer_limit: float = 0.95
    equal_layers: bool = False
    held_out_share: float = 0.25
    vocabulary: int = 0
    refit_samples: int = 0
    tune_first: int = 0
    training_steps: int = 40
    adapters: int = 0
    training_precision: Precision = "single"
    adapt_head: bool = True
    seed: int = 0

    @property
    def trains(self) -> bool:
        """Whether a model is trained after the cut."""
        return self.recovery in TRAINING_RECOVERIES and self.training_steps > 0

    @property
    def tunes(self) -> bool:
        """Whether labels are trained on, before the cut or after it."""
        return self.tune_first > 0 or (self.recovery in ("tune", "distill-tune") and self.trains)

    def searching(self) -> "PersonalizationSettings":
        """Return these settings without what only makes the personal model better, and says nothing of the layers."""
        return replace(self, refit_samples=0, tune_first=0, training_steps=0)

    def __post_init__(self) -> None:
        """Refuse values that make no sense, with a line that says what was expected."""
        for name, choices in (
            ("signal", Signal),
            ("solver", Solver),
            ("recovery", Recovery),
            ("score", Score),
            ("budget_kind", BudgetKind),
            ("training_precision", Precision),
        ):
            value = getattr(self, name)
            if value not in get_args(choices):
                raise UserError(f"{name} {value!r}: expected one of {', '.join(get_args(choices))}")
        for name in ("budget", "personalized_share", "layer_limit"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise UserError(f"{name} {getattr(self, name)}: expected a share above 0 and at most 1")
        for name in ("probes", "refit_samples", "tune_first", "training_steps", "adapters", "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} {getattr(self, name)}: expected 0 or more")
        check_vocabulary(self.vocabulary, self.budget_kind)
        if self.step_probes < AUTOMATIC:
            raise UserError(
                f"step_probes {self.step_probes}: expected 0 or more, or {AUTOMATIC} to choose by the prior"
            )
        for name in ("layers_per_probe", "steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)}: expected 1 or more")
        for name in ("ridge", "tolerance"):
            if not getattr(self, name) > 0.0:
                raise UserError(f"{name} {getattr(self, name)}: expected more than 0")
        if not math.isfinite(self.ridge):
            raise UserError(f"ridge {self.ridge}: expected a finite number")
        if not 0.0 < self.held_out_share < 1.0:
            raise UserError(f"held_out_share {self.held_out_share}: expected a share between 0 and 1")
        if (
            not self.levels
            or any(not 0.0 < level <= 1.0 for level in self.levels)
            or sorted(self.levels) != list(self.levels)
        ):
            raise UserError(f"levels {self.levels}: expected rising shares above 0 and at most 1")
