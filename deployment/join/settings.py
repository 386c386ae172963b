"""What `fedsieve join` is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployment.join.data import DataFound
from deployment.join.vault_choice import VaultChoice
from personalization.data.tasks import TextBatch
from personalization.errors import UserError
from personalization.settings import PersonalizationSettings, Precision, Recovery, check_vocabulary
from strategies.secure_aggregation.settings import SMALLEST_COHORT, SecureAggregationSettings


@dataclass(frozen=True, kw_only=True)
class JoinSettings:
    """What is asked for. data: the private images or text. state, vault, budget: None for the default.

    windows, window_tokens: how much text is taken. vocabulary: how many tokens of the model are kept, 0 for all.
    recovery, refit_samples, tune_first, training_steps, adapters, training_precision: what makes up for a cut. None for
    what the fleet says. sums_only: whether this device gives its statistics to secure sums alone. smallest_cohort:
    fewest devices of these. record: folder for a recording of all that this device sends. epsilon_budget: what it gives
    away in its whole life, None for no limit.
    """

    node_file: Path
    data: Path
    state: Path | None = None
    vault: VaultChoice | None = None
    budget: float | None = None
    windows: int | None = None
    window_tokens: int | None = None
    vocabulary: int | None = None
    recovery: Recovery | None = None
    refit_samples: int | None = None
    tune_first: int | None = None
    training_steps: int | None = None
    adapters: int | None = None
    training_precision: Precision | None = None
    sums_only: bool = True
    smallest_cohort: int = SMALLEST_COHORT
    record: Path | None = None
    epsilon_budget: float | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense. Raises UserError."""
        if self.budget is not None and not 0 < self.budget <= 1:
            raise UserError(f"--budget {self.budget}: expected a share above 0 to 1")
        if self.epsilon_budget is not None and not self.epsilon_budget > 0:
            raise UserError(f"--epsilon-budget {self.epsilon_budget}: expected a number above 0")
        SecureAggregationSettings(smallest_cohort=self.smallest_cohort)
        PersonalizationSettings(**_given(self._recovering()))
        TextBatch(**_given({"windows": self.windows, "tokens": self.window_tokens}))
        check_vocabulary(self.vocabulary)

    def own(self) -> dict[str, str | float]:
        """Return what the node configuration says about personalizing, where this device does not as the fleet does."""
        asked = {
            "budget": self.budget,
            "windows": self.windows,
            "window_tokens": self.window_tokens,
            "vocabulary": self.vocabulary,
            **self._recovering(),
        }
        return {key.replace("_", "-"): value for key, value in _given(asked).items()}

    def check_data(self, found: DataFound, data: Path) -> None:
        """Raise UserError for what says nothing to data of their kind."""
        if found.task == "text":
            return
        if self.windows is not None or self.window_tokens is not None:
            raise UserError(f"{data}: images, so there are no windows of text; leave out --windows and --window-tokens")
        if self.refit_samples is not None:
            raise UserError(f"{data}: images, and a cut is made on all of them; leave out --refit-samples")
        if self.vocabulary is not None:
            raise UserError(f"{data}: images, so the model has no vocabulary; leave out --vocabulary")

    def _recovering(self) -> dict[str, Any]:
        return {
            "recovery": self.recovery,
            "refit_samples": self.refit_samples,
            "tune_first": self.tune_first,
            "training_steps": self.training_steps,
            "adapters": self.adapters,
            "training_precision": self.training_precision,
        }

    @property
    def privacy(self) -> str:
        """What leaves the device, in words."""
        sums = f"secure sums over {self.smallest_cohort} devices or more"
        return f"statistics go into {sums}" + (" alone" if self.sums_only else ", or to the server in the open")


def _given(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in asked.items() if value is not None}
